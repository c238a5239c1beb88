"""An exit status, a death by signal, a refused session and a lost connection are four things."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import holdfast
from holdfast.testing import fake_ssh

if TYPE_CHECKING:
    from tests.docker.conftest import Connect, Server, StartServer

    from holdfast.openssh.login_ledger import LoginLedger

Start = Callable[..., holdfast.Connection]


@pytest.fixture(params=["multiplexed", "plain"])
def start(request: pytest.FixtureRequest, connect: Connect, tmp_path: Path) -> Start:
    """``start(server)``: a connection in the mode of the test."""
    settings: dict[str, Any] = {}
    if request.param == "plain":
        script = 'case "$*" in *ControlMaster=auto*) exit 255;; esac\nexec ssh "$@"\n'
        settings["ssh"] = str(fake_ssh(tmp_path, script))

    def start(server: Server) -> holdfast.Connection:
        connection = connect(server, **settings)
        assert connection.mode == request.param
        return connection

    return start


SERVERS = {"openssh": {}, "dropbear": {"SERVER": "dropbear"}}


@pytest.fixture(params=list(SERVERS))
def any_server(request: pytest.FixtureRequest, server: StartServer) -> Server:
    variables: dict[str, str] = SERVERS[request.param]
    return server(fresh=False, **variables)


@pytest.mark.parametrize("status", [0, 1, 254, 255])
def test_an_exit_status(any_server: Server, start: Start, status: int) -> None:
    done = start(any_server).run(f"echo out; echo err >&2; exit {status}")
    assert (done.returncode, done.signal) == (status, None)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize("number", ["KILL", "TERM", "SEGV"])
def test_a_death_by_signal(any_server: Server, start: Start, number: str) -> None:
    connection = start(any_server)
    done = connection.run(f"echo out; kill -{number} $$; echo not this")
    assert done.returncode < 0
    assert done.signal is not None
    assert done.stdout == "out\n"
    with pytest.raises(holdfast.CommandFailed, match="signal"):
        connection.run(f"kill -{number} $$", check=True)
    assert connection.run("echo next").stdout == "next\n"


def test_a_refused_session(server: StartServer, start: Start, ledger: LoginLedger) -> None:
    none = server(SSHD_OPTS="MaxSessions 0")
    before = none.logins()
    with pytest.raises(holdfast.SessionRefused):
        start(none).run("touch /tmp/refused")
    assert none.exec("find", "/tmp", "-name", "refused") == ""
    assert none.logins() - before == ledger.count()


def test_a_dropped_connection(server: StartServer, start: Start, ledger: LoginLedger) -> None:
    key = server()
    before = key.logins()
    connection = start(key)
    process = connection.popen("echo started; sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    key.drop_connections()
    with pytest.raises(holdfast.ConnectionLost) as caught:
        process.wait(timeout=10)
    if connection.mode == "multiplexed":
        assert caught.value.started is True
    else:
        assert caught.value.started is not False
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert connection.run("echo next").stdout == "next\n"
    assert key.logins() - before == ledger.count() == 2


def test_a_dropped_connection_under_run(server: StartServer, start: Start) -> None:
    key = server()
    connection = start(key)
    seen = threading.Event()

    def drop() -> None:
        assert seen.wait(10)
        key.drop_connections()

    dropper = threading.Thread(target=drop)
    dropper.start()
    with pytest.raises(holdfast.ConnectionLost) as caught:
        connection.run("echo started; sleep 60", on_stdout=lambda text: seen.set())
    dropper.join()
    assert caught.value.started is not False


def test_a_killed_master(server: StartServer, connect: Connect, ledger: LoginLedger) -> None:
    key = server()
    before = key.logins()
    connection = connect(key)
    master = connection._link.control_master().find()
    assert master is not None
    seen = threading.Event()

    def kill() -> None:
        assert seen.wait(10)
        os.kill(master.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(holdfast.ConnectionLost) as caught:
        connection.run("echo started; sleep 60", on_stdout=lambda text: seen.set())
    killer.join()
    assert caught.value.started is True
    assert connection.run("echo next").stdout == "next\n"
    assert key.logins() - before == ledger.count() == 2


def test_a_master_killed_between_two_commands(
    server: StartServer, connect: Connect, ledger: LoginLedger
) -> None:
    key = server()
    connection = connect(key)
    for number in range(1, 4):
        assert connection.run("echo here").stdout == "here\n"
        assert ledger.count() == number
        master = connection._link.control_master().find()
        assert master is not None
        os.kill(master.pid, signal.SIGKILL)


def test_a_connection_dropped_between_two_commands(
    server: StartServer, connect: Connect, ledger: LoginLedger
) -> None:
    """The master notices and is gone, or it is caught leaving: nothing has started, try again."""
    key = server()
    before = key.logins()
    connection = connect(key)
    for _ in range(5):
        key.drop_connections()
        try:
            done = connection.run("echo here")
        except holdfast.ConnectionLost as error:  # caught with the request in hand
            assert error.started is None  # noqa: PT017
            done = connection.run("echo here")
        assert done.stdout == "here\n"
    assert key.logins() - before == ledger.count()
    assert 1 <= ledger.count() <= 6


def test_output_that_came_before_a_loss_is_kept_by_the_callback(
    server: StartServer, start: Start
) -> None:
    key = server()
    pieces: list[str] = []

    def drop_after_some(text: str) -> None:
        pieces.append(text)
        if "".join(pieces).endswith("3\n"):
            threading.Thread(target=key.drop_connections).start()

    begin = time.monotonic()
    with pytest.raises(holdfast.ConnectionLost):
        start(key).run("seq 3; sleep 60", on_stdout=drop_after_some)
    assert "".join(pieces) == "1\n2\n3\n"
    assert time.monotonic() - begin < 10
