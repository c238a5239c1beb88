"""Requests to a control master over its socket, each with a deadline."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Optional

from . import mux_protocol
from .forwarding import Endpoint, Forwarding
from .mux_protocol import (
    Alive,
    Decoder,
    Hello,
    Message,
    Ok,
    ProtocolError,
    Refused,
    RemotePort,
)

#: Seconds for one alive check: a healthy master answers in 0.05 ms.
PROBE_TIMEOUT = 2.0

REQUEST_ID = 1  # one request per connection, so any number will do


class State(Enum):
    """What a control socket says of its master."""

    ABSENT = "absent"  # no file
    DEAD = "dead"  # a file that nobody listens on
    ALIVE = "alive"
    STUCK = "stuck"  # something listens and does not answer
    FOREIGN = "foreign"  # not a socket, not ours to open, or another protocol


@dataclass(frozen=True)
class Probe:
    """The answer of one alive check. :ivar pid: of the master, if it answered."""

    state: State
    pid: Optional[int] = None
    detail: str = ""


class MuxError(Exception):
    """The master did not do what it was asked, or is gone."""


class ForwardNotOpened(MuxError):
    """There is no forward. :ivar refused: ssh or the server said no; else the master is gone."""

    def __init__(self, message: str, *, refused: bool = False):
        super().__init__(message)
        self.refused = refused


def probe(path: str, timeout: float) -> Probe:
    """Ask a master whether it lives: hello, then an alive check. Local; says nothing of the link.

    :param timeout: seconds for the whole exchange.
    """
    try:
        answer = _request(path, mux_protocol.alive_check(REQUEST_ID), timeout)
    except FileNotFoundError:
        return Probe(State.ABSENT)
    except ConnectionRefusedError:
        return Probe(State.DEAD)
    except (TimeoutError, socket.timeout):
        return Probe(State.STUCK, detail=f"no answer within {timeout:g} s")
    except (ConnectionError, EOFError):
        # It closed the door between our connect and its answer: it is just leaving.
        return Probe(State.DEAD if not os.path.exists(path) else State.STUCK, detail="closed")
    except (ProtocolError, OSError) as error:
        return Probe(State.FOREIGN, detail=str(error))
    if isinstance(answer, Alive):
        return Probe(State.ALIVE, answer.pid)
    return Probe(State.FOREIGN, detail=f"unexpected answer {answer}")


def has_clients(path: str) -> Optional[bool]:
    """Whether somebody holds a control connection to this master; None where nobody can tell.

    Linux lists a socket that was accepted under the name that its listener was bound to, which
    is the path and a dot and 16 characters (see :data:`control_path.MAX_LENGTH`).
    """
    try:
        with open("/proc/net/unix", encoding="utf-8", errors="surrogateescape") as table:
            rows = [line.rstrip("\n").split(" ", 7) for line in table]
    except OSError:
        return None
    connected = "03"  # SS_CONNECTED in <linux/net.h>
    names = (row[7].lstrip(" 0123456789") for row in rows if len(row) > 7 and row[5] == connected)
    return any(name == path or name.startswith(f"{path}.") for name in names)


def stop_listening(path: str, timeout: float) -> None:
    """Drain: no new sessions, and the master ends after the last. :raises MuxError: it did not."""
    _command(path, mux_protocol.stop_listening(REQUEST_ID), timeout)


def terminate(path: str, timeout: float) -> None:
    """End the master and its sessions now. :raises MuxError: it did not."""
    _command(path, mux_protocol.terminate(REQUEST_ID), timeout)


def _command(path: str, packet: bytes, timeout: float) -> None:
    try:
        answer = _request(path, packet, timeout)
    except EOFError:
        return  # a terminated master may be gone before it has answered
    except (OSError, ProtocolError) as error:
        raise MuxError(f"control socket {path}: {error or type(error).__name__}") from None
    if isinstance(answer, Refused):
        raise MuxError(f"control socket {path}: the master refused: {answer.reason}")
    if not isinstance(answer, Ok):
        raise MuxError(f"control socket {path}: unexpected answer {answer}")


def _request(path: str, packet: bytes, timeout: float) -> Message:
    """One hello and one request; hello and request may be pipelined (PROTOCOL.mux)."""
    deadline = time.monotonic() + timeout
    with connect(path, deadline) as sock:
        sock.sendall(mux_protocol.hello() + packet)
        return reply(sock, Decoder(), deadline)


def connect(path: str, deadline: float) -> socket.socket:
    """Connect to a control socket by a moment of time.monotonic().

    A full backlog (64) makes a non-blocking connect fail with EAGAIN on Linux: tried again until
    the deadline, as a master that is merely busy takes it in a moment.

    :raises OSError: as socket.connect; TimeoutError at the deadline.
    """
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            left = deadline - time.monotonic()
            sock.settimeout(None if left == math.inf else max(0.001, left))
            sock.connect(path)
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError) or error.errno != errno.EAGAIN:
                raise
            if time.monotonic() >= deadline:
                raise TimeoutError("the control socket's backlog is full") from None
            time.sleep(0.005)
        else:
            return sock


class Forwarder:
    """A control connection that holds one forward.

    Forwards belong to the master and need no connection; but a master whose ControlPersist is over
    leaves in spite of its listeners (channel_still_open() in channels.c counts control
    connections, and not those), and its end is the end of this connection.

    :raises ForwardNotOpened: the master is gone. :raises TimeoutError: it does not answer.
    """

    def __init__(self, path: str, forwarding: Forwarding, timeout: float) -> None:
        self._path = path
        self._forwarding = forwarding
        self._request_id = 0
        self._decoder = Decoder()
        self._lock = threading.Lock()
        try:
            self._sock = connect(path, time.monotonic() + timeout)
        except (TimeoutError, socket.timeout):
            raise TimeoutError(f"control socket {path}: no answer") from None
        except OSError as error:
            raise ForwardNotOpened(f"control socket {path}: {error}") from None

    def open(self, timeout: float) -> Optional[int]:
        """Open the forward: one round trip for a remote one, none for the others.

        :param timeout: seconds.
        :returns: the port that the server has chosen, None if it had nothing to choose.
        :raises ForwardNotOpened: :raises TimeoutError: it may be open, or be so in a moment.
        """
        answer = self._ask(mux_protocol.open_forward, timeout)
        if isinstance(answer, RemotePort):
            return answer.port
        if isinstance(answer, Ok):
            return None
        if isinstance(answer, Refused):
            raise ForwardNotOpened(answer.reason, refused=True)
        raise ForwardNotOpened(f"unexpected answer {answer}")

    def close(self, timeout: float) -> None:
        """Close the forward. Connections through it go on. :raises as: :meth:`open`."""
        answer = self._ask(mux_protocol.close_forward, timeout)
        if not isinstance(answer, Ok):
            reason = answer.reason if isinstance(answer, Refused) else f"unexpected {answer}"
            raise ForwardNotOpened(reason, refused=True)

    def ended(self, timeout: float = 0) -> bool:
        """Whether the master is gone. :param timeout: seconds to wait for that."""
        try:
            poll = select.poll()  # select() knows no descriptor above 1023
            poll.register(self._sock, select.POLLIN)
            ready = poll.poll(timeout * 1000)
            with self._lock:
                return bool(ready) and not self._sock.recv(4096, socket.MSG_PEEK)
        except (BlockingIOError, TimeoutError, socket.timeout):
            return False
        except (OSError, ValueError):  # reset; or let go of by another thread
            return True

    def let_go(self) -> None:
        """Of the control connection; the forward stays."""
        self._sock.close()

    def _ask(self, packet: Callable[..., bytes], timeout: float) -> Message:
        deadline = time.monotonic() + timeout
        forwarding = self._forwarding
        with self._lock:
            self._request_id += 1
            hello = b"" if self._request_id > 1 else mux_protocol.hello()
            try:
                self._sock.settimeout(timeout)
                self._sock.sendall(
                    hello
                    + packet(
                        self._request_id,
                        _KINDS[forwarding.kind],
                        _address(forwarding.listen),
                        _address(forwarding.connect),
                    )
                )
                return reply(self._sock, self._decoder, deadline, greeted=not hello)
            except (TimeoutError, socket.timeout):
                raise TimeoutError(f"control socket {self._path}: no answer") from None
            except (OSError, EOFError, ProtocolError) as error:
                raise ForwardNotOpened(
                    f"control socket {self._path}: {error or type(error).__name__}"
                ) from None


_KINDS = {
    "local": mux_protocol.LOCAL,
    "remote": mux_protocol.REMOTE,
    "dynamic": mux_protocol.DYNAMIC,
}


def _address(endpoint: Optional[Endpoint]) -> tuple[bytes, int]:
    if endpoint is None:
        return b"socks", 0
    port = mux_protocol.UNIX_PATH if endpoint.port is None else endpoint.port
    return os.fsencode(endpoint.host), port


def reply(
    sock: socket.socket, decoder: Decoder, deadline: float, *, greeted: bool = False
) -> Message:
    """The first message after the hello. :raises EOFError, ProtocolError, OSError, TimeoutError:"""
    while True:
        message = decoder.next_message()
        if message is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            sock.settimeout(None if left == math.inf else left)
            data = sock.recv(65536)
            if not data:
                raise EOFError("the master closed the connection")
            decoder.feed(data)
        elif isinstance(message, Hello):
            if message.version != mux_protocol.VERSION:
                raise ProtocolError(f"mux protocol version {message.version}")
            greeted = True
        elif not greeted:
            raise ProtocolError("no hello")
        else:
            return message
