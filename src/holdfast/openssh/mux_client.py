"""Requests to a control master over its socket, each with a deadline, and sessions on it."""

from __future__ import annotations

import array
import errno
import math
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Optional

from . import mux_protocol
from .mux_protocol import (
    Alive,
    Decoder,
    Exited,
    Hello,
    Message,
    Ok,
    ProtocolError,
    Refused,
    SessionOpened,
)

_REQUEST_ID = 1  # one request per connection, so any number will do


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


class SessionNotOpened(MuxError):
    """There is no session.

    :ivar refused: the server (or a human asked by the master) said no.
    :ivar started: False if the command certainly has not started, None if nobody can know.
    """

    def __init__(self, message: str, *, refused: bool = False, started: Optional[bool] = False):
        super().__init__(message)
        self.refused = refused
        self.started = started


def probe(path: str, timeout: float) -> Probe:
    """Ask a master whether it lives: hello, then an alive check. Local; says nothing of the link.

    :param timeout: seconds for the whole exchange.
    """
    try:
        answer = _request(path, mux_protocol.alive_check(_REQUEST_ID), timeout)
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
    _command(path, mux_protocol.stop_listening(_REQUEST_ID), timeout)


def terminate(path: str, timeout: float) -> None:
    """End the master and its sessions now. :raises MuxError: it did not."""
    _command(path, mux_protocol.terminate(_REQUEST_ID), timeout)


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
        return _reply(sock, Decoder(), deadline)


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


class Session:
    """One multiplexed session: a command on the far side, tied to a control connection.

    The order of events is SESSION_OPENED, then EXIT_MESSAGE and the ends of the streams in any
    order, then the end of the control connection; only then is everything written that will be.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._decoder = Decoder()
        self.status: Optional[int] = None
        self.opened = False
        self.ended = False

    @classmethod
    def open(
        cls,
        path: str,
        command: bytes,
        descriptors: Sequence[int],
        deadline: float,
        *,
        environment: Sequence[bytes] = (),
        agent: bool = False,
    ) -> Session:
        """:meth:`request` and :meth:`await_opened`: one round trip to the server."""
        session = cls.request(
            path, command, descriptors, deadline, environment=environment, agent=agent
        )
        session.await_opened(deadline)
        return session

    @classmethod
    def request(
        cls,
        path: str,
        command: bytes,
        descriptors: Sequence[int],
        deadline: float,
        *,
        environment: Sequence[bytes] = (),
        agent: bool = False,
    ) -> Session:
        """Ask for a session that runs a command; does not wait for the server.

        :param descriptors: stdin, stdout and stderr for the master, which makes them non-blocking:
            never somebody else's. The caller closes its copies.
        :param deadline: of time.monotonic(), for the master to read the request.
        :raises SessionNotOpened: nothing has started.
        """
        packet = mux_protocol.new_session(
            _REQUEST_ID, command, environment=environment, agent=agent
        )
        try:
            sock = connect(path, deadline)
        except OSError as error:
            raise SessionNotOpened(f"control socket {path}: {error}") from None
        try:
            # All of it back to back: a master waits for the descriptors and serves nobody else
            # meanwhile. It wants one message for each, with one byte of data.
            sock.sendall(mux_protocol.hello() + packet)
            for descriptor in descriptors:
                rights = array.array("i", [descriptor])
                sock.sendmsg([b"\0"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        except (TimeoutError, socket.timeout):
            sock.close()
            raise SessionNotOpened("the master does not read its control socket") from None
        except OSError as error:
            sock.close()
            raise SessionNotOpened(f"control socket {path}: {error}") from None
        except BaseException:
            sock.close()
            raise
        return cls(sock)

    def await_opened(self, deadline: float) -> None:
        """Wait until the server has given the session.

        :raises SessionNotOpened: with what is known. :raises TimeoutError: at the deadline; the
            command may have started. In both cases the session is closed.
        """
        if self.opened:
            return
        try:
            reply = _reply(self._sock, self._decoder, deadline)
        except (TimeoutError, socket.timeout):
            self.close()
            raise TimeoutError("no session in time") from None
        except (OSError, EOFError, ProtocolError) as error:
            # A master that is leaving closes before it answers; what it has read may run.
            self.close()
            raise SessionNotOpened(f"the master left: {error}", started=None) from None
        except BaseException:
            self.close()
            raise
        if isinstance(reply, SessionOpened):
            self.opened = True
            self._sock.settimeout(None)
            self._take(b"")  # the exit message may have come together with the answer
            return
        self.close()
        if isinstance(reply, Refused):
            raise SessionNotOpened(reply.reason, refused=True)
        raise SessionNotOpened(f"unexpected answer {reply}", started=None)

    def fileno(self) -> int:
        """For select(): readable when :meth:`read` has something to do."""
        return self._sock.fileno()

    def read(self, timeout: Optional[float]) -> bool:
        """Read what the master has to say. True once the session has ended.

        :param timeout: seconds to wait for it; None without limit, 0 not at all.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.ended:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            try:
                self._sock.settimeout(left)
                data = self._sock.recv(4096)
            except (BlockingIOError, TimeoutError, socket.timeout):
                return False
            except OSError:
                data = b""
            if data:
                self._take(data)
            if not data:
                self.close()
        return True

    def close(self) -> None:
        """Let go. The remote command sees the end of its stdin, and is not ended by that."""
        self.ended = True
        self._sock.close()

    def _take(self, data: bytes) -> None:
        self._decoder.feed(data)
        try:
            while True:
                message = self._decoder.next_message()
                if message is None:
                    return
                if isinstance(message, Exited):
                    self.status = message.status & 0xFF
        except ProtocolError:
            self.close()


def _reply(sock: socket.socket, decoder: Decoder, deadline: float) -> Message:
    """The first message after the hello. :raises EOFError, ProtocolError, OSError, TimeoutError:"""
    greeted = False
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
