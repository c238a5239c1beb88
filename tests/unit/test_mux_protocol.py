from __future__ import annotations

import contextlib
import struct
from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.openssh import mux_protocol as mux
from holdfast.openssh.mux_protocol import (
    Alive,
    Decoder,
    Exited,
    Hello,
    Message,
    NoTerminal,
    Ok,
    ProtocolError,
    Refused,
    RemotePort,
    SessionOpened,
)

U32 = st.integers(0, 2**32 - 1)


def packet(kind: int, body: bytes = b"") -> bytes:
    """A packet of the protocol, made by hand and not by the code under test."""
    return struct.pack(">II", len(body) + 4, kind) + body


def hello(version: int = 4) -> bytes:
    return packet(1, struct.pack(">I", version))


def u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def string(value: bytes) -> bytes:
    return u32(len(value)) + value


def decode(data: bytes) -> list[Message]:
    decoder = Decoder()
    decoder.feed(data)
    found = []
    while (message := decoder.next_message()) is not None:
        found.append(message)
    return found


REPLIES: list[tuple[bytes, Message]] = [
    (hello(), Hello(4)),
    (packet(1, u32(4) + string(b"name") + string(b"value")), Hello(4)),
    (packet(0x80000001, u32(7)), Ok(7)),
    (packet(0x80000002, u32(7) + string(b"no")), Refused(7, True, "no")),
    (packet(0x80000003, u32(7) + string(b"full")), Refused(7, False, "full")),
    (packet(0x80000003, u32(7) + string(b"\xff")), Refused(7, False, "\ufffd")),
    (packet(0x80000004, u32(2, 255)), Exited(2, 255)),
    (packet(0x80000005, u32(7, 4711)), Alive(7, 4711)),
    (packet(0x80000006, u32(7, 2)), SessionOpened(7, 2)),
    (packet(0x80000007, u32(7, 40001)), RemotePort(7, 40001)),
    (packet(0x80000008, u32(2)), NoTerminal(2)),
]


@pytest.mark.parametrize(("data", "message"), REPLIES)
def test_every_reply_is_read(data: bytes, message: Message) -> None:
    assert decode(data) == [message]


def test_bytes_may_come_one_by_one() -> None:
    decoder = Decoder()
    found: list[Optional[Message]] = []
    for byte in b"".join(data for data, _ in REPLIES):
        decoder.feed(bytes([byte]))
        message = decoder.next_message()
        if message is not None:
            found.append(message)
    assert found == [message for _, message in REPLIES]


def test_many_messages_may_come_at_once() -> None:
    assert decode(b"".join(data for data, _ in REPLIES)) == [message for _, message in REPLIES]


def test_requests_are_spelled_as_protocol_mux_has_them() -> None:
    assert mux.hello() == bytes.fromhex("00000008 00000001 00000004")
    assert mux.alive_check(1) == bytes.fromhex("00000008 10000004 00000001")
    assert mux.terminate(2) == bytes.fromhex("00000008 10000005 00000002")
    assert mux.stop_listening(3) == bytes.fromhex("00000008 10000009 00000003")


def test_a_new_session_is_spelled_as_protocol_mux_has_it() -> None:
    body = u32(1) + string(b"") + u32(0, 0, 1, 0) + u32(0xFFFFFFFF)
    body += string(b"") + string(b"true") + string(b"A=1")
    found = mux.new_session(1, b"true", environment=[b"A=1"], agent=True)
    assert found == packet(0x10000002, body)


def test_a_command_that_the_master_would_not_read_is_refused_here() -> None:
    overhead = len(mux.new_session(1, b"")) - 4
    longest = mux.MAX_PACKET - overhead
    assert len(mux.new_session(1, b"x" * longest)) == mux.MAX_PACKET + 4
    with pytest.raises(ValueError, match="longer than"):
        mux.new_session(1, b"x" * (longest + 1))


@pytest.mark.parametrize(
    "data",
    [
        u32(0),
        u32(3),
        u32(mux.MAX_PACKET + 1),
        b"HTTP/1.1 200 OK",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        packet(1),  # a hello without a version
        packet(0x80000001),  # no request id
        packet(0x80000003, u32(1, 50) + b"short"),
        packet(0x80000005, u32(1)),
        packet(0x80000004, u32(1)),
        packet(0x80000007, u32(1)),
        packet(0x7FFFFFFF, u32(1)),
        packet(0x10000004, u32(1)),  # a request is no reply
    ],
)
def test_what_is_not_of_the_protocol_is_an_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_any_bytes_give_messages_or_a_protocol_error(chunks: list[bytes]) -> None:
    decoder = Decoder()
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            while decoder.next_message() is not None:
                pass
    except ProtocolError:
        pass


@given(st.sampled_from(REPLIES), st.data())
def test_a_reply_that_is_cut_or_changed_gives_a_message_or_a_protocol_error(
    reply: tuple[bytes, Message], data: st.DataObject
) -> None:
    raw = bytearray(reply[0])
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decode(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


@given(U32, U32)
def test_replies_make_the_round_trip(request_id: int, value: int) -> None:
    raw = packet(0x80000005, u32(request_id, value)) + packet(0x80000006, u32(request_id, value))
    assert decode(raw) == [Alive(request_id, value), SessionOpened(request_id, value)]


def test_forwards_are_spelled_as_protocol_mux_has_them() -> None:
    local = mux.open_forward(3, mux.LOCAL, (b"127.0.0.1", 8888), (b"node17", 80))
    body = u32(3, 1) + string(b"127.0.0.1") + u32(8888) + string(b"node17") + u32(80)
    assert local == packet(0x10000006, body)
    remote = mux.close_forward(4, mux.REMOTE, (b"", 0), (b"/run/s", mux.UNIX_PATH))
    body = u32(4, 2) + string(b"") + u32(0) + string(b"/run/s") + u32(0xFFFFFFFE)
    assert remote == packet(0x10000007, body)
    assert mux.DYNAMIC == 3


@given(U32, st.sampled_from([1, 2, 3]), st.binary(max_size=300), U32, st.binary(max_size=300), U32)
def test_any_forward_is_one_packet_that_is_closed_as_it_was_opened(
    request_id: int, kind: int, here: bytes, port: int, there: bytes, target: int
) -> None:
    opened = mux.open_forward(request_id, kind, (here, port), (there, target))
    closed = mux.close_forward(request_id, kind, (here, port), (there, target))
    assert struct.unpack_from(">II", opened) == (len(opened) - 4, 0x10000006)
    assert struct.unpack_from(">II", closed) == (len(closed) - 4, 0x10000007)
    assert (
        opened[8:]
        == closed[8:]
        == (u32(request_id, kind) + string(here) + u32(port) + string(there) + u32(target))
    )
