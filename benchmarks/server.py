"""The one SSH server that all clients of a run talk to: a real sshd on a port of 127.0.0.1.

Keys and configuration are :class:`holdfast.testing.LocalSshd`'s, so that nobody's ``~/.ssh`` and
no rc file of the machine takes part.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.testing import LocalSshd, find_sshd

_LINES = (
    "MaxSessions 500",
    "MaxStartups 200",
    # What the server writes for each session would be measured, too.
    "LogLevel ERROR",
)
_PATIENCE = 10.0  # seconds for sshd to listen


@dataclass(frozen=True)
class Server:
    """A server under way.

    :ivar directory: private; anything may be put there, it goes in the end.
    :ivar ports: round trip in ms -> port. :ivar config_file: has the alias ``rttN`` for each.
    """

    directory: Path
    ports: Mapping[int, int]
    config_file: Path
    identity_file: Path
    user: str


@contextlib.contextmanager
def server(round_trips: Sequence[int] = (0,)) -> Iterator[Server]:
    """Start it, and a relay for every round trip that is not 0 (ms)."""
    with contextlib.ExitStack() as stack:
        local = stack.enter_context(LocalSshd(sshd_config=_LINES))
        port = stack.enter_context(_listening(local.directory))
        ports = {
            rtt: stack.enter_context(_relay(port, rtt)) if rtt else port for rtt in round_trips
        }
        user = getpass.getuser()
        config = local.directory / "tcp_config"
        lines = [
            "HostName 127.0.0.1",
            f"User {user}",
            f"HostKeyAlias {local.directory.name}",
            f"UserKnownHostsFile {local.known_hosts}",
            "GlobalKnownHostsFile /dev/null",
            "StrictHostKeyChecking yes",
            f"IdentityFile {local.identity_file}",
            "IdentitiesOnly yes",
            "IdentityAgent none",
        ]
        for rtt, number in ports.items():
            lines += [f"Host rtt{rtt}", f"    Port {number}"]
        config.write_text("\n".join(lines) + "\n")
        yield Server(local.directory, ports, config, local.identity_file, user)


@contextlib.contextmanager
def _listening(directory: Path) -> Iterator[int]:
    for _ in range(5):
        port = _free_port()
        log = directory / "listener.log"
        process = subprocess.Popen(
            [
                find_sshd(),
                *("-D", "-f", str(directory / "sshd_config"), "-E", str(log)),
                *("-o", "ListenAddress=127.0.0.1", "-p", str(port)),
            ],
            stdin=subprocess.DEVNULL,
        )
        try:
            if _wait(process, port):
                yield port
                return
        finally:
            process.terminate()
            process.wait()
    raise SystemExit(f"sshd does not start:\n{log.read_text()}")


def _wait(process: subprocess.Popen[bytes], port: int) -> bool:
    """Whether it listens; False if it ended, as somebody else was faster with the port."""
    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        time.sleep(0.02)
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _relay(port: int, rtt: int) -> Iterator[int]:
    program = str(Path(__file__).with_name("delay.py"))
    process = subprocess.Popen(
        [sys.executable, program, str(port), str(rtt)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.stdin.close()
        process.terminate()
        process.wait()
        process.stdout.close()
