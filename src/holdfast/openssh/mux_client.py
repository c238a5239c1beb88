"""Requests to a control master over its socket, each with a deadline."""

from __future__ import annotations

import errno
import os
import socket
import time
from dataclasses import dataclass
from enum import Enum
from typing import Optional

from . import mux_protocol
from .mux_protocol import Alive, Decoder, Hello, Message, Ok, ProtocolError, Refused

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
        decoder = Decoder()
        greeted = False
        while True:
            message = decoder.next_message()
            if message is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                sock.settimeout(left)
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


def connect(path: str, deadline: float) -> socket.socket:
    """Connect to a control socket by a moment of time.monotonic().

    A full backlog (64) makes a non-blocking connect fail with EAGAIN on Linux: tried again until
    the deadline, as a master that is merely busy takes it in a moment.

    :raises OSError: as socket.connect; TimeoutError at the deadline.
    """
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
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
