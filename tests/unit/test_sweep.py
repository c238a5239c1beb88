from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from holdfast.openssh import control_path, processes, sweep
from holdfast.openssh.mux_client import State
from holdfast.openssh.records import Record, Records
from holdfast.openssh.sweep import Swept, sweep_socket

Start = Callable[..., Any]
Stuck = Callable[[Path], "subprocess.Popen[bytes]"]
NAME = control_path.socket_name("0123456789ab", "main")
PATIENCE = 0.3  # seconds, instead of the 30 of the default


def _record(path: Path, pid: int) -> Record:
    return Record("cluster1", str(path), pid, "main", "0123456789ab", 1.0, "/usr/bin/ssh")


def _answer(pid: int) -> bytes:
    """Hello, and the answer to an alive check."""
    number = pid.to_bytes(4, "big")
    return bytes.fromhex("00000008 00000001 00000004 0000000c 80000005 00000001") + number


# --- one socket -----------------------------------------------------------------------------


def test_no_socket_is_nothing_to_do(short_path: Path) -> None:
    path = str(short_path / "s")
    found = sweep_socket(path, pid=None, local=True, stale_timeout=PATIENCE)
    assert found == Swept(path, State.ABSENT)


def test_a_live_master_is_left_alone(fake_master: Start) -> None:
    master = fake_master(_answer(4711))
    found = sweep_socket(str(master.path), pid=1, local=True, stale_timeout=PATIENCE)
    assert found == Swept(str(master.path), State.ALIVE, pid=4711)
    assert master.path.exists()


def test_a_dead_socket_is_removed_at_once(fake_master: Start) -> None:
    master = fake_master(None)
    master.stop()
    begin = time.monotonic()
    found = sweep_socket(str(master.path), pid=None, local=True, stale_timeout=30)
    assert found == Swept(str(master.path), State.ABSENT, removed=True)
    assert not master.path.exists()
    assert time.monotonic() - begin < 0.5


def test_a_dead_socket_that_another_machine_may_have_bound_is_left(fake_master: Start) -> None:
    master = fake_master(None)
    master.stop()
    found = sweep_socket(str(master.path), pid=None, local=False, stale_timeout=PATIENCE)
    assert found == Swept(str(master.path), State.DEAD)
    assert master.path.exists()


def test_our_master_that_stays_silent_is_ended_after_the_patience(
    short_path: Path, stuck_ssh: Stuck
) -> None:
    path = short_path / "s"
    process = stuck_ssh(path)
    begin = time.monotonic()
    found = sweep_socket(str(path), pid=process.pid, local=True, stale_timeout=PATIENCE)
    assert time.monotonic() - begin >= PATIENCE
    assert found == Swept(str(path), State.ABSENT, removed=True, ended=process.pid)
    assert process.wait(5) < 0
    assert not path.exists()


def test_a_silent_master_whose_pid_is_somebody_elses_now_is_left(
    short_path: Path, stuck_ssh: Stuck
) -> None:
    path = short_path / "s"
    process = stuck_ssh(path)
    with subprocess.Popen(["sleep", "60"]) as stranger:
        for pid in (stranger.pid, os.getpid(), 2**22 + 1):
            found = sweep_socket(str(path), pid=pid, local=True, stale_timeout=PATIENCE)
            assert found == Swept(str(path), State.STUCK)
        assert stranger.poll() is None
        stranger.kill()
    assert process.poll() is None
    assert path.exists()


def test_a_silent_master_that_we_did_not_start_is_left(short_path: Path, stuck_ssh: Stuck) -> None:
    path = short_path / "s"
    process = stuck_ssh(path)
    found = sweep_socket(str(path), pid=None, local=True, stale_timeout=PATIENCE)
    assert found == Swept(str(path), State.STUCK)
    assert process.poll() is None
    assert path.exists()


def test_patience_ends_with_the_callers_own(short_path: Path, stuck_ssh: Stuck) -> None:
    path = short_path / "s"
    process = stuck_ssh(path)
    begin = time.monotonic()
    found = sweep_socket(
        str(path), pid=process.pid, local=True, stale_timeout=30, deadline=begin + 0.3
    )
    assert (found.state, found.removed) == (State.STUCK, False)
    assert time.monotonic() - begin < 3
    assert process.poll() is None


