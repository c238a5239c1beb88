"""What the unit tests share: fake control masters, and the shells that are installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest
from hypothesis import settings

# Timing on a busy machine is no failure; what is found once is printed, so that it can be repeated.
settings.register_profile("holdfast", deadline=None, print_blob=True)
settings.load_profile("holdfast")


class FakeMaster:
    """Something that listens on a control socket and says what a test wants it to say."""

    def __init__(
        self, path: Path, answer: Optional[bytes], *, backlog: int = 64, close: bool = False
    ) -> None:
        self.path = path
        self.received = b""
        self._answer = answer
        self._close = close
        self._stopped = threading.Event()
        self._clients: list[socket.socket] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(backlog)
        self._thread: Optional[threading.Thread] = None
        if answer is not None or close:
            self._socket.settimeout(0.05)
            self._thread = threading.Thread(target=self._serve, daemon=True)
            self._thread.start()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                client, _ = self._socket.accept()
            except (TimeoutError, socket.timeout):
                continue
            except OSError:
                return
            if self._close:
                client.close()
                continue
            self._clients.append(client)
            client.settimeout(5)
            with contextlib.suppress(OSError):
                self.received = client.recv(65536)
                client.sendall(self._answer or b"")

    def stop(self) -> None:
        """Nobody listens any more; the file stays, as after kill -9."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        for client in self._clients:
            client.close()
        self._socket.close()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A private directory with a short name, for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="hfu", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def fake_master(short_path: Path) -> Iterator[Callable[..., FakeMaster]]:
    """``fake_master(answer)``: listens on ``short_path/"s"``; answer None never answers."""
    masters: list[FakeMaster] = []

    def start(answer: Optional[bytes], name: str = "s", **options: Any) -> FakeMaster:
        masters.append(FakeMaster(short_path / name, answer, **options))
        return masters[-1]

    yield start
    for master in masters:
        master.stop()


@pytest.fixture
def stuck_ssh(short_path: Path) -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """A process that looks like the master of a path, listens on it, and never answers."""
    processes: list[subprocess.Popen[bytes]] = []
    script = short_path / "ssh"
    script.write_text(
        "import socket, sys, time\n"
        "sock = socket.socket(socket.AF_UNIX)\n"
        "sock.bind(sys.argv[1]); sock.listen(64)\n"
        "time.sleep(60)\n"
    )

    def start(path: Path) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-I", "-S", str(script), str(path)])
        processes.append(process)
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "tcsh", "fish")


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    """Each login shell in turn."""
    name = str(request.param)
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def in_shell(shell: str, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run a string as sshd does: ``SHELL -c STRING`` in the home directory."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SHELL": shell,
        "LC_ALL": "C.UTF-8",
    }

    def run(command: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [shell, "-c", command],
            cwd=home,
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )

    return run
