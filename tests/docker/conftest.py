"""Containers for the tests: an SSH server in any variant, and one behind a bastion.

``scripts/containers up`` provides Docker and the image, ``docker/sshd/entrypoint`` lists the
variants. A test asks for what it needs::

    def test_one_session(server, home):
        one = server(SSHD_OPTS="MaxSessions 1")          # any variables of docker/sshd/entrypoint
        subprocess.run(["ssh", "-F", one.config_file, one.name, "true"], check=True)
        assert one.logins() == 1

Containers are shared by all tests of a session that ask for the same variables. A test that counts
logins from zero, or breaks the server, asks for ``fresh=True``.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import ipaddress
import itertools
import json
import os
import re
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, Protocol

import pytest

import holdfast
from holdfast.openssh.login_ledger import LoginLedger

CONTAINERS = Path(__file__).parents[2] / "scripts" / "containers"
IMAGE = "holdfast-test-sshd"
NOT_RUN = "CONTAINER TESTS DID NOT RUN"
TOTP_SECRET = "JBSWY3DPEHPK3PXP"  # the default of docker/sshd/entrypoint

_numbers = itertools.count(1)


# --- Docker itself


class Docker:
    """A Docker daemon that answers.

    ``docker("ps", "-q")`` is the command line ``docker ps -q`` and returns its standard output.
    """

    def __init__(self, host: str) -> None:
        self.host = host
        self.session = secrets.token_hex(4)  # label of all that this session makes
        # Fixed now: tests change HOME and other variables later.
        self.env = {**os.environ, "DOCKER_HOST": host, "HOLDFAST_SESSION": self.session}
        self.direct = self._reaches_bridge()

    def __call__(self, *arguments: str) -> str:
        return self._run("docker", *arguments).stdout

    def logs(self, container: str) -> str:
        """What *container* has written on stdout, then on stderr."""
        done = self._run("docker", "logs", container)
        return done.stdout + done.stderr

    def compose(self, *arguments: str, **environment: str) -> str:
        """Run docker-compose on docker/compose.yaml, in a project of this session alone."""
        project = f"holdfast-{self.session}"
        return self._run(
            str(CONTAINERS), "compose", "-p", project, *arguments, **environment
        ).stdout

    def _run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            env={**self.env, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode:
            raise DockerError(
                f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done

    def _reaches_bridge(self) -> bool:
        """Whether the containers' own addresses can be reached from here.

        They can where this machine has an address in the containers' network. It has none where
        the daemon is remote, rootless or in a virtual machine; ports are published there.
        """
        network = ipaddress.ip_network(
            json.loads(self("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Subnet"]
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((str(network[2]), 22))  # sends nothing: only picks a route
            except OSError:
                return False
            return ipaddress.ip_address(probe.getsockname()[0]) in network


class DockerError(Exception):
    """A docker command failed; the message has all that it printed."""


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    """The daemon; everything that this session made in it is removed at the end."""
    if sys.platform == "win32":
        _not_run("Windows has no /bin/sh for scripts/containers")
    up = subprocess.run(
        [str(CONTAINERS), "up"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if up.returncode == 3:
        _not_run(up.stderr.strip().splitlines()[-1].removeprefix("containers: "))
    if up.returncode:
        pytest.fail(f"scripts/containers up: exit status {up.returncode}\n{up.stderr}")
    docker = Docker(up.stdout.strip().partition("=")[2])
    yield docker
    mine = f"label=holdfast.session={docker.session}"
    containers = docker("ps", "--all", "--quiet", "--filter", mine).split()
    if containers:
        docker("rm", "--force", "--volumes", *containers)
    docker("network", "prune", "--force", "--filter", mine)


def _not_run(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{NOT_RUN}: {reason}", pytrace=False)
    pytest.skip(f"{NOT_RUN}: {reason}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Repeat the reason where nobody overlooks it."""
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
    reasons = {why[2] for why in skipped if isinstance(why, tuple) and NOT_RUN in why[2]}
    for reason in sorted(reasons):
        terminalreporter.section(reason.replace("Skipped: ", ""), red=True, bold=True)


# --- servers


