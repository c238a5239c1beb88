"""The life of control masters under races, kills and other people's processes."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.openssh import control_path, processes
from holdfast.openssh.mux_client import State, probe
from holdfast.openssh.records import Records
from holdfast.openssh.sweep import Swept, sweep
from holdfast.testing import LocalSshd

ROUNDS = int(os.environ.get("HOLDFAST_TEST_ROUNDS", "20"))

SEVERAL_AT_ONCE = """
import sys, threading, holdfast
host, config_file, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.stdin.readline()  # all start at the same moment
statuses = []
def work():
    statuses.append(holdfast.connect(host, config_file=config_file).run("exit 7").returncode)
crowd = [threading.Thread(target=work) for _ in range(threads)]
for thread in crowd: thread.start()
for thread in crowd: thread.join()
assert statuses == [7] * threads, statuses
print("ok", holdfast.connections()[0].stats().logins)
"""


def connect(server: LocalSshd, **more: Any) -> holdfast.Connection:
    return holdfast.connect(server.host, config_file=server.config_file, **more)


def master_pid(conn: holdfast.Connection) -> int:
    found = conn._link.control_master().find()
    assert found is not None
    return found.pid


def await_true(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """For what gives no event: another process's end."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


@pytest.fixture
def clean(local_sshd: LocalSshd) -> Iterator[LocalSshd]:
    """The server, and a look at the end that only a master is left of all clients."""
    yield local_sshd
    await_true(lambda: len(local_sshd.clients()) <= 1)


