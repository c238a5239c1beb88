from __future__ import annotations

import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from holdfast.openssh import forwarding, mux_client, mux_protocol
from holdfast.openssh.mux_client import (
    Forwarder,
    ForwardNotOpened,
    MuxError,
    Probe,
    State,
)
from holdfast.openssh.mux_session import Session, SessionNotOpened

Start = Callable[..., Any]


def packet(kind: int, body: bytes = b"") -> bytes:
    """A packet of the protocol, made by hand and not by the code under test."""
    return struct.pack(">II", len(body) + 4, kind) + body


def hello(version: int = 4) -> bytes:
    return packet(1, struct.pack(">I", version))


def alive(pid: int) -> bytes:
    return packet(0x80000005, struct.pack(">II", 1, pid))


def u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)


def refusal(reason: bytes, denied: bool = False) -> bytes:
    kind = 0x80000002 if denied else 0x80000003
    return packet(kind, u32(1, len(reason)) + reason)


def test_a_master_that_answers_is_alive_and_tells_its_pid(fake_master: Start) -> None:
    master = fake_master(hello() + alive(4711))
    assert mux_client.probe(str(master.path), 5) == Probe(State.ALIVE, 4711)
    assert master.received == hello() + packet(0x10000004, u32(1))


def test_no_file_is_no_master(short_path: Path) -> None:
    assert mux_client.probe(str(short_path / "none"), 1).state is State.ABSENT
    assert mux_client.probe(str(short_path / "no" / "directory"), 1).state is State.ABSENT


def test_a_file_that_nobody_listens_on_is_dead(fake_master: Start) -> None:
    master = fake_master(None)
    master.stop()
    assert mux_client.probe(str(master.path), 1).state is State.DEAD


@pytest.mark.parametrize(
    "answer",
    [None, b"", hello(), hello() + alive(1)[:-1]],
    ids=["never accepts", "silent", "hello only", "half an answer"],
)
def test_a_master_that_does_not_answer_is_stuck_after_the_timeout(
    fake_master: Start, answer: Optional[bytes]
) -> None:
    master = fake_master(answer)
    begin = time.monotonic()
    assert mux_client.probe(str(master.path), 0.3).state is State.STUCK
    assert 0.25 < time.monotonic() - begin < 2


def test_a_master_that_drips_does_not_stretch_the_timeout(short_path: Path) -> None:
    path = short_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def drip() -> None:
            client, _ = listener.accept()
            with client:
                for byte in hello() + alive(1):
                    try:
                        client.send(bytes([byte]))
                    except OSError:
                        return
                    time.sleep(0.1)

        thread = threading.Thread(target=drip)
        thread.start()
        begin = time.monotonic()
        assert mux_client.probe(str(path), 0.4).state is State.STUCK
        assert time.monotonic() - begin < 1.5
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        hello(3) + alive(1),
        alive(1),  # no hello
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\0",
        hello() + packet(0x80000001, u32(1)),
        hello() + refusal(b"no", denied=True),
    ],
    ids=["version 3", "no hello", "ssh", "empty packet", "wrong reply", "denied"],
)
def test_another_protocol_is_foreign(fake_master: Start, answer: bytes) -> None:
    assert mux_client.probe(str(fake_master(answer).path), 2).state is State.FOREIGN


def test_a_master_that_closes_at_once_is_not_called_dead_while_its_file_stands(
    fake_master: Start,
) -> None:
    master = fake_master(None, close=True)
    assert mux_client.probe(str(master.path), 1).state is State.STUCK


def test_a_path_that_no_socket_can_have_is_foreign(short_path: Path) -> None:
    assert mux_client.probe(str(short_path / ("x" * 200)), 1).state is State.FOREIGN
    (short_path / "file").write_text("")
    assert mux_client.probe(str(short_path / "file" / "x"), 1).state is State.FOREIGN


def test_a_regular_file_is_not_alive(short_path: Path) -> None:
    (short_path / "file").write_text("")
    assert mux_client.probe(str(short_path / "file"), 1).state in (State.DEAD, State.FOREIGN)


