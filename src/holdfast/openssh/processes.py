"""Processes on this machine: ssh masters recognised and ended, and nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Optional

_PATIENCE = 2.0  # seconds between TERM and KILL
_WANTED_FILES = 4096  # a master holds 4 descriptors for each session [measured with 9.2]


def arguments(pid: int) -> Optional[str]:
    """The command line of a process, None if there is no such process (a zombie is none)."""
    if sys.platform.startswith("linux"):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return None
        return os.fsdecode(line.replace(b"\0", b" ")).strip() or None
    done = subprocess.run(
        ["ps", "-o", "args=", "-p", str(pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=10,
        check=False,
    )
    return os.fsdecode(done.stdout).strip() or None


def is_master(pid: int, control_path: str) -> bool:
    """Whether this pid is still the ssh that listens there, or that has and now drains.

    Pids are used again; a master's title is ``ssh: PATH [mux]`` (mux.c), or the command line that
    it was started with. One that was asked to stop is called ``ssh: [stopped mux]``.
    """
    line = arguments(pid)
    return (
        line is not None
        and "ssh" in line
        and (control_path in line or line == "ssh: [stopped mux]")
    )


def end(pid: int) -> bool:
    """TERM, then KILL. True once it is gone. A stopped process gets the KILL, the only one it takes."""
    signals = [signal.SIGKILL] if _is_stopped(pid) else [signal.SIGTERM, signal.SIGKILL]
    for number in signals:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            if arguments(pid) is None:
                return True
            time.sleep(0.02)
    return False


def _is_stopped(pid: int) -> bool:
    """Whether Linux says so; False where nobody can tell."""
    try:
        status = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return status.rpartition(b")")[2].split()[:1] == [b"T"]


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a child and, if it leads one, its process group (the ssh of a jump host is in it)."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
            return


def end_by_argument(argument: str) -> list[int]:
    """End the ssh processes of ours whose command line holds this (unique) argument."""
    ended = []
    for pid in _own_pids():
        line = arguments(pid)
        if line is not None and "ssh" in line and argument in line.split(" ") and end(pid):
            ended.append(pid)
    return ended


def run(argv: list[str], timeout: float) -> subprocess.CompletedProcess[bytes]:
    """Run a program without input and capture what it says; a timeout ends its children, too.

    :param timeout: seconds. :raises subprocess.TimeoutExpired: :raises OSError:
    """
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except BaseException:
            end_group(process)
            raise
    return subprocess.CompletedProcess(argv, process.returncode, stdout, stderr)


def _own_pids() -> list[int]:
    done = subprocess.run(
        ["ps", "-x", "-o", "pid="],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=10,
        check=False,
    )
    return [int(word) for word in done.stdout.split() if int(word) != os.getpid()]


def with_file_limit(argv: list[str]) -> list[str]:
    """The command with the soft limit of open files raised, as far as the hard one allows."""
    try:
        import resource
    except ImportError:
        return argv
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_FILES if hard == resource.RLIM_INFINITY else min(_WANTED_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return argv
    # By the shell, not by preexec_fn, which is unsafe with threads and slow with a large heap.
    return ["/bin/sh", "-c", f'ulimit -S -n {wanted}; exec "$@"', "sh", *argv]
