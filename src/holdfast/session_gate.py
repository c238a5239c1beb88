"""Sessions of one master, shared among the threads of this process, first come, first served."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Optional

# Others hold sessions of the same master, too: what was learned from a refusal is forgotten after
# this many seconds.
_MEMORY = 5.0


class SessionGate:
    """Counts open sessions, and learns from refusals how many there can be.

    A command takes its place with :meth:`enter` before it asks the server, and leaves it with
    :meth:`leave`. The limit is a hint that keeps a crowd from asking in vain; the server decides.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._queue: deque[object] = deque()
        self._open = 0
        self._limit: Optional[int] = None
        self._learned = 0.0

    @property
    def open(self) -> int:
        return self._open

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def enter(self, timeout: float) -> bool:
        """Wait for a place. :param timeout: seconds. :returns: False if there was none in time."""
        ticket = object()
        with self._condition:
            self._queue.append(ticket)
            try:
                deadline = time.monotonic() + timeout
                while not (self._queue[0] is ticket and self._has_room()):
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return False
                    # Nobody tells that a limit has been forgotten.
                    self._condition.wait(min(left, _MEMORY))
                self._open += 1
                return True
            finally:
                self._queue.remove(ticket)
                self._condition.notify_all()

    def leave(self, *, refused: bool = False) -> None:
        """Give the place back. :param refused: the server had no session for it."""
        with self._condition:
            self._open -= 1
            if refused:
                self._limit = max(1, self._open)
                self._learned = time.monotonic()
            self._condition.notify_all()

    def pause(self, seconds: float) -> None:
        """Wait until another session of ours ends, at most so long."""
        with self._condition:
            if self._open:
                self._condition.wait(seconds)
                return
        time.sleep(seconds)  # the sessions are somebody else's; nothing tells of their end

    def _has_room(self) -> bool:
        if self._limit is not None and time.monotonic() - self._learned > _MEMORY:
            self._limit = None
        return self._limit is None or self._open < self._limit
