"""Sessions of one master: shared by a crowd, waited for where they are few, refused where none is."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from holdfast import CommandTimeout, Connection, SessionRefused

if TYPE_CHECKING:
    from tests.docker.conftest import Connect, Server, StartServer

    from holdfast.openssh.login_ledger import LoginLedger

MEGABYTES = 20_000_000


def control_path(connection: Connection) -> str:
    """Where its master listens."""
    master = connection._link.control_master().find()
    assert master is not None
    return master.control_path


@contextmanager
def session_of_another_process(server: Server, path: str) -> Iterator[subprocess.Popen[bytes]]:
    """A plain ssh that holds a session of the master until its stdin is closed."""
    guard = ["-o", "ControlMaster=no", "-o", "ProxyCommand=false"]
    argv = ["ssh", "-F", str(server.config_file), "-S", path, *guard, server.name]
    with subprocess.Popen(
        [*argv, "echo ready; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        yield holder


def ends_later(holder: subprocess.Popen[bytes], seconds: float) -> None:
    assert holder.stdin is not None
    threading.Timer(seconds, holder.stdin.close).start()


def test_forty_threads_share_one_login(
    server: StartServer, connect: Connect, ledger: LoginLedger
) -> None:
    ten = server()  # MaxSessions 10 is sshd's default
    before = ten.logins()
    connection = connect(ten)

    def five(thread: int) -> list[str]:
        return [
            connection.run(["echo", f"{thread}.{number}"], check=True).stdout for number in range(5)
        ]

    with ThreadPoolExecutor(40) as pool:
        results = list(pool.map(five, range(40)))
    assert results == [[f"{thread}.{number}\n" for number in range(5)] for thread in range(40)]
    assert ten.logins() - before == ledger.count() == 1
    stats = connection.stats()
    assert (stats.commands, stats.sessions_open, stats.waiting) == (200, 0, 0)
    assert stats.mode == "multiplexed"


def test_dropbear_has_twenty_sessions_at_once(server: StartServer, connect: Connect) -> None:
    # They end one by one: dropbear 2022.83 loses the statuses of sessions that end together, and
    # dies of a failed assertion (common-channel.c), with plain ssh -S, too.
    connection = connect(server(SERVER="dropbear"))
    crowd = [connection.popen("echo ready; cat") for _ in range(20)]
    for process in crowd:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    assert connection.stats().sessions_open == 20
    for number, process in enumerate(crowd):
        output, _ = process.communicate(b"%d" % number)
        assert (process.returncode, output) == (0, b"%d" % number)


def test_the_only_session_serves_eight_threads(
    server: StartServer, connect: Connect, ledger: LoginLedger
) -> None:
    one = server(SSHD_OPTS="MaxSessions 1")
    before = one.logins()
    connection = connect(one)
    alone = "mkdir /tmp/alone && sleep 0.1 && rmdir /tmp/alone && echo"

    def two(thread: int) -> list[str]:
        return [
            connection.run(f"{alone} {thread}.{number}", check=True).stdout for number in range(2)
        ]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(two, range(8)))
    assert results == [[f"{thread}.{number}\n" for number in range(2)] for thread in range(8)]
    assert one.logins() - before == ledger.count() == 1
    assert connection.mode == "multiplexed"


@pytest.mark.parametrize("used", [True, False], ids=["used", "never used"])
def test_the_only_session_is_waited_for(
    server: StartServer, connect: Connect, ledger: LoginLedger, used: bool
) -> None:
    """Whether or not this master has ever given us a session."""
    one = server(SSHD_OPTS="MaxSessions 1")
    before = one.logins()
    connection = connect(one)
    if used:
        connection.run("true", check=True)
    with session_of_another_process(one, control_path(connection)) as holder:
        begin = time.monotonic()
        ends_later(holder, 3)
        assert connection.run("echo mine").stdout == "mine\n"
        assert 2.5 < time.monotonic() - begin < 6
    assert connection.stats().refused > 0
    assert connection.mode == "multiplexed"
    assert one.logins() - before == ledger.count()
    if used:
        assert ledger.count() == 1


def test_patience_with_a_full_master_has_an_end(server: StartServer, connect: Connect) -> None:
    one = server(SSHD_OPTS="MaxSessions 1")
    connection = connect(one, session_timeout=1)
    connection.run("true", check=True)
    with session_of_another_process(one, control_path(connection)):
        begin = time.monotonic()
        with pytest.raises(SessionRefused, match=r"within 1 s.*not started.*session_timeout"):
            connection.run("true")
        assert 0.9 < time.monotonic() - begin < 3
    assert connection.run("echo again").stdout == "again\n"


def test_a_timeout_counts_the_wait_for_a_session(server: StartServer, connect: Connect) -> None:
    one = server(SSHD_OPTS="MaxSessions 1")
    connection = connect(one)
    connection.run("true", check=True)
    with session_of_another_process(one, control_path(connection)):
        begin = time.monotonic()
        with pytest.raises(CommandTimeout) as caught:
            connection.run("touch /tmp/too-late", timeout=0.7)
        assert 0.6 < time.monotonic() - begin < 2.5
        assert caught.value.remote_ended is True
    assert connection.run("ls /tmp/too-late").returncode == 2
    assert connection.stats().sessions_open == 0


def test_a_crowd_of_threads_waits_with_its_own_session_held(
    server: StartServer, connect: Connect
) -> None:
    one = server(SSHD_OPTS="MaxSessions 1")
    connection = connect(one)
    with connection.popen("echo ready; cat") as mine:
        assert mine.stdin is not None
        assert mine.stdout is not None
        assert mine.stdout.readline() == b"ready\n"
        with ThreadPoolExecutor(3) as pool:
            others = [pool.submit(connection.run, ["echo", str(n)]) for n in range(3)]
            deadline = time.monotonic() + 10
            while connection.stats().refused == 0:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            mine.stdin.close()
            assert [other.result().stdout for other in others] == ["0\n", "1\n", "2\n"]


def test_no_session_at_all_is_told(
    server: StartServer, connect: Connect, ledger: LoginLedger
) -> None:
    none = server(SSHD_OPTS="MaxSessions 0")
    before = none.logins()
    connection = connect(none)
    begin = time.monotonic()
    with pytest.raises(SessionRefused, match=f"{none.name}.*MaxSessions.*not started") as caught:
        connection.run("touch /tmp/ran")
    assert time.monotonic() - begin < 10
    assert "administrators" in str(caught.value)
    assert none.exec("find", "/tmp", "-name", "ran") == ""
    assert none.logins() - before == ledger.count()
    assert connection.mode == "multiplexed"


def test_both_streams_may_be_long(server: StartServer, connect: Connect) -> None:
    done = connect(server()).run(
        f"yes out | head -c {MEGABYTES} & yes err | head -c {MEGABYTES} >&2; wait",
        text=False,
        check=True,
    )
    assert len(done.stdout) == len(done.stderr) == MEGABYTES
    assert done.stdout == b"out\n" * (MEGABYTES // 4)
    assert done.stderr == b"err\n" * (MEGABYTES // 4)


def test_input_may_be_long(server: StartServer, connect: Connect) -> None:
    data = bytes(range(256)) * (MEGABYTES // 256)
    done = connect(server()).run("cat | sha256sum", input=data, check=True)
    assert done.stdout == f"{hashlib.sha256(data).hexdigest()}  -\n"


def test_a_command_need_not_read_its_input(server: StartServer, connect: Connect) -> None:
    done = connect(server()).run("exec <&-; echo deaf", input=b"x" * MEGABYTES)
    assert (done.returncode, done.stdout) == (0, "deaf\n")
