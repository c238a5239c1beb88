"""Knowing the remote process: a line that each command's shell writes before the command, and that is
taken out of the stream again.

The mux protocol has no signals, and closing a session does not end its command. To end it, its
process id must be known: sshd's session process is the login shell, which tells it in a line
``holdfast-NONCE PID PARENT SHELL``. sshd makes it the leader of a session and a process group.
"""

from __future__ import annotations

import io
import os
import select
import threading
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Optional

_CHUNK = 256 * 1024  # bytes of one read

#: Login shells that have $$ and $PPID, and run `echo` without a process.
_POSIX = frozenset({"sh", "bash", "dash", "ash", "zsh", "ksh", "ksh93", "mksh"})

# For shells that are unknown or are no POSIX shell: a child tells its parent's numbers. Its
# grandparent is in /proc, where there is one; ${l##*) } skips the name, which may hold spaces.
_BY_CHILD = (
    "{{ read -r l < /proc/$PPID/stat; }} 2>/dev/null; set -- ${{l##*) }}; "
    "echo {word} $PPID ${{2:-0}} $SHELL{where}"
)


@dataclass(frozen=True)
class Identity:
    """A remote process as it has told itself.

    :ivar pid: of the login shell, or of what it has become by exec.
    :ivar parent: the pid of the sshd process above it, 0 if it is not known.
    :ivar shell: the account's login shell, a path.
    """

    pid: int
    parent: int
    shell: str


def is_posix(shell: str) -> bool:
    """Whether a login shell is one of the Bourne family."""
    return PurePosixPath(shell).name in _POSIX


def new_nonce() -> str:
    """A word that no command prints by chance."""
    return f"holdfast-{os.urandom(8).hex()}"


def marked(command: str, nonce: str, *, shell: str = "", to_stderr: bool = True) -> str:
    """The command with a line in front of its output.

    For a POSIX shell on the same line as the command: line numbers in its messages stay.

    :param shell: the login shell if it is known. :param to_stderr: else the line is on stdout.
    """
    where = " >&2" if to_stderr else ""
    if is_posix(shell):
        return f"echo {nonce} $$ $PPID $SHELL{where}; {command}"
    child = _BY_CHILD.format(word=nonce, where=where)
    # A newline, as csh would take `sh -c ...; command &` to the background as a whole.
    return f"/bin/sh -c '{child}'\n{command}"


class MarkedPipe(io.RawIOBase):
    """The reading end of a pipe whose stream holds the line of :func:`marked`; it does not come out.

    What rc files print before the line is kept, or set aside. Safe for a reader and a caller of
    :meth:`identity` in two threads.
    """

    def __init__(self, descriptor: int, nonce: str, *, set_aside: bool = False) -> None:
        """:param set_aside: what comes before the line does not come out; it is in ``before``."""
        super().__init__()
        self.before = b""
        self._set_aside = set_aside
        self._descriptor = descriptor
        self._word = nonce.encode() + b" "
        self._held = b""  # read, not yet given: the line is in it or may begin in it
        self._found: Optional[Identity] = None
        self._searching = True
        self._at_end = False
        self._lock = threading.Lock()

    def fileno(self) -> int:
        return self._descriptor

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        with self._lock:
            if not self.closed:
                super().close()
                os.close(self._descriptor)

    def readinto(self, buffer: object) -> Optional[int]:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while True:
            try:
                data = self.read_available(len(view))
            except BlockingIOError:
                return None
            if data is not None:
                view[: len(data)] = data
                return len(data)

    def read_available(self, size: int = _CHUNK) -> Optional[bytes]:
        """One read. None: nothing to give yet; empty: the end."""
        with self._lock:
            if not self._searching and not self._held:
                return os.read(self._descriptor, size)
            if not self._ready():
                self._fill()
            ready = self._ready()
            if not ready:
                return b"" if self._at_end and not self._held else None
            data, self._held = self._held[: min(size, ready)], self._held[min(size, ready) :]
            return data

    @property
    def found(self) -> Optional[Identity]:
        """Who runs there, if the line has been read."""
        return self._found

    def identity(self, deadline: float) -> Optional[Identity]:
        """Who runs there; waits for the line. :param deadline: of time.monotonic()."""
        poll = select.poll()
        while True:
            with self._lock:
                if not self._searching or self.closed:
                    return self._found
                poll.register(self._descriptor, select.POLLIN)
            left = deadline - time.monotonic()
            # Another thread may read the line meanwhile: look again soon.
            if left <= 0:
                return None
            if poll.poll(min(left, 0.05) * 1000):
                with self._lock:
                    if self._searching and not self.closed:
                        self._fill()

    def _ready(self) -> int:
        """How much of what is held may be given."""
        if not self._searching:
            return len(self._held)
        if self._set_aside:
            return 0
        start = self._held.find(self._word)
        if start >= 0:
            return start  # the rest of the line is on its way
        # The line may begin in the last bytes.
        for length in range(min(len(self._word), len(self._held)), 0, -1):
            if self._word.startswith(self._held[-length:]):
                return len(self._held) - length
        return len(self._held)

    def _fill(self) -> None:
        data = os.read(self._descriptor, _CHUNK)
        self._held += data
        start = self._held.find(self._word)
        end = self._held.find(b"\n", start) if start >= 0 else -1
        if end >= 0:
            self._found = _parse(self._held[start + len(self._word) : end])
            before, self._held = self._held[:start], self._held[end + 1 :]
            self._searching = False
            if self._set_aside:
                self.before = before
            else:
                self._held = before + self._held
        elif not data:
            self._searching, self._at_end = False, True


def _parse(line: bytes) -> Optional[Identity]:
    words = line.decode("utf-8", "replace").split(" ", 2)
    if len(words) == 3 and words[0].isdigit() and words[1].isdigit():
        return Identity(int(words[0]), int(words[1]), words[2])
    return None
