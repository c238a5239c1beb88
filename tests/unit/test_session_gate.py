from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast import session_gate
from holdfast.session_gate import SessionGate


def _until(condition: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.002)


def _full(places: int) -> SessionGate:
    """A gate that has learned that there are so many places, all taken."""
    gate = SessionGate()
    for _ in range(places + 1):
        assert gate.enter(0)
    gate.leave(refused=True)
    return gate


def test_without_a_refusal_there_is_no_limit() -> None:
    gate = SessionGate()
    assert all(gate.enter(0) for _ in range(100))
    assert (gate.open, gate.waiting) == (100, 0)


@pytest.mark.parametrize("places", [1, 2, 10])
def test_a_refusal_teaches_how_many_there_are(places: int) -> None:
    gate = _full(places)
    assert gate.open == places
    assert not gate.enter(0.02)
    gate.leave()
    assert gate.enter(0)
    assert not gate.enter(0.02)


def test_one_place_is_always_tried() -> None:
    gate = SessionGate()
    gate.enter(0)
    gate.leave(refused=True)  # others hold all sessions
    assert gate.enter(0)


def test_first_come_first_served() -> None:
    gate = _full(1)
    order: list[int] = []

    def work(number: int) -> None:
        assert gate.enter(10)
        order.append(number)
        gate.leave()

    threads = []
    for number in range(8):
        threads.append(threading.Thread(target=work, args=(number,)))
        threads[-1].start()
        _until(lambda number=number: gate.waiting == number + 1)
    gate.leave()
    for thread in threads:
        thread.join(10)
    assert order == list(range(8))
    assert (gate.open, gate.waiting) == (0, 0)


def test_who_gives_up_does_not_hold_up_the_others() -> None:
    gate = _full(1)
    done: list[bool] = []
    impatient = threading.Thread(target=lambda: done.append(gate.enter(0.1)))
    impatient.start()
    _until(lambda: gate.waiting == 1)
    patient = threading.Thread(target=lambda: done.append(gate.enter(10)))
    patient.start()
    impatient.join()
    assert done == [False]
    gate.leave()
    patient.join(5)
    assert done == [False, True]


def test_a_place_that_frees_is_taken_at_once() -> None:
    gate = _full(1)
    thread = threading.Thread(target=gate.enter, args=(10,))
    thread.start()
    _until(lambda: gate.waiting == 1)
    begin = time.monotonic()
    gate.leave()
    thread.join()
    assert time.monotonic() - begin < 0.5


def test_what_was_learned_is_forgotten_also_for_those_who_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_gate, "_MEMORY", 0.2)
    gate = _full(1)  # and our one session goes on for hours
    begin = time.monotonic()
    assert gate.enter(10)
    assert 0.1 < time.monotonic() - begin < 2


def test_a_pause_ends_with_a_session() -> None:
    gate = SessionGate()
    gate.enter(0)
    timer = threading.Timer(0.1, gate.leave)
    timer.start()
    begin = time.monotonic()
    gate.pause(10)
    assert time.monotonic() - begin < 2
    timer.join()
    begin = time.monotonic()
    gate.pause(0.1)  # nobody there: a plain sleep
    assert time.monotonic() - begin >= 0.09


@given(places=st.integers(1, 4), workers=st.integers(1, 8), commands=st.integers(1, 5))
@settings(max_examples=15)
def test_a_crowd_at_a_server_with_few_sessions_is_all_served(
    places: int, workers: int, commands: int
) -> None:
    gate = SessionGate()
    server = threading.BoundedSemaphore(places)
    served: list[int] = []

    def work(number: int) -> None:
        for _ in range(commands):
            while True:
                assert gate.enter(20)
                if server.acquire(blocking=False):
                    break
                gate.leave(refused=True)
                gate.pause(0.001)
            time.sleep(0.0005)
            server.release()
            gate.leave()
            served.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(served) == workers * commands
    assert (gate.open, gate.waiting) == (0, 0)
