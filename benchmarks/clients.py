"""The clients, each as its own manual says to use it: one login, then many commands over it.

Each one lives in a process of its own (worker.py), which imports nothing for the others.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Optional

SSH = "ssh"


class Client:
    """One way to run commands on the server.

    :ivar name: on the command line. :ivar title: in tables.
    :ivar logs_in: every command is a login: few of them are run, and none at once.
    """

    name = ""
    title = ""
    logs_in = False

    def __init__(
        self, *, config_file: str, alias: str, port: int, user: str, key: str, directory: str
    ) -> None:
        self.config_file = config_file
        self.alias = alias
        self.port = port
        self.user = user
        self.key = key
        self.directory = Path(directory)

    def open(self) -> None:
        """Log in."""

    def close(self) -> None:
        """Undo it."""

    def run(self, command: str) -> int:
        """The exit status of one command, its output read to the end."""
        raise NotImplementedError

    def master_pid(self) -> Optional[int]:
        """The process that encrypts for this client, where that is not the client itself."""
        return None

    def one_by_one(self, command: str, count: int) -> list[float]:
        """Seconds of each command."""
        return timed(lambda: self.run(command), count)

    def at_once(self, command: str, count: int, limit: int) -> tuple[float, list[str]]:
        """Seconds for all of them, *limit* at a time, and why some failed."""
        failures: list[str] = []

        def one(_: int) -> None:
            try:
                status = self.run(command)
            except Exception as error:  # paramiko, say, loses its transport now and then
                failures.append(_words(error))
            else:
                if status != 0:
                    failures.append(f"exit status {status}")

        with ThreadPoolExecutor(limit) as pool:
            list(pool.map(time.sleep, [0.001] * limit))  # the threads exist before the clock runs
            begin = time.perf_counter()
            list(pool.map(one, range(count)))
            return time.perf_counter() - begin, failures


def timed(call: Callable[[], object], count: int) -> list[float]:
    """Seconds of each call; one that gives a status must give 0."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        status = call()
        seconds.append(time.perf_counter() - begin)
        if type(status) is int and status != 0:
            raise RuntimeError(f"exit status {status}")
    return seconds


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


class Holdfast(Client):
    name = "holdfast"
    title = "holdfast"

    def open(self) -> None:
        import holdfast

        self.conn = holdfast.connect(self.alias, config_file=self.config_file)
        self.conn.open()

    def close(self) -> None:
        self.conn.disconnect(drain=False)

    def run(self, command: str) -> int:
        return self.conn.run(command).returncode

    def master_pid(self) -> Optional[int]:
        from holdfast.openssh import mux_client

        sockets = Path(os.environ["HOLDFAST_RUNTIME_DIR"]).rglob("*")
        for path in (path for path in sockets if path.is_socket()):
            return mux_client.probe(str(path), 5.0).pid
        return None

    def alive(self, count: int) -> list[float]:
        return timed(self.conn.is_alive, count)

    def shell(self, command: str, count: int) -> list[float]:
        if not hasattr(self.conn, "shell"):
            raise NotImplementedError("Connection.shell() is not there yet")
        with self.conn.shell() as shell:
            shell.run(command)
            return timed(lambda: shell.run(command).returncode, count)

    def receive(self, command: str, streamed: bool) -> int:
        if not streamed:
            return len(self.conn.run(command, text=False).stdout)
        total = 0

        def take(chunk: bytes) -> None:
            nonlocal total
            total += len(chunk)

        self.conn.run(command, text=False, on_stdout=take)
        return total

    def send(self, command: str, data: bytes) -> int:
        return self.conn.run(command, input=data, text=False).returncode


class Ssh(Client):
    """What holdfast is measured against: a process of ssh for each command, over one master."""

    name = "ssh-S"
    title = "ssh -S, a process each"

    def open(self) -> None:
        self.control_path = str(self.directory / f"m{os.getpid()}")
        self._ssh("-M", "-N", "-f", "-o", "ControlPersist=yes")

    def close(self) -> None:
        self._ssh("-O", "exit")

    def _ssh(self, *flags: str) -> None:
        subprocess.run(self._argv(*flags), stdin=-3, stdout=-3, stderr=-3, check=True)

    def _argv(self, *flags: str) -> list[str]:
        return [SSH, "-F", self.config_file, "-S", self.control_path, *flags, self.alias]

    def run(self, command: str) -> int:
        done = subprocess.run([*self._argv(), command], stdin=-3, capture_output=True)
        return done.returncode

    def master_pid(self) -> Optional[int]:
        done = subprocess.run(self._argv("-O", "check"), capture_output=True, text=True)
        return int(done.stderr.partition("pid=")[2].partition(")")[0])

    def alive(self, count: int) -> list[float]:
        return timed(lambda: self._ssh("-O", "check"), count)

    def receive(self, command: str, streamed: bool) -> int:
        argv = [*self._argv(), command]
        if not streamed:
            return len(subprocess.run(argv, stdin=-3, capture_output=True).stdout)
        total = 0
        with subprocess.Popen(argv, stdin=-3, stdout=-1) as process:
            assert process.stdout is not None
            while True:
                chunk = os.read(process.stdout.fileno(), 256 * 1024)
                total += len(chunk)
                if not chunk:
                    return total

    def send(self, command: str, data: bytes) -> int:
        return subprocess.run([*self._argv(), command], input=data, capture_output=True).returncode


