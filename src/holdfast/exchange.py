"""Input to a remote command and its output back, all at once, until it ends or a deadline comes."""

from __future__ import annotations

import io
import os
import select
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from .remote_process import RemoteProcess

from .marker import MarkedPipe

Callback = Callable[[bytes], object]

_SLICE = 0.5  # seconds
_CHUNK = 256 * 1024  # bytes; a Linux pipe gives 64 KiB at most unless it was made larger


class Sink:
    """Where one stream goes: kept, or handed on to a callback.

    A callback that raises gets no more, and ends the exchange with its error.
    """

    def __init__(self, callback: Optional[Callback]) -> None:
        self._callback = callback
        self._kept = io.BytesIO()
        self.error: Optional[BaseException] = None

    def take(self, chunk: bytes) -> None:
        if self._callback is None:
            self._kept.write(chunk)
        elif self.error is None:
            try:
                self._callback(chunk)
            except Exception as error:
                self.error = error

    def kept(self) -> bytes:
        return self._kept.getvalue()


def exchange(
    process: RemoteProcess,
    data: Optional[bytes],
    deadline: Optional[float],
    on_stdout: Optional[Callback] = None,
    on_stderr: Optional[Callback] = None,
) -> tuple[bytes, bytes]:
    """Feed stdin, read stdout and stderr to their ends, and wait for the command.

    :param deadline: of time.monotonic().
    :param on_stdout, on_stderr: get each piece as it comes; nothing of that stream is kept then.
    :raises subprocess.TimeoutExpired: with what has been kept until then; the process still runs.
    :raises ConnectionLost: as :meth:`RemoteProcess.wait`.
    :raises Exception: what a callback has raised; the process still runs.
    """
    sinks = (Sink(on_stdout), Sink(on_stderr))
    loop = _by_poll if hasattr(select, "poll") else _by_threads
    if not loop(process, data or b"", deadline, sinks):
        raise subprocess.TimeoutExpired(process.args, 0.0, sinks[0].kept(), sinks[1].kept())
    for sink in sinks:
        if sink.error is not None:
            raise sink.error
    process.wait()
    return sinks[0].kept(), sinks[1].kept()


def _by_poll(
    process: RemoteProcess, data: bytes, deadline: Optional[float], sinks: tuple[Sink, Sink]
) -> bool:
    """One thread, no waste. False at the deadline."""
    poll = select.poll()
    readers: dict[int, tuple[IO[bytes], Sink]] = {}
    for stream, sink in zip((process.stdout, process.stderr), sinks):
        if stream is not None and not stream.closed:
            left_over = _buffered(stream)
            if left_over:
                sink.take(left_over)
            readers[stream.fileno()] = (stream, sink)
            poll.register(stream.fileno(), select.POLLIN)
    carrier = process.carrier_fileno()
    ended = carrier is not None and process.carrier_ended()
    if carrier is not None and not ended:
        poll.register(carrier, select.POLLIN)
    rest = memoryview(data)
    feeding = process.stdin
    stdin = -1
    if feeding is not None and feeding.closed:
        feeding = None
    if feeding is not None:
        with suppress(BrokenPipeError):
            feeding.flush()
        stdin = feeding.fileno()
        os.set_blocking(stdin, False)
        poll.register(stdin, select.POLLOUT)
    while readers or feeding is not None or not ended:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return False
        if carrier is None and not readers and feeding is None:
            return process.carrier_ended(left)
        # In slices: an exception that is meant for this thread waits for the end of one.
        slice_ = _SLICE if left is None else min(left, _SLICE)
        for descriptor, event in poll.poll(slice_ * 1000):
            if descriptor == carrier:
                if process.carrier_ended():
                    poll.unregister(descriptor)
                    ended = True
            elif descriptor in readers:
                stream, sink = readers[descriptor]
                chunk = read_below_buffer(stream)
                if chunk is None:
                    continue
                if chunk:
                    sink.take(chunk)
                    if sink.error is not None:
                        return True
                else:
                    poll.unregister(descriptor)
                    del readers[descriptor]
                    stream.close()
            elif feeding is not None:
                rest = _write(descriptor, rest) if event & select.POLLOUT else rest[:0]
                if not rest:
                    poll.unregister(descriptor)
                    feeding.close()
                    feeding = None
        if ended and feeding is not None:
            # Nobody will read the rest of the input.
            poll.unregister(stdin)
            with suppress(OSError):
                feeding.close()
            feeding = None
        ended = ended or (carrier is None and not readers and process.carrier_ended())
    return True


def _buffered(stream: IO[bytes]) -> bytes:
    """What a reader of the stream has left in its buffer."""
    if not isinstance(stream, io.BufferedReader):
        return b""
    os.set_blocking(stream.fileno(), False)  # peek() reads if there is nothing
    try:
        return stream.read1(len(stream.peek()))
    finally:
        os.set_blocking(stream.fileno(), True)


def read_below_buffer(stream: IO[bytes]) -> Optional[bytes]:
    """One read below the buffer. None: nothing to give yet; empty: the end."""
    raw = getattr(stream, "raw", stream)
    return raw.read_available() if isinstance(raw, MarkedPipe) else os.read(raw.fileno(), _CHUNK)


def _write(descriptor: int, rest: memoryview) -> memoryview:
    try:
        return rest[os.write(descriptor, rest[:_CHUNK]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:  # it ended, or closed its stdin, before it has read all: no error
        return rest[:0]


def _by_threads(
    process: RemoteProcess, data: bytes, deadline: Optional[float], sinks: tuple[Sink, Sink]
) -> bool:
    """For systems whose pipes cannot be polled (Windows). False at the deadline."""
    threads = []
    for stream, sink in zip((process.stdout, process.stderr), sinks):
        if stream is not None:
            threads.append(threading.Thread(target=_drain, args=(stream, sink), daemon=True))
    if process.stdin is not None:
        threads.append(threading.Thread(target=_feed, args=(process.stdin, data), daemon=True))
    # The threads close the streams at their ends. Nobody else may: closing a stream that a thread
    # reads waits for that thread.
    process.stdin = process.stdout = process.stderr = None
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            return False
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    return process.carrier_ended(left)


def _drain(stream: IO[bytes], sink: Sink) -> None:
    with stream:
        while True:
            chunk = read_below_buffer(stream)
            if chunk == b"":
                return
            if chunk:
                sink.take(chunk)


def _feed(stream: IO[bytes], data: bytes) -> None:
    with suppress(OSError, ValueError):
        stream.write(data)
    with suppress(OSError, ValueError):
        stream.close()
