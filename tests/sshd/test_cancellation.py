"""A timeout, a signal or ^C ends the remote process, too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.testing import LocalSshd

STUBBORN = "trap '' TERM INT HUP PIPE; "
# Ignores its stdin, writes nothing, has a child, and tells its numbers to a file.
BUSY = 'echo $$ > "{file}"; sleep 300 & echo $! >> "{file}"; wait; wait; sleep 300'


def await_true(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Gone, or a zombie that nobody has reaped yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def await_gone(pid: int, seconds: float) -> None:
    await_true(lambda: is_gone(pid), seconds)


def pids(file: Path) -> list[int]:
    await_true(lambda: file.exists() and len(file.read_text().split()) == 2)
    return [int(word) for word in file.read_text().split()]


@pytest.mark.parametrize("stubborn", ["", STUBBORN])
def test_a_timeout_ends_the_process_group(
    conn: holdfast.Connection, tmp_path: Path, stubborn: str
) -> None:
    file = tmp_path / "pids"
    begin = time.monotonic()
    with pytest.raises(holdfast.CommandTimeout, match="the remote process was ended") as caught:
        conn.run(stubborn + BUSY.format(file=file), timeout=0.5)
    assert time.monotonic() - begin < 1.5
    assert caught.value.remote_ended is True
    for pid in pids(file):
        await_gone(pid, 2)


def test_what_a_finished_command_left_in_the_background_ends_with_a_timeout(
    conn: holdfast.Connection, tmp_path: Path
) -> None:
    with pytest.raises(holdfast.CommandTimeout) as caught:
        conn.run(f"sleep 300 & echo $! > '{tmp_path}/pid'", timeout=0.5)
    assert caught.value.remote_ended is True
    await_gone(int((tmp_path / "pid").read_text()), 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_signal_reaches_the_remote_process(conn: holdfast.Connection, number: int) -> None:
    with conn.popen(["sleep", "300"]) as process:
        process.send_signal(number)
        assert process.wait(5) == -number
        assert process.signal == signal.Signals(number).name[3:]


def test_a_signal_that_is_handled_is_an_exit(conn: holdfast.Connection) -> None:
    with conn.popen(
        "trap 'echo got it; exit 7' USR1; echo ready; while :; do sleep 0.05; done"
    ) as p:
        assert p.stdout is not None
        assert p.stdout.readline() == b"ready\n"
        p.send_signal(signal.SIGUSR1)
        assert p.stdout.readline() == b"got it\n"
        assert p.wait(5) == 7
        assert p.signal is None
        p.kill()  # nothing: it has ended
        assert p.returncode == 7


def test_kill_and_terminate_are_the_signals_of_subprocess(conn: holdfast.Connection) -> None:
    with conn.popen(["sleep", "300"]) as process:
        process.terminate()
        assert process.wait(5) == -signal.SIGTERM
    with conn.popen(STUBBORN + "while :; do sleep 1; done") as process:
        process.kill()
        assert process.wait(5) == -signal.SIGKILL


def test_an_error_in_a_with_block_ends_the_process(
    conn: holdfast.Connection, tmp_path: Path
) -> None:
    file = tmp_path / "pids"
    with pytest.raises(KeyError), conn.popen(BUSY.format(file=file)):
        found = pids(file)
        raise KeyError
    for pid in found:
        await_gone(pid, 2)


@pytest.mark.parametrize("sessions", [1, 2])
def test_the_session_limit_does_not_save_a_process(
    local_sshd_factory: Any, tmp_path: Path, sessions: int
) -> None:
    server = local_sshd_factory(sshd_config=[f"MaxSessions {sessions}"])
    conn = holdfast.connect(server.host, config_file=server.config_file)
    conn.run("true")
    others = [conn.popen("cat") for _ in range(sessions - 1)]
    file = tmp_path / "pids"
    begin = time.monotonic()
    with pytest.raises(holdfast.CommandTimeout):
        conn.run(BUSY.format(file=file), timeout=0.5)
    assert time.monotonic() - begin < 1.6
    for pid in pids(file):
        await_gone(pid, 3)
    for other in others:
        with other:
            assert other.stdin is not None
            other.stdin.close()
            assert other.wait(5) == 0
    await_true(lambda: server.logins() == conn.stats().logins)  # the extra one is counted


def test_control_c_ends_the_remote_process(
    conn: holdfast.Connection, local_sshd: LocalSshd, tmp_path: Path
) -> None:
    file = tmp_path / "pids"
    script = (
        "import sys, holdfast;"
        "holdfast.connect(sys.argv[1], config_file=sys.argv[2]).run(sys.argv[3])"
    )
    argv = [sys.executable, "-c", script, local_sshd.host, local_sshd.config_file]
    process = subprocess.Popen([*argv, BUSY.format(file=file)], stderr=subprocess.PIPE)
    found = pids(file)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=5)
    assert process.returncode == -signal.SIGINT
    assert b"KeyboardInterrupt" in stderr
    for pid in found:
        await_gone(pid, 2)


def test_an_exception_sent_to_the_thread_ends_the_remote_process(
    conn: holdfast.Connection, tmp_path: Path
) -> None:
    import ctypes

    file = tmp_path / "pids"
    seen: list[type[BaseException]] = []

    class Cancelled(BaseException):
        pass

    def work() -> None:
        try:
            conn.run(BUSY.format(file=file))
        except BaseException as error:
            seen.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    found = pids(file)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Cancelled)
    )
    thread.join(3)
    assert seen == [Cancelled]
    for pid in found:
        await_gone(pid, 2)


def test_a_frozen_server_cannot_hold_the_caller(
    conn: holdfast.Connection, local_sshd: LocalSshd, tmp_path: Path
) -> None:
    conn.run("true")
    process = conn.popen(BUSY.format(file=tmp_path / "pids"))
    found = pids(tmp_path / "pids")
    local_sshd.pause()
    try:
        begin = time.monotonic()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        assert process.end(0.9) is None
        with pytest.raises(holdfast.CommandTimeout) as caught:
            conn.run("true", timeout=0.5)
        assert caught.value.remote_ended is None
        assert time.monotonic() - begin < 3
    finally:
        local_sshd.resume()
    # The signal was on its way all the time.
    for pid in found:
        await_gone(pid, 5)
    assert conn.run("echo fine").stdout == "fine\n"


def test_the_line_that_names_the_process_reaches_nobody(
    conn: holdfast.Connection, tmp_path: Path
) -> None:
    assert conn.run("echo a; echo b >&2").stderr == "b\n"
    both = conn.popen("echo a; echo b >&2", stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    assert both.communicate() == (b"a\nb\n", b"")
    with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
        with conn.popen(
            "echo a; echo b >&2", stdin=subprocess.DEVNULL, stdout=out, stderr=err
        ) as p:
            assert p.wait(5) == 0
        with conn.popen(
            "echo c; echo d >&2", stdin=None, stdout=out, stderr=subprocess.STDOUT
        ) as p:
            assert p.wait(5) == 0
    await_true(lambda: (tmp_path / "out").read_text() == "a\nc\nd\n")
    assert (tmp_path / "err").read_text() == "b\n"


@pytest.mark.parametrize("where", ["stdout", "stderr"])
def test_streams_without_a_reader_do_not_hold_a_command(
    conn: holdfast.Connection, where: str
) -> None:
    script = f"head -c 5000000 /dev/zero > /dev/{where}; exit 3"
    nothing = subprocess.DEVNULL
    with conn.popen(script, stdin=nothing, stdout=nothing, stderr=nothing) as process:
        assert process.wait(20) == 3


def test_without_tracking_a_command_is_sent_as_it_is(local_sshd: LocalSshd, tmp_path: Path) -> None:
    settings = holdfast.Settings.load(track_processes=False)
    conn = holdfast.connect(local_sshd.host, config_file=local_sshd.config_file, settings=settings)
    assert conn.run("echo $SSH_ORIGINAL_COMMAND; echo x >&2").stderr == "x\n"
    with pytest.raises(holdfast.CommandTimeout, match="unknown") as caught:
        conn.run(f"echo $$ > '{tmp_path}/pid'; exec sleep 300", timeout=0.3)
    assert caught.value.remote_ended is None
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_plain_mode_ends_processes_too(
    local_sshd: LocalSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.openssh.control_path.can_hold_sockets", lambda directory: False)
    conn = holdfast.connect(local_sshd.host, config_file=local_sshd.config_file)
    file = tmp_path / "pids"
    with pytest.raises(holdfast.CommandTimeout):
        conn.run(BUSY.format(file=file), timeout=2)
    for pid in pids(file):
        await_gone(pid, 3)


@pytest.mark.parametrize("round_", range(15))
def test_a_timeout_at_any_moment_leaves_nothing(
    conn: holdfast.Connection, local_sshd: LocalSshd, round_: int
) -> None:
    """From before the session is there until long after."""
    try:
        conn.run("sleep 300", timeout=0.002 * round_)
    except holdfast.CommandTimeout as error:
        if error.remote_ended is True:
            await_true(lambda: local_sshd.commands() == [], 2)
    assert conn.run("echo fine").stdout == "fine\n"