def test_eight_processes_with_four_threads_log_in_once(clean: LocalSshd) -> None:
    crowd = [
        subprocess.Popen(
            [sys.executable, "-c", SEVERAL_AT_ONCE, clean.host, clean.config_file, "4"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for process in crowd:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = [process.communicate(timeout=120) for process in crowd]
    assert results == [("ok 1\n", "")] * 8
    assert clean.logins() == 1
    await_true(lambda: len(clean.clients()) == 1)  # the master, and nothing else


def test_a_master_killed_before_a_command_costs_one_login(clean: LocalSshd) -> None:
    conn = connect(clean)
    for number in range(1, 6):
        assert clean.logins() == conn.stats().logins == number
        os.kill(master_pid(conn), signal.SIGKILL)
        assert conn.run("exit 3").returncode == 3
    assert clean.logins() == conn.stats().logins == 6


def test_a_master_killed_under_a_command_is_a_lost_connection(clean: LocalSshd) -> None:
    conn = connect(clean)
    for number in range(1, 6):
        begun = clean.home / f"begun {number}"

        def kill_when_begun(begun: Path = begun) -> None:
            await_true(begun.exists)
            os.kill(master_pid(conn), signal.SIGKILL)

        killer = threading.Thread(target=kill_when_begun)
        killer.start()
        with pytest.raises(holdfast.ConnectionLost) as lost:
            conn.run(["sh", "-c", 'touch "$1"; sleep 30', "sh", str(begun)])
        killer.join()
        assert lost.value.started is True
        assert conn.run("true").returncode == 0
        assert clean.logins() == conn.stats().logins == number + 1


def test_a_master_killed_at_any_moment_gives_an_honest_answer(clean: LocalSshd) -> None:
    """done: exactly once; not started: never retried by us into a second run; unknown: at most once."""
    conn = connect(clean)
    ledger = clean.home / "ran"
    random_moment = random.Random(20261121)
    outcomes: dict[str, Any] = {}
    for number in range(ROUNDS):
        pid = master_pid(conn)
        killer = threading.Timer(random_moment.uniform(0, 0.02), os.kill, (pid, signal.SIGKILL))
        killer.start()
        try:
            conn.run(f"echo {number} >> '{ledger}'", check=True)
            outcomes[str(number)] = "done"
        except holdfast.ConnectionLost as error:
            outcomes[str(number)] = error.started
        killer.join()
        assert conn.run("true").returncode == 0
    ran = ledger.read_text().split()
    for word, outcome in outcomes.items():
        allowed = {"done": {1}, False: {0}, True: {0, 1}, None: {0, 1}}[outcome]
        assert ran.count(word) in allowed, (word, outcome)
    assert clean.logins() == conn.stats().logins


def test_a_dropped_link_is_a_lost_connection(clean: LocalSshd) -> None:
    conn = connect(clean)
    with pytest.raises(holdfast.ConnectionLost) as lost, conn.popen("sleep 30"):
        clean.kill_sessions()
    assert lost.value.started is True
    assert conn.run("echo again").stdout == "again\n"
    assert clean.logins() == conn.stats().logins == 2


def test_a_stopped_master_is_ended_after_the_stale_timeout(clean: LocalSshd) -> None:
    conn = connect(clean, settings=holdfast.Settings.load(stale_timeout=1.0))
    pid = master_pid(conn)
    os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    assert conn.run("echo again").stdout == "again\n"
    assert 1.0 <= time.monotonic() - begin < 25  # the default would be 30
    assert not processes.is_master(pid, "ssh")
    assert master_pid(conn) != pid
    assert clean.logins() == conn.stats().logins == 2


def test_a_stopped_master_that_wakes_in_time_is_kept(clean: LocalSshd) -> None:
    conn = connect(clean)
    pid = master_pid(conn)
    os.kill(pid, signal.SIGSTOP)
    waker = threading.Timer(1.0, os.kill, (pid, signal.SIGCONT))
    waker.start()
    assert conn.run("echo again").stdout == "again\n"
    waker.join()
    assert master_pid(conn) == pid
    assert clean.logins() == 1


def test_a_stopped_master_cannot_hold_a_caller_beyond_its_timeout(clean: LocalSshd) -> None:
    conn = connect(clean)
    pid = master_pid(conn)
    os.kill(pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with pytest.raises(holdfast.CommandTimeout) as timeout:
            conn.run("true", timeout=1)
        assert time.monotonic() - begin < 2
        assert timeout.value.remote_ended is True
    finally:
        os.kill(pid, signal.SIGCONT)
    assert conn.run("true").returncode == 0
    assert clean.logins() == 1


def test_a_dead_socket_is_removed_at_once(clean: LocalSshd, runtime_dir: Path) -> None:
    conn = connect(clean)
    path = conn._link.control_master().spec.own_path
    os.kill(master_pid(conn), signal.SIGKILL)
    await_true(lambda: probe(path, 1).state is State.DEAD)
    assert [(name, swept.removed) for name, swept in sweep(runtime_dir, stale_timeout=1)] == [
        (Path(path).name, True)
    ]
    assert not Path(path).exists()
    assert list(sweep(runtime_dir, stale_timeout=1)) == []


def test_the_sweep_leaves_a_live_master_alone(clean: LocalSshd, runtime_dir: Path) -> None:
    conn = connect(clean)
    pid = master_pid(conn)
    assert list(sweep(runtime_dir, stale_timeout=0.1)) == []
    assert master_pid(conn) == pid


def test_the_sweep_ends_a_stuck_master_by_its_pid(clean: LocalSshd, runtime_dir: Path) -> None:
    conn = connect(clean)
    pid, path = master_pid(conn), conn._link.control_master().spec.own_path
    os.kill(pid, signal.SIGSTOP)
    found = dict(sweep(runtime_dir, stale_timeout=0.5))
    assert found == {Path(path).name: Swept(path, State.ABSENT, removed=True, ended=pid)}
    await_true(lambda: clean.clients() == [])


def test_a_stuck_listener_that_is_not_our_master_is_left_alone(
    clean: LocalSshd, runtime_dir: Path
) -> None:
    conn = connect(clean)
    spec = conn._link.control_master().spec
    conn.disconnect(drain=False)
    await_true(lambda: not Path(spec.own_path).exists())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(spec.own_path)
        sock.listen(1)
        # The record still names the master that has ended; this process must not be taken for it.
        found = dict(sweep(runtime_dir, stale_timeout=0.3))
        assert found[spec.name].state is State.STUCK
        assert found[spec.name].ended is None
        assert Path(spec.own_path).exists()


def test_something_else_in_the_way_is_never_removed(clean: LocalSshd) -> None:
    conn = connect(clean)
    path = Path(conn._link.control_master().spec.own_path)
    conn.disconnect(drain=False)
    await_true(lambda: not path.exists())
    path.write_text("precious")
    with pytest.raises(holdfast.ConnectionFailed, match="in the way"):
        conn.run("true")
    assert path.read_text() == "precious"


def test_disconnect_drains(clean: LocalSshd) -> None:
    conn = connect(clean)
    with conn.popen("cat") as process:
        assert conn.disconnect()
        assert not conn.is_alive()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"still here")
        process.stdin.close()
        assert process.stdout.read() == b"still here"
        assert process.wait(10) == 0
    await_true(lambda: clean.clients() == [])


def test_a_master_leaves_after_control_persist(local_sshd: LocalSshd) -> None:
    conn = connect(local_sshd, settings=holdfast.Settings.load(control_persist=1))
    assert conn.run("true").returncode == 0
    await_true(lambda: local_sshd.clients() == [])
    assert not conn.is_alive()


def test_a_refused_login_is_no_silent_second_one(clean: LocalSshd) -> None:
    """The guard: a client of a master that is gone fails; it never logs in by itself."""
    conn = connect(clean)
    link = conn._link
    master = link.control_master().find()
    assert master is not None
    conn.disconnect(drain=False)
    await_true(lambda: not Path(master.control_path).exists())
    from holdfast.openssh import command

    argv = command.run_over_master(
        link.ssh,
        link.destination,
        "touch ran",
        control_path=master.control_path,
        log=None,
        config_file=link.config_file,
    )
    done = subprocess.run(argv, capture_output=True, check=False)
    assert done.returncode == 255
    assert clean.logins() == 1
    assert not (clean.home / "ran").exists()


def with_user_path(factory: Any, path: str, *lines: str) -> LocalSshd:
    server: LocalSshd = factory(ssh_config=[f"ControlPath {path}", *lines])
    return server


def plain_ssh(server: LocalSshd, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["ssh", "-F", server.config_file, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_master_of_the_users_own_is_joined_and_never_ended(
    local_sshd_factory: Any, runtime_dir: Path
) -> None:
    server = with_user_path(local_sshd_factory, f"{runtime_dir}/user-%C")
    theirs = subprocess.run(
        ["ssh", "-F", server.config_file, "-fNM", server.host],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    assert theirs.returncode == 0
    conn = connect(server)
    assert conn.run("echo joined").stdout == "joined\n"
    assert server.logins() == 1
    assert conn.stats().logins == 0  # none of ours
    assert conn.disconnect() is False
    assert conn.disconnect(drain=False) is False
    pid = master_pid(conn)
    os.kill(pid, signal.SIGSTOP)
    try:
        for _, swept in sweep(runtime_dir, stale_timeout=0.2):
            assert not swept.removed
    finally:
        os.kill(pid, signal.SIGCONT)
    assert plain_ssh(server, "-O", "check", server.host).returncode == 0


def test_plain_ssh_shares_the_master_on_the_users_own_path(
    local_sshd_factory: Any, runtime_dir: Path
) -> None:
    server = with_user_path(local_sshd_factory, f"{runtime_dir}/user-%C", "ControlMaster auto")
    conn = connect(server)
    assert plain_ssh(server, server.host, "echo shared").stdout == "shared\n"
    assert server.logins() == conn.stats().logins == 1
    assert conn.disconnect()
    await_true(lambda: not conn.is_alive())


def test_their_control_persist_wins(local_sshd_factory: Any, runtime_dir: Path) -> None:
    server = with_user_path(local_sshd_factory, f"{runtime_dir}/user-%C", "ControlPersist 1")
    connect(server)
    await_true(lambda: server.clients() == [])


def test_a_dead_socket_on_the_users_path_is_replaced(
    local_sshd_factory: Any, runtime_dir: Path
) -> None:
    server = with_user_path(local_sshd_factory, f"{runtime_dir}/user-%C")
    conn = connect(server)
    os.kill(master_pid(conn), signal.SIGKILL)
    assert conn.run("true").returncode == 0
    assert plain_ssh(server, "-O", "check", server.host).returncode == 0
    assert server.logins() == 2


@pytest.mark.parametrize("where", ["open to others", "missing", "too long"])
def test_an_unusable_path_of_the_users_is_left_and_ours_serves(
    local_sshd_factory: Any, runtime_dir: Path, where: str
) -> None:
    directory = runtime_dir / ("d" * 70 if where == "too long" else "d")
    if where != "missing":
        directory.mkdir()
        directory.chmod(0o777 if where == "open to others" else 0o700)
    server = with_user_path(local_sshd_factory, f"{directory}/%C")
    conn = connect(server)
    assert conn.run("echo fine").stdout == "fine\n"
    assert server.logins() == 1
    found = conn._link.control_master().find()
    assert found is not None
    assert Path(found.control_path).parent == runtime_dir


def test_a_path_that_stands_for_two_connections_is_not_used(
    local_sshd_factory: Any, runtime_dir: Path
) -> None:
    """Without %p in the path, plain ssh would run a command for one port on the other."""
    server = with_user_path(local_sshd_factory, f"{runtime_dir}/user-%h")
    usual = connect(server)
    other = holdfast.connect(f"{server.host}:2222", config_file=server.config_file)
    assert master_pid(usual) != master_pid(other)
    assert server.logins() == 2


def test_login_nodes_that_share_a_home_have_masters_of_their_own(
    local_sshd: LocalSshd, runtime_dir: Path
) -> None:
    if os.getuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("a host name of its own takes root and unshare(1)")
    script = (
        "import sys, holdfast; from holdfast.openssh.sweep import sweep;"
        "from pathlib import Path;"
        "c = holdfast.connect(sys.argv[1], config_file=sys.argv[2]);"
        "c.run('true', check=True);"
        "print(len(list(sweep(Path(sys.argv[3]), stale_timeout=0.1))))"
    )

    def on_node(name: str) -> str:
        done = subprocess.run(
            [
                "unshare",
                "--uts",
                "sh",
                "-c",
                'hostname "$0" && exec "$@"',
                name,
                sys.executable,
                "-c",
            ]
            + [script, local_sshd.host, local_sshd.config_file, str(runtime_dir)],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    assert [on_node(name) for name in ("login1", "login2", "login1", "login2")] == ["0\n"] * 4
    assert local_sshd.logins() == 2  # one a node
    sockets = [path for path in runtime_dir.iterdir() if path.is_socket()]
    assert len(sockets) == 2
    # On the other node a dead socket proves nothing: it may live here.
    os.kill(probe(str(sockets[0]), 1).pid or 0, signal.SIGKILL)
    assert [swept for _, swept in sweep(runtime_dir, stale_timeout=0.1)] == []
    assert sockets[0].exists()


def test_a_runtime_directory_with_a_long_name_works(
    clean: LocalSshd, runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_path, "short_directory", lambda: runtime_dir / "s")
    settings = holdfast.Settings.load(runtime_dir=str(runtime_dir / ("long" * 40)))
    conn = connect(clean, settings=settings)
    assert conn.run("echo fine").stdout == "fine\n"
    found = conn._link.control_master().find()
    assert found is not None
    assert len(found.control_path) <= control_path.MAX_LENGTH


def test_two_purposes_have_two_masters(clean: LocalSshd) -> None:
    main, watcher = connect(clean), connect(clean, purpose="watcher")
    assert master_pid(main) != master_pid(watcher)
    assert main.stats().logins == watcher.stats().logins == clean.logins() == 2
    watcher.disconnect(drain=False)
    await_true(lambda: len(clean.clients()) == 1)


def test_a_login_that_hangs_ends_with_its_timeout_and_leaves_nothing(
    local_sshd_factory: Any, runtime_dir: Path
) -> None:
    server = local_sshd_factory()
    config = Path(server.config_file)
    config.write_text(re.sub(r"ProxyCommand .*", "ProxyCommand sleep 300", config.read_text()))
    begin = time.monotonic()
    with pytest.raises(holdfast.HostUnreachable, match="did not finish within 1 s"):
        connect(server, settings=holdfast.Settings.load(login_timeout=1))
    assert time.monotonic() - begin < 5
    await_true(lambda: server.clients() == [])
    assert Records(runtime_dir).names() != []  # the log stays, to be read
    assert [swept.state for _, swept in sweep(runtime_dir, stale_timeout=1)] == [State.ABSENT]


def test_a_login_that_hangs_in_plain_mode_tells_how_long_it_was_waited_for(
    local_sshd: LocalSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.openssh.control_path.can_hold_sockets", lambda directory: False)
    config = Path(local_sshd.config_file)
    config.write_text(re.sub(r"ProxyCommand .*", "ProxyCommand sleep 300", config.read_text()))
    conn = connect(local_sshd, settings=holdfast.Settings.load(login_timeout=1))
    with pytest.raises(holdfast.HostUnreachable, match="no login within 1 s"):
        conn.run("true")
    assert conn.stats().login_failures == 1


def test_a_runtime_directory_without_room_for_sockets_means_plain_mode(
    local_sshd: LocalSshd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("holdfast.openssh.control_path.can_hold_sockets", lambda directory: False)
    conn = connect(local_sshd)
    for number in range(3):
        assert conn.run(f"exit {number}").returncode == number
    assert conn.mode == "plain"
    assert local_sshd.logins() == conn.stats().logins == 3
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "does not hold sockets" in warnings[0].getMessage()
    assert conn.run("kill -9 $$").signal == "unknown"
    assert conn.run("exit 255").returncode == 255

    with pytest.raises(holdfast.MultiplexingUnsupported, match="never"):
        connect(local_sshd, settings=holdfast.Settings.load(fallback="never"))
