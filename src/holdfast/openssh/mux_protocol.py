"""Packets of the mux protocol, version 4: bytes in, values out, no I/O.

The source of every number is PROTOCOL.mux in OpenSSH. A packet is ``u32 length | u32 type |
body``, big-endian; a string is ``u32 length + bytes``; hello has no request id, everything else
starts with one.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional, Union

VERSION = 4

#: The master closes the socket without a word on a longer packet (CHANNEL_MUX_MAX_PACKET in
#: channels.c); length field not counted.
MAX_PACKET = 256 * 1024

HELLO = 0x00000001
NEW_SESSION = 0x10000002
ALIVE_CHECK = 0x10000004
TERMINATE = 0x10000005
OPEN_FORWARD = 0x10000006
CLOSE_FORWARD = 0x10000007
STOP_LISTENING = 0x10000009

OK = 0x80000001
PERMISSION_DENIED = 0x80000002
FAILURE = 0x80000003
EXIT_MESSAGE = 0x80000004
IS_ALIVE = 0x80000005
SESSION_OPENED = 0x80000006
REMOTE_PORT = 0x80000007
TTY_ALLOC_FAIL = 0x80000008

#: Kinds of forwards.
LOCAL, REMOTE, DYNAMIC = 1, 2, 3

#: In place of a port: the host is the path of a unix socket (PORT_STREAMLOCAL in misc.h).
UNIX_PATH = 0xFFFFFFFE

_NO_ESCAPE = 0xFFFFFFFF  # escape characters are for terminals


class ProtocolError(Exception):
    """The other side does not speak this protocol, or not this version."""


@dataclass(frozen=True)
class Hello:
    version: int


@dataclass(frozen=True)
class Ok:
    request_id: int


@dataclass(frozen=True)
class Refused:
    """PERMISSION_DENIED or FAILURE."""

    request_id: int
    denied: bool
    reason: str


@dataclass(frozen=True)
class Alive:
    request_id: int
    pid: int


@dataclass(frozen=True)
class SessionOpened:
    request_id: int
    session_id: int


@dataclass(frozen=True)
class RemotePort:
    """A remote forward is open; the server has chosen its port."""

    request_id: int
    port: int


@dataclass(frozen=True)
class Exited:
    """The remote exit status. It may come before the output, and even before the end of it."""

    session_id: int
    status: int


@dataclass(frozen=True)
class NoTerminal:
    session_id: int


Message = Union[Hello, Ok, Refused, Alive, SessionOpened, RemotePort, Exited, NoTerminal]


def hello() -> bytes:
    return _packet(HELLO, _u32(VERSION))


def new_session(
    request_id: int, command: bytes, *, environment: Sequence[bytes] = (), agent: bool = False
) -> bytes:
    """A session that runs a command; three file descriptors follow the packet, one a message.

    :param command: for the login shell. :param environment: ``NAME=value``; the master drops what
        its SendEnv does not name. :param agent: forward the agent.
    :raises ValueError: the packet would be longer than the master reads.
    """
    body = _u32(request_id) + _string(b"")
    body += _u32(0) + _u32(0) + _u32(1 if agent else 0) + _u32(0)  # tty, X11, agent, subsystem
    body += _u32(_NO_ESCAPE) + _string(b"") + _string(command)
    packet = _packet(NEW_SESSION, body + b"".join(_string(item) for item in environment))
    if len(packet) - 4 > MAX_PACKET:
        raise ValueError(f"the command is longer than {MAX_PACKET} bytes")
    return packet


def alive_check(request_id: int) -> bytes:
    return _packet(ALIVE_CHECK, _u32(request_id))


def terminate(request_id: int) -> bytes:
    """The master ends now, and every session on it."""
    return _packet(TERMINATE, _u32(request_id))


def stop_listening(request_id: int) -> bytes:
    """The master takes no more sessions and ends after the last."""
    return _packet(STOP_LISTENING, _u32(request_id))


def open_forward(
    request_id: int, kind: int, listen: tuple[bytes, int], connect: tuple[bytes, int]
) -> bytes:
    """Answered by OK, or by REMOTE_PORT where the server was to choose the port (0).

    A forward that is there already, listening and leading to the same, is OK as well.

    :param kind: :data:`LOCAL`, :data:`REMOTE` or :data:`DYNAMIC`.
    :param listen: address and port; the empty address is ssh's own default, "*" is every one.
    :param connect: host and port; of a dynamic forward ``(b"socks", 0)``, which nobody reads but
        channels.c wants to be there.
    """
    return _forward(OPEN_FORWARD, request_id, kind, listen, connect)


def close_forward(
    request_id: int, kind: int, listen: tuple[bytes, int], connect: tuple[bytes, int]
) -> bytes:
    """The values as they were for :func:`open_forward`, also where that said port 0."""
    return _forward(CLOSE_FORWARD, request_id, kind, listen, connect)


def _forward(
    packet: int, request_id: int, kind: int, listen: tuple[bytes, int], connect: tuple[bytes, int]
) -> bytes:
    body = _u32(request_id) + _u32(kind)
    for host, port in (listen, connect):
        body += _string(host) + _u32(port)
    return _packet(packet, body)


class Decoder:
    """Collects bytes and gives whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next_message(self) -> Optional[Message]:
        """The next message, None until more bytes come.

        :raises ProtocolError: the bytes are not of this protocol.
        """
        if len(self._buffer) < 4:
            return None
        (length,) = struct.unpack_from(">I", self._buffer)
        if not 4 <= length <= MAX_PACKET:
            raise ProtocolError(f"a packet of {length} bytes")
        if len(self._buffer) < 4 + length:
            return None
        packet = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        return _parse(packet)


def _parse(packet: bytes) -> Message:
    reader = _Reader(packet)
    kind = reader.u32()
    if kind == HELLO:
        return Hello(reader.u32())  # extensions follow; none matters here
    request_id = reader.u32()
    if kind == EXIT_MESSAGE:
        return Exited(request_id, reader.u32())
    if kind == TTY_ALLOC_FAIL:
        return NoTerminal(request_id)
    if kind == SESSION_OPENED:
        return SessionOpened(request_id, reader.u32())
    if kind == REMOTE_PORT:
        return RemotePort(request_id, reader.u32())
    if kind == OK:
        return Ok(request_id)
    if kind in (PERMISSION_DENIED, FAILURE):
        return Refused(request_id, kind == PERMISSION_DENIED, reader.string())
    if kind == IS_ALIVE:
        return Alive(request_id, reader.u32())
    raise ProtocolError(f"an unexpected message 0x{kind:08x}")


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def u32(self) -> int:
        if self._at + 4 > len(self._data):
            raise ProtocolError("a packet that ends too early")
        (value,) = struct.unpack_from(">I", self._data, self._at)
        self._at += 4
        return int(value)

    def string(self) -> str:
        length = self.u32()
        if self._at + length > len(self._data):
            raise ProtocolError("a string that ends too early")
        value = self._data[self._at : self._at + length]
        self._at += length
        return value.decode("utf-8", "replace")


def _u32(value: int) -> bytes:
    return struct.pack(">I", value)


def _string(value: bytes) -> bytes:
    return _u32(len(value)) + value


def _packet(kind: int, body: bytes) -> bytes:
    return struct.pack(">II", len(body) + 4, kind) + body
