"""A lock between processes and threads: flock(2) on a file, with a deadline."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType
from typing import Optional

try:
    import fcntl
except ImportError:  # Windows: plain mode only, and nothing there is shared
    fcntl = None  # type: ignore[assignment]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.002, 0.05  # seconds between tries


class LockTimeout(Exception):
    """Somebody else holds the lock and did not let go in time."""


class FileLock:
    """``with FileLock(path, timeout): ...``; freed by the kernel if its holder dies.

    The file may be removed by whoever holds the lock: a waiter that finds it gone, or another in
    its place, starts over.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._descriptor = -1

    def __enter__(self) -> FileLock:
        deadline = time.monotonic() + self._timeout
        pause = _FIRST_PAUSE
        while not self._try():
            left = deadline - time.monotonic()
            if left <= 0:
                raise LockTimeout(f"{self._path} is held by another process")
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if fcntl is not None:  # a child that was forked meanwhile has the descriptor, too
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)
        self._descriptor = -1

    def remove(self) -> None:
        """Remove the file while holding it."""
        self._path.unlink(missing_ok=True)

    def _try(self) -> bool:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(descriptor, self._path):
                self._descriptor, descriptor = descriptor, -1
                return True
            return False
        except BlockingIOError:
            return False
        finally:
            if descriptor >= 0:
                os.close(descriptor)


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        here = path.stat()
    except FileNotFoundError:
        return False
    held = os.fstat(descriptor)
    return (held.st_dev, held.st_ino) == (here.st_dev, here.st_ino)