class Login(Client):
    name = "login"
    title = "ssh, a login each"
    logs_in = True

    def run(self, command: str) -> int:
        argv = [SSH, "-F", self.config_file, self.alias, command]
        return subprocess.run(argv, stdin=-3, capture_output=True).returncode


class Fabric(Client):
    name = "fabric"
    title = "Fabric"

    def open(self) -> None:
        import fabric

        self.conn = fabric.Connection(
            "127.0.0.1",
            user=self.user,
            port=self.port,
            connect_kwargs={
                "key_filename": self.key,
                "look_for_keys": False,
                "allow_agent": False,
            },
        )
        self.conn.open()

    def close(self) -> None:
        self.conn.close()

    def run(self, command: str) -> int:
        status: int = self.conn.run(command, hide=True, warn=True, in_stream=False).exited
        return status


class Paramiko(Client):
    name = "paramiko"
    title = "paramiko"

    def open(self) -> None:
        import paramiko

        self.client = paramiko.SSHClient()
        # The key was made a minute ago, on this machine.
        self.client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        self.client.connect(
            "127.0.0.1",
            self.port,
            self.user,
            key_filename=self.key,
            look_for_keys=False,
            allow_agent=False,
        )

    def close(self) -> None:
        self.client.close()

    def run(self, command: str) -> int:
        stdin, stdout, stderr = self.client.exec_command(command)
        stdin.close()
        stdout.read()
        stderr.read()
        status: int = stdout.channel.recv_exit_status()
        return status


class ParamikoNoDelay(Paramiko):
    name = "paramiko-nodelay"
    title = "paramiko, TCP_NODELAY set"

    def open(self) -> None:
        super().open()
        transport: Any = self.client.get_transport()
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class AsyncSsh(Client):
    name = "asyncssh"
    title = "asyncssh"

    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        import asyncssh

        self.conn = await asyncssh.connect(
            "127.0.0.1",
            self.port,
            username=self.user,
            client_keys=[self.key],
            agent_path=None,
            known_hosts=None,
            config=None,
        )

    def close(self) -> None:
        self.conn.close()
        self.loop.run_until_complete(self.conn.wait_closed())
        self.loop.close()

    async def _run(self, command: str) -> int:
        done = await self.conn.run(command, stdin=asyncio.subprocess.DEVNULL)
        status: int = done.exit_status
        return status

    def run(self, command: str) -> int:
        return self.loop.run_until_complete(self._run(command))

    def one_by_one(self, command: str, count: int) -> list[float]:
        async def all_of_them() -> list[float]:
            seconds = []
            for _ in range(count):
                begin = time.perf_counter()
                status = await self._run(command)
                seconds.append(time.perf_counter() - begin)
                if status != 0:
                    raise RuntimeError(f"exit status {status}")
            return seconds

        return self.loop.run_until_complete(all_of_them())

    def at_once(self, command: str, count: int, limit: int) -> tuple[float, list[str]]:
        failures: list[str] = []

        async def all_of_them() -> None:
            places = asyncio.Semaphore(limit)

            async def one() -> None:
                async with places:
                    try:
                        status = await self._run(command)
                    except Exception as error:
                        failures.append(_words(error))
                    else:
                        if status != 0:
                            failures.append(f"exit status {status}")

            await asyncio.gather(*(one() for _ in range(count)))

        begin = time.perf_counter()
        self.loop.run_until_complete(all_of_them())
        return time.perf_counter() - begin, failures


class ParallelSsh(Client):
    name = "parallel-ssh"
    title = "parallel-ssh"

    def open(self) -> None:
        from pssh.clients import SSHClient

        self.client = SSHClient(
            "127.0.0.1", user=self.user, port=self.port, pkey=self.key, allow_agent=False
        )

    def close(self) -> None:
        self.client.disconnect()

    def run(self, command: str) -> int:
        output = self.client.run_command(command)
        self.client.wait_finished(output)
        for _ in output.stdout:
            pass
        status: int = output.exit_code
        return status

    def at_once(self, command: str, count: int, limit: int) -> tuple[float, list[str]]:
        from gevent.pool import Pool

        failures: list[str] = []

        def one(_: int) -> None:
            try:
                status = self.run(command)
            except Exception as error:
                failures.append(_words(error))
            else:
                if status != 0:
                    failures.append(f"exit status {status}")

        begin = time.perf_counter()
        Pool(limit).map(one, range(count))
        return time.perf_counter() - begin, failures


class Plumbum(Client):
    """Its SshMachine starts an ssh for each command, and shares a login only if ssh_config does."""

    name = "plumbum"
    title = "plumbum SshMachine, a login each"
    logs_in = True

    def open(self) -> None:
        from plumbum import SshMachine

        self.machine = SshMachine(self.alias, ssh_opts=["-F", self.config_file])

    def close(self) -> None:
        self.machine.close()

    def run(self, command: str) -> int:
        status: int = self.machine[command].run()[0]
        return status


CLIENTS: dict[str, type[Client]] = {
    client.name: client
    for client in (
        Holdfast,
        Ssh,
        Login,
        Fabric,
        Paramiko,
        ParamikoNoDelay,
        AsyncSsh,
        ParallelSsh,
        Plumbum,
    )
}
