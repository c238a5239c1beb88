"""The three streams of a remote command: what carries it gets one end, this process the other."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import threading
from contextlib import suppress
from typing import IO, Any, Optional, Union

from .marker import MarkedPipe

Stream = Union[int, IO[Any], None]

_BUFFER = 64 * 1024  # bytes


class Pipes:
    """The three streams of a session: what the master gets, and what stays here.

    The master makes what it gets non-blocking, and that holds for everybody who has the same open
    file: so it gets fresh pipes, and files that are opened anew where they can be.

    :param nonce: of :func:`marker.marked`; the line is taken out of a pipe of its own, which is
        put between where none was asked for.
    :param set_aside: the line is in stdout and stderr, and what comes before it does not come out;
        all three are pipes.
    :ivar theirs: descriptors of stdin, stdout and stderr for the master.
    :ivar ours: the files at our ends, None where no pipe was asked for.
    :ivar marked: the pipe that holds the line; None without a nonce.
    """

    def __init__(
        self,
        stdin: Stream,
        stdout: Stream,
        stderr: Stream,
        nonce: str = "",
        *,
        set_aside: bool = False,
    ) -> None:
        self._set_aside = set_aside
        self._owned: list[int] = []
        self._nonce = nonce
        self._relay: Optional[int] = None
        self.marked: Optional[MarkedPipe] = None
        self.theirs: list[int] = []
        self.ours: list[Optional[IO[bytes]]] = []
        # Where a pipe is asked for anyway, or else on stderr.
        self.marker_to_stderr = stderr == subprocess.PIPE or (
            stdout != subprocess.PIPE and stderr != subprocess.STDOUT
        )
        try:
            for number, stream in enumerate((stdin, stdout, stderr)):
                self._add(number, stream)
        except BaseException:
            self.close_theirs()
            self.close_ours()
            raise

    def start_relay(self) -> None:
        """Once there is a session: copy the stream that somebody else is to have."""
        if self._relay is not None and self.marked is not None:
            target, self._relay = self._relay, None
            threading.Thread(
                target=_relay, args=(self.marked, target), daemon=True, name="holdfast-relay"
            ).start()

    def close_stdin(self) -> None:
        """The end of the input."""
        stdin, self.ours[0] = self.ours[0], None
        if stdin is not None:
            with suppress(OSError):
                stdin.close()

    def close_theirs(self) -> None:
        """Once the master has its copies: or the ends of the streams would never come."""
        for descriptor in self._owned:
            os.close(descriptor)
        self._owned.clear()

    def close_ours(self) -> None:
        """If there will be no session."""
        if self._relay is not None and self.marked is not None:
            os.close(self._relay)
            self._relay = None
            self.marked.close()
        for stream in self.ours:
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _add(self, number: int, stream: Stream) -> None:
        ours: Optional[IO[bytes]] = None
        marked = self._nonce != "" and (
            number == (2 if self.marker_to_stderr else 1) or (self._set_aside and number > 0)
        )
        if stream == subprocess.PIPE:
            reading, writing = os.pipe()
            theirs, mine = (reading, writing) if number == 0 else (writing, reading)
            self._owned.append(theirs)
            if marked:
                pipe = MarkedPipe(mine, self._nonce, set_aside=self._set_aside)
                self.marked = self.marked or pipe
                ours = io.BufferedReader(pipe, _BUFFER)
            else:
                ours = os.fdopen(mine, "wb" if number == 0 else "rb")
        elif marked:
            # Somebody must take the line out: a thread that copies the rest to where it goes.
            reading, theirs = os.pipe()
            self._owned.append(theirs)
            self.marked = MarkedPipe(reading, self._nonce)
            self._relay = self._target(number, stream)
        elif stream == subprocess.STDOUT and number == 2:
            theirs = self.theirs[1]
        else:
            theirs = self._target(number, stream)
            self._owned.append(theirs)
        self.theirs.append(theirs)
        self.ours.append(ours)

    @staticmethod
    def _target(number: int, stream: Stream) -> int:
        """A descriptor of our own for a stream that is no pipe."""
        if stream == subprocess.DEVNULL:
            return os.open(os.devnull, os.O_RDWR)
        if stream is None:
            source = number
        else:
            source = stream if isinstance(stream, int) else stream.fileno()
        return _opened_anew(source, os.O_RDONLY if number == 0 else os.O_WRONLY)


def _relay(source: MarkedPipe, target: int) -> None:
    with source, os.fdopen(target, "wb", 0) as file, suppress(OSError):
        while True:
            chunk = source.read_available()
            if chunk == b"":
                return
            if chunk:
                file.write(chunk)


def _opened_anew(descriptor: int, flags: int) -> int:
    """The same file with an open file description of its own, where the system can do that.

    A regular file keeps its description (non-blocking means nothing to it, and its offset is
    shared on purpose). A terminal or a pipe is opened anew through /proc; sockets, and systems
    without /proc, have no way: there the caller's own is used, as ssh does.
    """
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        with suppress(OSError):
            return os.open(f"/proc/self/fd/{descriptor}", flags | os.O_NOCTTY | os.O_CLOEXEC)
    return os.dup(descriptor)
