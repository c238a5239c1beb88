"""One remote command under way: one interface, whatever carries its streams."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Optional, Protocol

from .errors import CommandFailed, ConnectionLost, SessionRefused
from .exchange import exchange
from .marker import Identity
from .openssh.diagnosis import Verdict
from .pipes import Pipes

#: Seconds that a signal may take until its caller goes on.
_SIGNAL_PATIENCE = 0.9


class Signaller(Protocol):
    """Sends signals to remote processes; :mod:`remote_kill` is the one there is."""

    def send(self, who: Identity, number: int) -> bool:
        """Whether the signal was sent."""

    def end(self, who: Identity, timeout: float) -> Optional[bool]:
        """Whether the process is gone."""


#: What ``returncode`` is after a death by a signal that nobody names.
UNKNOWN_SIGNAL = -1


@dataclass(frozen=True)
class Completed:
    """What a remote command has done.

    :ivar args: the command as it was given.
    :ivar returncode: its exit status, 0 to 255. Negative after a death by a signal, as in
        subprocess; -1 if nobody knows which, as OpenSSH's mux protocol tells no number.
    :ivar stdout, stderr: str or bytes, None if they went elsewhere.
    :ivar signal: None if it exited; the name of the signal that this side has sent ("KILL");
        "unknown" if another one (or a failed exec) ended it.
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
        pipes: Pipes,
        signaller: Signaller,
    ) -> None:
        self.args = args
        self.destination = destination
        self.stdin, self.stdout, self.stderr = pipes.ours
        self.returncode: Optional[int] = None
        self.signal: Optional[str] = None
        self._marked = pipes.marked
        self._signaller = signaller
        self._sent = 0
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

    def send_signal(self, number: int) -> None:
        """Send a signal to the remote process and its group; nothing if it has ended.

        A second session carries it, as ssh itself cannot. A command on a terminal (``pty``), or
        one whose process is not known, is let go of instead: a terminal hangs up on it.

        :param number: as in :mod:`signal`.
        """
        if self.carrier_ended():
            return
        who = self.identity(_SIGNAL_PATIENCE)
        if who is None:
            self.let_go()
        elif self._signaller.send(who, number):
            self._sent = number

    def terminate(self) -> None:
        """:meth:`send_signal` of SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """:meth:`send_signal` of SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def end(self, timeout: float) -> Optional[bool]:
        """Make an end of it: TERM, then KILL, and let go. Raises nothing.

        :param timeout: seconds for the word that it is gone; the far side goes on by itself.
        :returns: True: it is gone. False: it is still there. None: nobody knows.
        """
        deadline = time.monotonic() + timeout
        ended: Optional[bool] = None
        if self.carrier_ended():
            ended = None if self.verdict().lost else True
        else:
            who = self.identity(timeout)
            if who is not None:
                ended = self._signaller.end(who, max(0.0, deadline - time.monotonic()))
        self.discard()
        return ended

    def identity(self, timeout: float) -> Optional[Identity]:
        """The remote process, if it has told. :param timeout: seconds to wait for it."""
        return self._marked.identity(time.monotonic() + timeout) if self._marked else None

    def __enter__(self) -> RemoteProcess:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if kind is None:
            self.close_streams()
            self.wait()
        else:
            self.end(_SIGNAL_PATIENCE)

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
        if verdict.returncode is None and self._sent:
            self.returncode, self.signal = -self._sent, signal.Signals(self._sent).name[3:]
        elif verdict.returncode is None:
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