def test_a_master_that_wakes_up_in_time_is_left(short_path: Path) -> None:
    path = short_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        clients = []

        def wake() -> None:
            time.sleep(0.4)
            listener.settimeout(1)
            try:
                while True:
                    client, _ = listener.accept()
                    clients.append(client)
                    client.settimeout(1)
                    try:
                        client.recv(100)
                        client.sendall(_answer(7))
                    except OSError:
                        pass
            except OSError:
                return

        thread = threading.Thread(target=wake)
        thread.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sweep, "PROBE_TIMEOUT", 0.2)
            found = sweep_socket(str(path), pid=os.getpid(), local=True, stale_timeout=5)
        thread.join()
        for client in clients:
            client.close()
    assert (found.state, found.pid) == (State.ALIVE, 7)


@pytest.mark.parametrize("kind", ["file", "directory", "link to a file"])
def test_what_is_no_socket_is_left(short_path: Path, kind: str) -> None:
    path = short_path / "s"
    if kind == "file":
        path.write_text("mine")
    elif kind == "directory":
        path.mkdir()
    else:
        (short_path / "target").write_text("mine")
        path.symlink_to(short_path / "target")
    found = sweep_socket(str(path), pid=os.getpid(), local=True, stale_timeout=PATIENCE)
    assert (found.removed, found.ended) == (False, None)
    assert found.state is not State.ABSENT
    assert path.exists()


def test_a_link_to_a_dead_socket_is_left(fake_master: Start, short_path: Path) -> None:
    master = fake_master(None)
    master.stop()
    link = short_path / "link"
    link.symlink_to(master.path)
    assert not sweep_socket(str(link), pid=None, local=True, stale_timeout=PATIENCE).removed
    assert link.is_symlink()
    assert master.path.exists()


def test_another_protocol_is_left(fake_master: Start) -> None:
    master = fake_master(b"SSH-2.0-OpenSSH_9.2\r\n")
    found = sweep_socket(str(master.path), pid=os.getpid(), local=True, stale_timeout=PATIENCE)
    assert found == Swept(str(master.path), State.FOREIGN)
    assert master.path.exists()


# --- the runtime directory ------------------------------------------------------------------


def _sweep(runtime: Path) -> dict[str, Swept]:
    return dict(sweep.sweep(runtime, stale_timeout=PATIENCE, lock_timeout=0.2))


def test_a_clean_directory_has_nothing_to_sweep(short_path: Path) -> None:
    assert _sweep(short_path) == {}
    assert list(short_path.iterdir()) == []


def test_a_dead_master_is_removed_with_all_that_is_kept_of_it(
    fake_master: Start, short_path: Path
) -> None:
    fake_master(None, NAME).stop()
    Records(short_path).write(NAME, _record(short_path / NAME, 2**22 + 1))
    (short_path / f"{NAME}.log").write_text("x")
    assert _sweep(short_path)[NAME].removed
    assert list(short_path.iterdir()) == []


def test_a_live_master_keeps_all_that_is_kept_of_it(fake_master: Start, short_path: Path) -> None:
    fake_master(_answer(4711), NAME)
    Records(short_path).write(NAME, _record(short_path / NAME, 4711))
    assert _sweep(short_path) == {}
    assert Records(short_path).read(NAME) is not None