def test_a_full_backlog_is_waited_for(short_path: Path) -> None:
    path = short_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            sock = socket.socket(socket.AF_UNIX)
            sock.setblocking(False)
            waiting.append(sock)
            try:
                sock.connect(str(path))
            except BlockingIOError:
                break
        begin = time.monotonic()
        assert mux_client.probe(str(path), 0.3).state is State.STUCK
        assert 0.25 < time.monotonic() - begin < 2

        def serve() -> None:
            time.sleep(0.2)
            while True:
                client, _ = listener.accept()
                with client:
                    client.settimeout(1)
                    if client.recv(100):
                        client.sendall(hello() + alive(7))
                        return

        thread = threading.Thread(target=serve)
        for sock in waiting:
            sock.close()
        thread.start()
        assert mux_client.probe(str(path), 5) == Probe(State.ALIVE, 7)
        thread.join()


def test_stop_and_exit_are_asked_and_answered(fake_master: Start) -> None:
    ok = hello() + packet(0x80000001, u32(1))
    for name, ask, kind in (
        ("a", mux_client.stop_listening, 0x10000009),
        ("b", mux_client.terminate, 0x10000005),
    ):
        master = fake_master(ok, name)
        ask(str(master.path), 2)
        assert master.received == hello() + packet(kind, u32(1))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (hello() + refusal(b"ask me not"), "ask me not"),
        (hello() + alive(1), "unexpected answer"),
        (hello(9), "version 9"),
        (b"", "control socket"),
    ],
)
def test_a_master_that_does_not_stop_is_told(fake_master: Start, answer: bytes, words: str) -> None:
    with pytest.raises(MuxError, match=words):
        mux_client.stop_listening(str(fake_master(answer).path), 0.3)


def test_stopping_nobody_is_an_error(short_path: Path) -> None:
    with pytest.raises(MuxError, match="No such file"):
        mux_client.terminate(str(short_path / "none"), 1)


# --- sessions -------------------------------------------------------------------------------

OPENED = packet(0x80000006, u32(1, 2))


class OneSession:
    """A master that takes one session, with its three descriptors, and answers as told."""

    def __init__(self, path: Path, *answers: bytes, pause: float = 0.0) -> None:
        self.path = str(path)
        self.descriptors: list[int] = []
        self._answers = answers
        self._pause = pause
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._listener.accept()
        with client, self._listener:
            client.settimeout(5)
            asked = mux_protocol.hello() + mux_protocol.alive_check(1)
            data = b""
            while len(data) < len(asked):
                data += client.recv(len(asked) - len(data))
            assert data == asked
            client.sendall(hello() + alive(4711))
            while len(self.descriptors) < 3:
                some, fds, _, _ = socket.recv_fds(client, 65536, 3)
                if not some:
                    return
                self.descriptors += fds
            for answer in self._answers:
                client.sendall(answer)
                time.sleep(self._pause)
        for descriptor in self.descriptors:
            os.close(descriptor)

    def __enter__(self) -> OneSession:
        return self

    def __exit__(self, *exc: object) -> None:
        self._thread.join(10)


def _open(path: str, seconds: float = 5.0) -> Session:
    null = os.open(os.devnull, os.O_RDWR)
    try:
        return Session.open(path, b"true", [null, null, null], time.monotonic() + seconds)
    finally:
        os.close(null)


@pytest.mark.parametrize("pause", [0.0, 0.1])
@pytest.mark.parametrize(
    "answers",
    [
        (OPENED, packet(0x80000004, u32(2, 7))),
        (OPENED + packet(0x80000004, u32(2, 7)),),
    ],
    ids=["apart", "at once"],
)
def test_the_exit_status_is_read_however_the_packets_come(
    short_path: Path, answers: tuple[bytes, ...], pause: float
) -> None:
    with OneSession(short_path / "s", *answers, pause=pause) as master:
        session = _open(master.path)
        time.sleep(2 * pause)
        assert session.read(5)
        assert session.status == 7


def test_a_session_that_ends_without_a_status_has_none(short_path: Path) -> None:
    with OneSession(short_path / "s", OPENED) as master:
        session = _open(master.path)
        assert session.read(5)
        assert session.status is None