@dataclass
class Server:
    """An SSH server in a container."""

    docker: Docker
    name: str  #: its alias in config_file
    container: str  #: the container's id
    ip: str  #: address to connect to
    port: int
    host_key: str  #: its public key: type and base64
    config_file: Path  #: for ``ssh -F``: alice's key, and known_hosts with the right host key
    intact: bool = True  #: False once it was killed or removed: it is not shared any more
    paused: bool = field(default=False, repr=False)

    def exec(self, *command: str) -> str:
        """Run *command* as root in the container, and return its standard output."""
        return self.docker("exec", self.container, *command)

    def log(self) -> str:
        """What the server has logged up to this moment."""
        mark = f"mark {next(_numbers)} of the tests"
        try:  # through the server's own stderr: what was written before the mark is there with it
            self.exec("sh", "-c", 'echo "$0" >/proc/1/fd/2', mark)
        except DockerError:  # paused or dead: it writes nothing any more
            return self.docker.logs(self.container)
        deadline = time.monotonic() + 5
        while True:
            before, found, _ = self.docker.logs(self.container).partition(mark)
            if found:
                return before
            assert time.monotonic() < deadline, "the log does not show what was written to it"

    def logins(self) -> int:
        """How many authentications the server has accepted since it started."""
        return len(re.findall(r"^Accepted |\] .* auth succeeded for '", self.log(), re.MULTILINE))

    @property
    def known_hosts(self) -> Path:
        """The file that config_file names, with the right host key."""
        return self.config_file.with_name("known_hosts")

    def config_with(self, *lines: str) -> Path:
        """Write a copy of config_file in which *lines* come first for this host."""
        path = self.config_file.with_name(f"config-{next(_numbers)}")
        block = "".join(f"  {line}\n" for line in lines)
        path.write_text(f"Host {self.name}\n{block}{self.config_file.read_text()}")
        return path

    def ssh(
        self, *arguments: str, config_file: Optional[Path] = None
    ) -> subprocess.CompletedProcess[str]:
        """Run plain ssh with *arguments*: options, a destination, a command. It asks nobody."""
        with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
            # Files, not pipes: a master that it leaves in the background may hold them open.
            done = subprocess.run(
                ["ssh", "-F", config_file or self.config_file, "-o", "BatchMode=yes", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                timeout=20,
            )
            output.seek(0)
            errors.seek(0)
            return subprocess.CompletedProcess(
                done.args, done.returncode, output.read(), errors.read()
            )

    def drop_connections(self) -> None:
        """End alice's connections from the server's side (OpenSSH only)."""
        self.exec("pkill", "-u", "alice", "sshd")

    def pause(self) -> None:
        """Freeze the server: connections hang, nothing is refused."""
        self.docker("pause", self.container)
        self.paused = True

    def unpause(self) -> None:
        """Let a paused server go on."""
        self.docker("unpause", self.container)
        self.paused = False

    def kill(self) -> None:
        """End the server at once; its log can still be read."""
        self.intact = False
        self.docker("kill", self.container)

    def remove(self) -> None:
        """End the server and forget its log."""
        self.intact = False
        self.docker("rm", "--force", "--volumes", self.container)


class StartServer(Protocol):
    """What the fixture ``server`` is."""

    def __call__(self, *, fresh: bool = False, **variables: str) -> Server: ...


class Servers:
    """All servers of a session."""

    def __init__(self, docker: Docker, directory: Path) -> None:
        self.docker = docker
        self.directory = directory
        self.key = directory / "id_ed25519"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", self.key], check=True
        )
        self.public_key = self.key.with_suffix(".pub").read_text().strip()
        self._shared: dict[frozenset[tuple[str, str]], Server] = {}
        self._jump: Optional[tuple[Server, Server]] = None

    def start(self, **variables: str) -> Server:
        """Run a new container."""
        environment = {"AUTHORIZED_KEY": self.public_key, **variables}
        container = self.docker(
            "run",
            "--detach",
            f"--label=holdfast.session={self.docker.session}",
            *(() if self.docker.direct else (f"--publish={self._listen_address()}::22",)),
            *(f"--env={name}={value}" for name, value in environment.items()),
            IMAGE,
        ).strip()
        ip, port = self._address(container)
        self._await_banner(container, ip, port)
        name = f"server{next(_numbers)}"
        key = self._host_key(container)
        config = self._write_config(
            name, f"HostName {ip}\n  Port {port}", self._known_host(ip, port, key)
        )
        return Server(self.docker, name, container, ip, port, key, config)

    def share(self, **variables: str) -> Server:
        """The container of this session with these variables; a new one where it is broken."""
        variant = frozenset(variables.items())
        server = self._shared.get(variant)
        if server is None or not server.intact:
            server = self._shared[variant] = self.start(**variables)
        return server

    def jump(self) -> tuple[Server, Server]:
        """The bastion and the host behind it, as docker/compose.yaml has them."""
        if self._jump is None or not (self._jump[0].intact and self._jump[1].intact):
            names = ("bastion", "inner")
            self.docker.compose(
                "up", "--detach", "--no-build", *names, AUTHORIZED_KEY=self.public_key
            )
            ids = [
                self.docker.compose("ps", "-q", name, AUTHORIZED_KEY=self.public_key).strip()
                for name in names
            ]
            ip, port = self._address(ids[0])
            self._await_banner(ids[0], ip, port)
            self._await_log(ids[1], "Server listening on")  # only the bastion may reach its port
            keys = [self._host_key(container) for container in ids]
            config = self._write_config(
                "bastion",
                f"HostName {ip}\n  Port {port}\nHost inner\n  ProxyJump bastion",
                self._known_host(ip, port, keys[0]) + self._known_host("inner", 22, keys[1]),
            )
            self._jump = (
                Server(self.docker, "bastion", ids[0], ip, port, keys[0], config),
                Server(self.docker, "inner", ids[1], "inner", 22, keys[1], config),
            )
        return self._jump

    def _write_config(self, name: str, host: str, known_hosts: str) -> Path:
        directory = self.directory / f"{name}-{next(_numbers)}"
        directory.mkdir()
        (directory / "known_hosts").write_text(known_hosts)
        config = directory / "config"
        config.write_text(
            f"Host {name}\n"
            f"  {host}\n"
            "Host *\n"
            "  User alice\n"
            f"  IdentityFile {self.key}\n"
            "  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {directory / 'known_hosts'}\n"
            "  GlobalKnownHostsFile /dev/null\n"
            "  StrictHostKeyChecking yes\n"
        )
        return config

    def _known_host(self, host: str, port: int, key: str) -> str:
        return f"{host if port == 22 else f'[{host}]:{port}'} {key}\n"

    def _daemon_host(self) -> str:
        return urllib.parse.urlsplit(self.docker.host).hostname or "127.0.0.1"

    def _listen_address(self) -> str:
        return "127.0.0.1" if self.docker.host.startswith("unix:") else "0.0.0.0"

    def _address(self, container: str) -> tuple[str, int]:
        settings = json.loads(self.docker("inspect", container))[0]["NetworkSettings"]
        if not self.docker.direct:
            return self._daemon_host(), int(settings["Ports"]["22/tcp"][0]["HostPort"])
        # A bastion has two; "inside" is the one that compose.yaml keeps for it and the inner host.
        networks = sorted(settings["Networks"].items(), key=lambda item: "inside" in item[0])
        return str(networks[0][1]["IPAddress"]), 22

    def _await_banner(self, container: str, ip: str, port: int) -> None:
        deadline = time.monotonic() + 10
        while True:
            try:
                with socket.create_connection((ip, port), timeout=1) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            self._check(container, deadline)
            time.sleep(0.02)

    def _await_log(self, container: str, text: str) -> None:
        deadline = time.monotonic() + 10
        while text not in self.docker.logs(container):
            self._check(container, deadline)

    def _check(self, container: str, deadline: float) -> None:
        if time.monotonic() > deadline:
            pytest.fail(f"the server does not get ready; its log:\n{self.docker.logs(container)}")

    def _host_key(self, container: str) -> str:
        found = re.search(r"^ssh-ed25519 \S+", self.docker.logs(container), re.MULTILINE)
        assert found, "docker/sshd/entrypoint prints the host key before the server starts"
        return found[0]


