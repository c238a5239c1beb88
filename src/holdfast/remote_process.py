"""One remote command as a process of this machine: an ssh that carries its streams."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Optional, Union

from .errors import CommandFailed, ConnectionLost
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


class RemoteProcess:
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
        client: subprocess.Popen[bytes],
        logfile: Path,
        judge: Callable[[int], Verdict],
        on_end: Callable[[Verdict], None] = lambda verdict: None,
    ) -> None:
        self.args = args
        self.destination = destination
        self.stdin = client.stdin
        self.stdout = client.stdout
        self.stderr = client.stderr
        self.returncode: Optional[int] = None
        self.signal: Optional[str] = None
        self.logfile = logfile
        self._client = client
        self._judge = judge
        self._on_end = on_end
        self._verdict: Optional[Verdict] = None
        self._lock = threading.Lock()

    def poll(self) -> Optional[int]:
        """The exit status if it has ended, else None. :raises ConnectionLost: see :meth:`wait`."""
        status = self._client.poll()
        return None if status is None else self._settle(status)

    def wait(self, timeout: Optional[float] = None) -> int:
        """Wait for the end and return the exit status.

        :param timeout: seconds. :raises subprocess.TimeoutExpired: it still runs.
        :raises ConnectionLost: the connection went away; ``started`` says what is known.
        """
        return self._settle(self._client.wait(timeout))

    def communicate(
        self, input: Optional[bytes] = None, timeout: Optional[float] = None
    ) -> tuple[Optional[bytes], Optional[bytes]]:
        """Send input, read both streams to their ends, wait. As subprocess; raises as :meth:`wait`."""
        output = self._client.communicate(input, timeout)
        self._settle(self._client.returncode)
        return output

    def terminate(self) -> None:
        """End the ssh on this machine; the remote side sees its streams close."""
        self._client.terminate()

    def kill(self) -> None:
        """As :meth:`terminate`, without asking."""
        self._client.kill()

    def __enter__(self) -> RemoteProcess:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()
        if kind is not None and self._client.poll() is None:
            self.kill()
            self._client.wait()
            return
        self.wait()

    def client_has_ended(self) -> bool:
        """Whether the ssh on this machine is gone; what that means :meth:`verdict` knows."""
        return self._client.poll() is not None

    def discard(self) -> None:
        """End the ssh on this machine and close what it held; raises nothing."""
        self.kill()
        self.verdict()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def verdict(self) -> Verdict:
        """What became of it; waits for the end, raises nothing."""
        with self._lock:
            if self._verdict is None:
                self._verdict = self._judge(self._client.wait())
                self._on_end(self._verdict)
            return self._verdict

    def _settle(self, status: int) -> int:
        verdict = self.verdict()
        if verdict.lost or verdict.refused:
            raise ConnectionLost(_lost_words(self.destination, verdict), started=verdict.started)
        if verdict.by_signal:
            self.returncode, self.signal = UNKNOWN_SIGNAL, "unknown"
        else:
            self.returncode = status if verdict.returncode is None else verdict.returncode
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


class Pump(threading.Thread):
    """Reads a stream to its end, hands every chunk on, and keeps it."""

    def __init__(self, stream: IO[bytes], callback: Optional[Callable[[bytes], object]]) -> None:
        super().__init__(daemon=True, name="holdfast-pump")
        self._stream = stream
        self._callback = callback
        self.chunks: list[bytes] = []
        self.error: Optional[BaseException] = None

    def run(self) -> None:
        read = getattr(self._stream, "read1", self._stream.read)
        with self._stream:
            while True:
                chunk = read(65536)
                if not chunk:
                    return
                if self._callback is None:
                    self.chunks.append(chunk)
                elif self.error is None:
                    try:
                        self._callback(chunk)
                    except BaseException as error:
                        self.error = error  # keep reading: the other side must not block


def stream_until_end(
    process: RemoteProcess,
    data: Optional[bytes],
    timeout: Optional[float],
    on_stdout: Optional[Callable[[bytes], object]],
    on_stderr: Optional[Callable[[bytes], object]],
) -> tuple[bytes, bytes]:
    """As communicate, with callbacks that get each chunk as it comes (and nothing is kept of it).

    :raises subprocess.TimeoutExpired: with what has been kept until then.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    assert process.stdout is not None
    assert process.stderr is not None
    pumps = (Pump(process.stdout, on_stdout), Pump(process.stderr, on_stderr))
    feeder: Optional[threading.Thread] = None
    if process.stdin is not None:
        feeder = threading.Thread(target=_feed, args=(process.stdin, data or b""), daemon=True)
        feeder.start()
    # The threads own the streams now and close them at their ends. Nobody else may: closing a
    # stream that a thread reads waits for that thread, which a stuck master can make for ever.
    process.stdin = process.stdout = process.stderr = None
    for pump in pumps:
        pump.start()
    for pump in pumps:
        pump.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if pump.is_alive():
            raise subprocess.TimeoutExpired(
                process.args, timeout or 0.0, b"".join(pumps[0].chunks), b"".join(pumps[1].chunks)
            )
    if feeder is not None:
        feeder.join()
    process.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
    for pump in pumps:
        if pump.error is not None:
            raise pump.error
    return b"".join(pumps[0].chunks), b"".join(pumps[1].chunks)


def _feed(stream: IO[bytes], data: bytes) -> None:
    # The remote command may end, or close its stdin, before it has read all: no error.
    with suppress(BrokenPipeError, ValueError):
        stream.write(data)
    with suppress(BrokenPipeError, ValueError):
        stream.close()