def test_masters_of_another_machine_are_left(
    fake_master: Start, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_master(None, NAME).stop()
    Records(short_path).write(NAME, _record(short_path / NAME, 1))
    monkeypatch.setattr(socket, "gethostname", lambda: "another-login-node")
    assert _sweep(short_path) == {}
    assert (short_path / NAME).exists()
    assert (short_path / f"{NAME}.json").exists()


def test_a_name_that_another_process_works_on_is_left_to_it(
    fake_master: Start, short_path: Path
) -> None:
    from holdfast.openssh.file_lock import FileLock

    fake_master(None, NAME).stop()
    with FileLock(short_path / f"{NAME}.lock", 1):
        assert _sweep(short_path) == {}
    assert (short_path / NAME).exists()
    assert _sweep(short_path)[NAME].removed


def test_what_is_not_ours_is_left(short_path: Path) -> None:
    for name in ("logins.jsonl", "logins.lock", "notes.txt", "README.json", "other.m0.log"):
        (short_path / name).write_text("x")
    _sweep(short_path)
    assert len(list(short_path.iterdir())) == 5


def test_logs_of_clients_go_with_their_processes(short_path: Path) -> None:
    tag = control_path.host_tag()
    gone = short_path / f"client-{tag}-{2**22 + 1}-3.log"
    here = short_path / f"client-{tag}-{os.getpid()}-3.log"
    elsewhere = short_path / f"client-0000-{2**22 + 1}-3.log"
    for path in (gone, here, elsewhere):
        path.write_text("x")
    _sweep(short_path)
    assert [path.exists() for path in (gone, here, elsewhere)] == [False, True, True]


def test_half_written_files_go_when_they_are_old(short_path: Path) -> None:
    for name in (f"{NAME}.json.0123456789ab", ".tabc", ".uabc"):
        (short_path / name).write_text("x")
    _sweep(short_path)
    assert len(list(short_path.iterdir())) == 3
    for path in short_path.iterdir():
        os.utime(path, (1, 1))
    _sweep(short_path)
    assert list(short_path.iterdir()) == []


def test_sweeps_at_once_do_not_disturb_each_other(fake_master: Start, short_path: Path) -> None:
    errors: list[BaseException] = []
    for number in range(30):
        fake_master(None, control_path.socket_name(f"{number:012d}", "main")).stop()

    def work() -> None:
        try:
            for _ in range(3):
                _sweep(short_path)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert list(short_path.iterdir()) == []


# --- records --------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(short_path: Path) -> None:
    records = Records(short_path)
    record = _record(short_path / NAME, 4711)
    assert records.read(NAME) is None
    records.write(NAME, record)
    assert records.read(NAME) == record
    assert sorted(path.name for path in short_path.iterdir()) == [f"{NAME}.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "{}", '"x"', '{"pid": 1}', '{"unknown": 1}', "\ufffd", "\0"]
)
def test_a_torn_record_is_none(short_path: Path, text: str) -> None:
    (short_path / f"{NAME}.json").write_text(text)
    assert Records(short_path).read(NAME) is None


def test_a_record_that_is_no_text_is_none(short_path: Path) -> None:
    (short_path / f"{NAME}.json").write_bytes(b"\xff\xfe")
    assert Records(short_path).read(NAME) is None


def test_threads_that_write_and_read_see_whole_records(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    records = Records(short_path)
    record = _record(short_path / NAME, 4711)
    records.write(NAME, record)

    def work() -> None:
        for _ in range(100):
            records.write(NAME, record)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert records.read(NAME) == record
    assert caplog.text == ""
    assert len(list(short_path.iterdir())) == 1


def test_a_directory_that_has_vanished_costs_a_warning(
    short_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Records(short_path / "gone").write(NAME, _record(short_path, 1))
    assert "cannot be written" in caplog.text


def test_a_session_is_remembered_of_this_very_master(short_path: Path) -> None:
    records = Records(short_path)
    assert not records.has_given_sessions(NAME, 4711)
    records.note_session(NAME, 4711)
    assert records.has_given_sessions(NAME, 4711)
    assert not records.has_given_sessions(NAME, 4712)


def test_names_are_those_that_have_left_a_trace(fake_master: Start, short_path: Path) -> None:
    names = [control_path.socket_name(letter * 12, "main") for letter in "abcd"]
    Records(short_path).write(names[0], _record(short_path, 1))
    (short_path / f"{names[1]}.lock").write_text("")
    fake_master(None, names[2]).stop()
    (short_path / names[3]).write_text("a file of that name")
    assert Records(short_path).names() == names[:3]


# --- processes ------------------------------------------------------------------------------


def test_a_master_is_known_by_its_path(short_path: Path, stuck_ssh: Stuck) -> None:
    process = stuck_ssh(short_path / "s")
    assert processes.is_master(process.pid, str(short_path / "s"))
    assert not processes.is_master(process.pid, "/another/path")
    assert not processes.is_master(2**22 + 1, str(short_path / "s"))


def test_a_zombie_is_no_process() -> None:
    process = subprocess.Popen(["true"])
    deadline = time.monotonic() + 5
    while processes.arguments(process.pid) is not None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert processes.arguments(process.pid) is None
    process.wait()


def test_a_stopped_process_is_ended_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import signal

    monkeypatch.setattr(processes, "_PATIENCE", 0.3)
    process = subprocess.Popen(["sleep", "60"])
    process.send_signal(signal.SIGSTOP)
    assert processes.end(process.pid)
    assert process.wait(5) in (-signal.SIGKILL, -signal.SIGTERM)
    assert processes.end(process.pid)


def test_a_program_that_takes_too_long_ends_with_its_children() -> None:
    begin = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        processes.run(["sh", "-c", "sleep 60 & sleep 60"], 0.2)
    assert time.monotonic() - begin < 10
