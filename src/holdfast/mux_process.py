"""A remote command carried by a control connection of our own: no process on this machine."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Optional

from .openssh.diagnosis import Verdict
from .openssh.mux_client import Session
from .remote_process import RemoteProcess, Stream


class MuxProcess(RemoteProcess):
    """:param session: has started. :param pipes: its streams.
    :param master_lives: whether the session's own master still answers.
    :param on_end: called once, when the session has ended.
    """

    def __init__(
        self,
        args: Any,
        destination: str,
        session: Session,
        pipes: Pipes,
        master_lives: Callable[[], bool],
        on_end: Callable[[], None],
    ) -> None:
        super().__init__(args, destination, *pipes.ours)
        self._session = session
        self._master_lives = master_lives
        self._on_end = on_end
        self._let_go = False

    def carrier_ended(self, timeout: Optional[float] = 0) -> bool:
        return self._session.read(timeout)

    def carrier_fileno(self) -> Optional[int]:
        return self._session.fileno()

    def let_go(self) -> None:
        self._let_go = not self._session.ended
        self._session.close()

    def _judge(self) -> Verdict:
        self._on_end()
        if self._session.status is not None:
            return Verdict(returncode=self._session.status)
        # A death by a signal and a dying master look the same from here; so ask the master.
        if not self._let_go and self._master_lives():
            return Verdict(by_signal=True)
        return Verdict(lost=True, started=True)


class Pipes:
    """The three streams of a session: what the master gets, and what stays here.

    The master makes what it gets non-blocking, and that holds for everybody who has the same open
    file: so it gets fresh pipes, and files that are opened anew where they can be.

    :ivar theirs: descriptors of stdin, stdout and stderr for the master.
    :ivar ours: the files at our ends, None where no pipe was asked for.
    """

    def __init__(self, stdin: Stream, stdout: Stream, stderr: Stream) -> None:
        self._owned: list[int] = []
        self.theirs: list[int] = []
        self.ours: list[Optional[IO[bytes]]] = []
        try:
            for number, stream in enumerate((stdin, stdout, stderr)):
                self._add(number, stream)
        except BaseException:
            self.close_theirs()
            self.close_ours()
            raise

    def close_theirs(self) -> None:
        """Once the master has its copies: or the ends of the streams would never come."""
        for descriptor in self._owned:
            os.close(descriptor)
        self._owned.clear()

    def close_ours(self) -> None:
        """If there will be no session."""
        for stream in self.ours:
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _add(self, number: int, stream: Stream) -> None:
        ours: Optional[IO[bytes]] = None
        if stream == subprocess.PIPE:
            reading, writing = os.pipe()
            theirs, mine = (reading, writing) if number == 0 else (writing, reading)
            self._owned.append(theirs)
            ours = os.fdopen(mine, "wb" if number == 0 else "rb")
        elif stream == subprocess.STDOUT and number == 2:
            theirs = self.theirs[1]
        elif stream == subprocess.DEVNULL:
            theirs = os.open(os.devnull, os.O_RDWR)
            self._owned.append(theirs)
        else:
            if stream is None:
                source = number
            else:
                source = stream if isinstance(stream, int) else stream.fileno()
            theirs = _opened_anew(source, os.O_RDONLY if number == 0 else os.O_WRONLY)
            self._owned.append(theirs)
        self.theirs.append(theirs)
        self.ours.append(ours)


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
