"""The sweep of what dead masters leave: a provably dead socket at once, a master of ours that has
not answered for long by its pid, and never anything else."""

from __future__ import annotations

import logging
import math
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from . import control_path, mux_client, processes
from .file_lock import FileLock, LockTimeout
from .mux_client import PROBE_TIMEOUT, State
from .records import CLIENT_LOG, Records

log = logging.getLogger("holdfast")

_HALF_WRITTEN = 3600.0  # seconds after which nobody is still writing a file of a few bytes


@dataclass(frozen=True)
class Swept:
    """What the sweep made of one socket.

    :ivar state: as it is now: ABSENT after a removal.
    :ivar removed: there was a dead one. :ivar ended: the pid that was ended for it.
    """

    path: str
    state: State
    removed: bool = False
    ended: Optional[int] = None
    pid: Optional[int] = None


def sweep_socket(
    path: str,
    *,
    pid: Optional[int],
    local: bool,
    stale_timeout: float,
    deadline: float = math.inf,
) -> Swept:
    """Remove a socket if its master is provably dead, or has not answered for too long.

    :param pid: of the master that we started there, None if we started none: then a master that
        does not answer is left alone, whoever it belongs to.
    :param local: a refused connection proves that it is dead, as no other machine can have bound
        it.
    :param stale_timeout: seconds without an answer to any alive check.
    :param deadline: of time.monotonic(): when to give up before that.
    """
    stale = time.monotonic() + stale_timeout
    while True:
        before = _inode(path)
        probe = mux_client.probe(path, within(min(PROBE_TIMEOUT, stale_timeout), deadline))
        if probe.state is State.ABSENT or probe.state is State.ALIVE:
            return Swept(path, probe.state, pid=probe.pid)
        if probe.state is State.DEAD:
            if not local or before is None or _inode(path) != before:
                return Swept(path, probe.state)
            log.info("removing the dead control socket %s", path)
            remove_socket(path)
            return Swept(path, State.ABSENT, removed=True)
        if probe.state is State.FOREIGN or pid is None:
            return Swept(path, probe.state)
        now = time.monotonic()
        if now >= deadline:
            return Swept(path, probe.state)
        if now >= stale:
            break
        time.sleep(max(0.0, min(0.5, stale - now, deadline - now)))
    if not processes.is_master(pid, path):
        return Swept(path, State.STUCK)
    log.warning("ending the master of %s (pid %d): no answer for %g s", path, pid, stale_timeout)
    processes.end(pid)
    remove_socket(path)
    return Swept(path, State.ABSENT, removed=True, ended=pid)


def sweep(
    runtime: Path, *, stale_timeout: float, lock_timeout: float = 1.0
) -> Iterator[tuple[str, Swept]]:
    """Clean up after dead masters of this machine, whoever of the user's processes started them.

    Yields (name, what became of it) for every name that had something to sweep. A name that
    another process is working on is left to it.
    """
    records = Records(runtime)
    for name in records.names():
        lock = FileLock(runtime / f"{name}.lock", lock_timeout)
        try:
            with lock:
                record = records.read(name)
                path = (
                    record.control_path
                    if record
                    else str(control_path.socket_directory(runtime) / name)
                )
                swept = sweep_socket(
                    path,
                    pid=record.pid if record else None,
                    local=not record
                    or Path(path).name == name
                    or control_path.on_local_filesystem(Path(path)),
                    stale_timeout=stale_timeout,
                )
                if swept.state is State.ABSENT and not (
                    record and processes.is_master(record.pid, record.control_path)
                ):
                    records.forget(name)
                if swept.removed or swept.state is not State.ALIVE:
                    yield name, swept
        except LockTimeout:
            continue
    _sweep_files(runtime)


def _sweep_files(runtime: Path) -> None:
    """Remove what processes that were killed have left: logs of clients, half-written files."""
    ours = f"{CLIENT_LOG}{control_path.host_tag()}-"
    for path in runtime.iterdir():
        if path.name.startswith(ours):
            pid = path.name[len(ours) :].partition("-")[0]
            dead = pid.isdigit() and processes.arguments(int(pid)) is None
        elif ".json." in path.name or path.name.startswith((".t", ".u")):
            dead = time.time() - path.lstat().st_mtime > _HALF_WRITTEN
        else:
            continue
        if dead:
            path.unlink(missing_ok=True)


def within(seconds: float, deadline: float) -> float:
    """At most so many seconds, and not beyond the deadline; never nothing at all."""
    return max(0.01, min(seconds, deadline - time.monotonic()))


def _inode(path: str) -> Optional[tuple[int, int]]:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None


def remove_socket(path: str) -> None:
    if _inode(path) is not None:
        with suppress(FileNotFoundError):
            os.unlink(path)