@pytest.mark.parametrize(
    ("answer", "refused", "started"),
    [
        (refusal(b"Session open refused by peer"), True, False),
        (refusal(b"no", denied=True), True, False),
        (b"", False, None),  # closed after everything was sent: it may run
        (alive(1), False, None),
    ],
)
def test_what_is_known_of_a_session_that_was_not_opened(
    short_path: Path, answer: bytes, refused: bool, started: Optional[bool]
) -> None:
    with OneSession(short_path / "s", answer) as master:
        with pytest.raises(SessionNotOpened) as caught:
            _open(master.path)
        assert (caught.value.refused, caught.value.started) == (refused, started)


def test_a_session_without_a_master_has_not_started(fake_master: Start, short_path: Path) -> None:
    master = fake_master(None)
    master.stop()
    for path in (master.path, short_path / "none"):
        with pytest.raises(SessionNotOpened) as caught:
            _open(str(path))
        assert caught.value.started is False


@pytest.mark.parametrize("answer", [None, hello(3) + alive(1), alive(1), hello() + OPENED, b"junk"])
def test_a_master_that_does_not_prove_to_be_one_gets_no_command(
    fake_master: Start, answer: Optional[bytes]
) -> None:
    """It would run the command whenever it wakes up."""
    begin = time.monotonic()
    master = fake_master(answer)
    with pytest.raises(SessionNotOpened) as caught:
        _open(str(master.path), 0.3)
    assert (caught.value.refused, caught.value.started) == (False, False)
    assert b"true" not in master.received
    assert time.monotonic() - begin < 2


# --- forwards -------------------------------------------------------------------------------

LOCAL = forwarding.local(8888, "node17", 80)
OPEN_LOCAL = packet(
    0x10000006, u32(1, 1, 9) + b"127.0.0.1" + u32(8888) + u32(6) + b"node17" + u32(80)
)


@pytest.mark.parametrize(
    ("answer", "port"),
    [(packet(0x80000001, u32(1)), None), (packet(0x80000007, u32(1, 40001)), 40001)],
)
def test_a_forward_is_asked_for_and_held(
    fake_master: Start, answer: bytes, port: Optional[int]
) -> None:
    master = fake_master(hello() + answer)
    forwarder = Forwarder(str(master.path), LOCAL, 2)
    assert forwarder.open(2) == port
    assert master.received == hello() + OPEN_LOCAL
    assert not forwarder.ended()
    master.stop()
    assert forwarder.ended(2)
    with pytest.raises(ForwardNotOpened) as caught:
        forwarder.close(2)
    assert not caught.value.refused
    forwarder.let_go()
    assert forwarder.ended()


@pytest.mark.parametrize(
    ("answer", "refused", "words"),
    [
        (hello() + refusal(b"Port forwarding failed"), True, "Port forwarding failed"),
        (hello() + refusal(b"no", denied=True), True, "no"),
        (hello() + alive(1), False, "unexpected answer"),
        (hello(3) + packet(0x80000001, u32(1)), False, "version 3"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", False, "packet"),
    ],
)
def test_a_forward_that_is_not_opened_says_why(
    fake_master: Start, answer: bytes, refused: bool, words: str
) -> None:
    forwarder = Forwarder(str(fake_master(answer).path), LOCAL, 2)
    with pytest.raises(ForwardNotOpened, match=words) as caught:
        forwarder.open(2)
    assert caught.value.refused is refused
    forwarder.let_go()


def test_a_master_that_does_not_answer_for_a_forward_is_not_waited_for(fake_master: Start) -> None:
    forwarder = Forwarder(str(fake_master(hello()).path), LOCAL, 2)
    begin = time.monotonic()
    with pytest.raises(TimeoutError):
        forwarder.open(0.3)
    assert 0.25 < time.monotonic() - begin < 2
    forwarder.let_go()


def test_no_master_holds_no_forward(short_path: Path) -> None:
    with pytest.raises(ForwardNotOpened) as caught:
        Forwarder(str(short_path / "none"), LOCAL, 1)
    assert not caught.value.refused