@pytest.fixture(scope="session")
def servers(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Servers:
    """All servers of this session, for fixtures with a wider scope than ``server``."""
    return Servers(docker, tmp_path_factory.mktemp("servers"))


@pytest.fixture
def server(servers: Servers) -> Iterator[StartServer]:
    """``server(**variables)``: a server in the variant that docker/sshd/entrypoint makes of them."""
    used: list[Server] = []
    fresh_ones: list[Server] = []

    def start(*, fresh: bool = False, **variables: str) -> Server:
        server = servers.start(**variables) if fresh else servers.share(**variables)
        used.append(server)
        if fresh:
            fresh_ones.append(server)
        return server

    yield start
    for one in used:
        if one.paused and one.intact:
            one.unpause()
    for one in fresh_ones:
        one.remove()


@pytest.fixture
def bastion(servers: Servers) -> Iterator[Server]:
    """The host that passes connections on to ``inner``, and allows no more."""
    server, _ = servers.jump()
    yield server
    if server.paused:
        server.unpause()


@pytest.fixture
def inner(servers: Servers) -> Iterator[Server]:
    """A host that is reached through ``bastion`` alone; its config_file says so."""
    _, server = servers.jump()
    yield server
    if server.paused:
        server.unpause()


# --- the user's side


@dataclass(frozen=True)
class Home:
    """A user who has nothing yet."""

    path: Path  #: $HOME
    runtime_dir: Path  #: $HOLDFAST_RUNTIME_DIR, mode 0700, short enough for control sockets


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """A home and a runtime directory for one test; every master in them is ended afterwards.

    ssh itself takes the home from the passwd database, not from $HOME: give it ``-F`` always.
    """
    top = Path(tempfile.mkdtemp(prefix="hf", dir="/tmp"))  # short: socket paths end at 86 bytes
    made = Home(top / "home", top / "run")
    for directory in (made.path, made.runtime_dir):
        directory.mkdir(mode=0o700)
    for name in list(os.environ):
        if name.startswith(("HOLDFAST_", "XDG_", "SSH_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(made.path))
    monkeypatch.setenv("HOLDFAST_RUNTIME_DIR", str(made.runtime_dir))
    yield made
    _end_masters(top)
    shutil.rmtree(top, ignore_errors=True)


def _end_masters(top: Path) -> None:
    """End the control masters whose sockets are below *top*: politely, then for certain."""
    for path in [path for path in top.rglob("*") if path.is_socket()]:
        with contextlib.suppress(subprocess.TimeoutExpired):  # the test may have stopped it
            subprocess.run(
                ["ssh", "-F", "none", "-S", path, "-O", "exit", "any"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=2,
            )
    # An ssh that still names this directory, which no one else knows, was left by the test: a
    # stopped master, or one that lost the race for a socket and stays connected.
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # ended meanwhile
            command = cmdline.read_bytes()  # ssh\0-S\0PATH... or, of a master, "ssh: PATH [mux]"
            if re.match(rb"(\S*/)?ssh[:\0]", command) and os.fsencode(top) in command:
                os.kill(int(cmdline.parent.name), signal.SIGKILL)


class Connect(Protocol):
    """What the fixture ``connect`` is."""

    def __call__(
        self,
        server: Server,
        name: str = ...,
        *,
        config_file: Optional[Path] = ...,
        **settings: Any,
    ) -> holdfast.Connection: ...


@pytest.fixture
def connect(runtime_dir: Path) -> Iterator[Connect]:
    """``connect(server, **settings)``: holdfast.connect, closed after the test.

    *name* is another destination than the server's alias, *config_file* another than its own.
    """

    def connect(
        server: Server, name: str = "", *, config_file: Optional[Path] = None, **settings: Any
    ) -> holdfast.Connection:
        return holdfast.connect(
            name or server.name,
            config_file=config_file or server.config_file,
            settings=holdfast.Settings.load(**settings),
        )

    yield connect
    holdfast.close_all_connections()


@pytest.fixture
def ledger(runtime_dir: Path) -> LoginLedger:
    """The logins of this test, as holdfast has counted them."""
    return LoginLedger(runtime_dir)


class Totp(Protocol):
    """What the fixture ``totp`` is."""

    def __call__(self, secret: str = ..., at: Optional[float] = ...) -> str: ...


@pytest.fixture
def totp() -> Totp:
    """``totp()``: the one-time code that a phone would show now."""
    return _totp


def _totp(secret: str = TOTP_SECRET, at: Optional[float] = None) -> str:
    """RFC 6238 with its usual parameters: HMAC-SHA-1, steps of 30 s, six digits."""
    step = int(time.time() if at is None else at) // 30
    digest = hmac.new(base64.b32decode(secret), struct.pack(">Q", step), hashlib.sha1).digest()
    offset = digest[-1] & 15
    number = int(struct.unpack(">I", digest[offset : offset + 4])[0]) & 0x7FFFFFFF
    return f"{number % 1_000_000:06d}"
