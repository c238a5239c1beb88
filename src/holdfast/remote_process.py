"""One remote command under way: one interface, whatever carries its streams."""

from __future__ import annotations

import subprocess
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Optional, Union

from .errors import CommandFailed, ConnectionLost, SessionRefused
from .exchange import exchange
from .openssh.diagnosis import Verdict

Stream = Union[int, IO[Any], None]

#: What ``returncode`` is after a death by a signal that nobody names.
UNKNOWN_SIGNAL = -1


@dataclass(frozen=True)
class Completed:
    """What a remote command has done.

    :ivar args: the command as it was given.
    :ivar returncode: its exit status, 0 to 255. Negative after a death by a signal, as in
        subprocess: -1, as OpenSSH's mux protocol tells no number.
    :ivar stdout, stderr: str or bytes, None if they went elsewhere.
    :ivar signal: None if it exited; "unknown" if a signal (or a failed exec) ended it.
    :ivar duration: seconds from the call to the end, waiting for a session included.
    :ivar destination: where it ran.
    """

    args: Any
    returncode: int
    stdout: Any = None
    stderr: Any = None
    signal: Optional[str] = None
    duration: float = 0.0
    destination: str = ""

    def check_returncode(self) -> None:
        """:raises CommandFailed: the exit status is not 0, or a signal ended it."""
        if self.returncode != 0:
            raise CommandFailed(
                self.returncode,
                self.args,
                self.stdout,
                self.stderr,
                signal=self.signal,
                destination=self.destination,
            )


class RemoteProcess(ABC):
    """A remote command that has started; the interface is :class:`subprocess.Popen`'s.

    :ivar args: the command as it was given. :ivar destination: where it runs.
    :ivar stdin, stdout, stderr: the pipes, where pipes were asked for; bytes.
    :ivar returncode: None while it runs; see :class:`Completed`.
    :ivar signal: see :class:`Completed`.
    """

    def __init__(
        self,
        args: Any,
        destination: str,
        stdin: Optional[IO[bytes]],
        stdout: Optional[IO[bytes]],
        stderr: Optional[IO[bytes]],
    ) -> None:
        self.args = args
        self.destination = destination
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.returncode: Optional[int] = None
        self.signal: Optional[str] = None
        self._verdict: Optional[Verdict] = None
        self._lock = threading.Lock()

    # What carries the streams is a process of this machine or a control connection.

    @abstractmethod
    def carrier_ended(self, timeout: Optional[float] = 0) -> bool:
        """Whether what carries the streams has ended. :param timeout: seconds to wait for it."""

    @abstractmethod
    def carrier_fileno(self) -> Optional[int]:
        """A descriptor that is readable when :meth:`carrier_ended` may have changed, if any."""

    @abstractmethod
    def let_go(self) -> None:
        """End what carries the streams, now."""

    @abstractmethod
    def _judge(self) -> Verdict:
        """What became of the command; called once, after the carrier has ended."""

    def poll(self) -> Optional[int]:
        """The exit status if it has ended, else None. :raises ConnectionLost: see :meth:`wait`."""
        return self._settle() if self.carrier_ended() else None

    def wait(self, timeout: Optional[float] = None) -> int:
        """Wait for the end and return the exit status.

        :param timeout: seconds. :raises subprocess.TimeoutExpired: it still runs.
        :raises ConnectionLost: the connection went away; ``started`` says what is known.
        """
        if not self.carrier_ended(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._settle()

    def communicate(
        self, input: Optional[bytes] = None, timeout: Optional[float] = None
    ) -> tuple[bytes, bytes]:
        """Send input, read both streams to their ends, wait. As subprocess; raises as :meth:`wait`.

        Streams that are no pipes give nothing.
        """

        deadline = None if timeout is None else time.monotonic() + timeout
        return exchange(self, input, deadline)

    def terminate(self) -> None:
        """Let go of the command; it sees its streams close."""
        self.let_go()

    kill = terminate

    def __enter__(self) -> RemoteProcess:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close_streams()
        if kind is None:
            self.wait()
        else:
            self.discard()

    def close_streams(self) -> None:
        """Close our ends of the pipes."""
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def discard(self) -> None:
        """Let go of everything, whatever becomes of the command; raises nothing."""
        self.let_go()
        self.verdict()
        self.close_streams()

    def verdict(self) -> Verdict:
        """What became of it; waits for the end, raises nothing."""
        with self._lock:
            if self._verdict is None:
                self.carrier_ended(None)
                self._verdict = self._judge()
            return self._verdict

    def _settle(self) -> int:
        verdict = self.verdict()
        if verdict.refused:
            raise SessionRefused(f"{self.destination} refused to open a session: {verdict.words}")
        if verdict.lost:
            raise ConnectionLost(_lost_words(self.destination, verdict), started=verdict.started)
        if verdict.returncode is None:
            self.returncode, self.signal = UNKNOWN_SIGNAL, "unknown"
        else:
            self.returncode = verdict.returncode
        return self.returncode


def _lost_words(destination: str, verdict: Verdict) -> str:
    fate = {
        True: "the command had started and may run on",
        False: "the command has not started",
        None: "whether the command has started is unknown",
    }[verdict.started]
    words = verdict.words.splitlines()
    said = f" (ssh: {words[-1]})" if words else ""
    return f"the connection to {destination} was lost; {fate}{said}. The next command connects anew"
