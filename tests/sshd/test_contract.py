"""One contract, and every way in which a command can run keeps it."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.testing import LocalSshd

WAYS = ["direct", "ready", "ssh -S", "plain"]


@pytest.fixture(params=WAYS)
def way(
    request: pytest.FixtureRequest, local_sshd: LocalSshd, monkeypatch: pytest.MonkeyPatch
) -> holdfast.Connection:
    """A connection whose commands all run in one way."""
    kind: str = request.param
    if kind == "plain":
        monkeypatch.setattr("holdfast.openssh.control_path.can_hold_sockets", lambda path: False)
    settings = holdfast.Settings.load(ready_sessions="on" if kind == "ready" else "off")
    conn = holdfast.connect(local_sshd.host, config_file=local_sshd.config_file, settings=settings)
    conn._link.speaks_mux = kind != "ssh -S"
    if kind == "ready":
        for _ in range(3):
            conn.run("true")
    return conn


def test_it_runs_in_the_way_that_it_should(
    way: holdfast.Connection, request: pytest.FixtureRequest, local_sshd: LocalSshd
) -> None:
    kind = request.node.callspec.params["way"]
    before = way.stats()
    # Its client on this machine, if there is one, names the control path in its arguments.
    with way.popen("cat") as process:
        clients = len(local_sshd.clients())
        assert process.stdin is not None
        process.stdin.close()
        process.wait(10)
    after = way.stats()
    assert way.mode == ("plain" if kind == "plain" else "multiplexed")
    assert after.ready_hits - before.ready_hits == (1 if kind == "ready" else 0)
    assert clients == {"direct": 1, "ready": 1, "ssh -S": 2, "plain": 1}[kind]
    assert after.logins - before.logins == (1 if kind == "plain" else 0)


@pytest.mark.parametrize("status", [0, 1, 3, 127, 137, 254, 255])
def test_exit_statuses(way: holdfast.Connection, status: int) -> None:
    done = way.run(f"exit {status}")
    assert (done.returncode, done.signal) == (status, None)


def test_a_death_by_a_signal_is_no_exit(way: holdfast.Connection) -> None:
    done = way.run("kill -9 $$")
    assert (done.returncode, done.signal) == (-1, "unknown")


def test_streams_apart_and_byte_exact(way: holdfast.Connection) -> None:
    done = way.run(r"printf '\000\377out'; printf 'err\n\n' >&2", text=False)
    assert (done.stdout, done.stderr) == (b"\0\xffout", b"err\n\n")


def test_input_and_its_end(way: holdfast.Connection, tmp_path: Path) -> None:
    assert way.run("cat").stdout == ""
    assert way.run("cat; echo end", input="text").stdout == "textend\n"
    (tmp_path / "file").write_text("file")
    with open(tmp_path / "file", "rb") as file:
        assert way.run("cat", stdin=file).stdout == "file"
    assert way.run("exit 4", input=b"x" * 1_000_000).returncode == 4


def test_much_in_both_directions(way: holdfast.Connection) -> None:
    data = os.urandom(8_000_000)
    assert way.run("cat", input=data, text=False, timeout=60).stdout == data
    done = way.run("head -c 8000000 /dev/zero & head -c 8000000 /dev/zero >&2; wait", timeout=60)
    assert (len(done.stdout), len(done.stderr)) == (8_000_000, 8_000_000)
    assert way.run("sha256sum", input=data).stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_words_cwd_and_environment(way: holdfast.Connection) -> None:
    words = ["printf", "%s|", "a b", "it's", "new\nline", "$HOME", "x!y\\", "", "-n"]
    assert way.run(words).stdout == "a b|it's|new\nline|$HOME|x!y\\||-n|"
    assert way.run("pwd; echo $A", cwd="/usr", env={"A": "1 '2"}).stdout == "/usr\n1 '2\n"
    assert way.run("echo ran", cwd="/none").returncode == 1
    assert way.run("cat <<END\nmulti\nEND\necho line").stdout == "multi\nline\n"
    assert len(way.run("echo " + "x" * 100_000).stdout) == 100_001


def test_pieces_arrive_as_they_come(way: holdfast.Connection, tmp_path: Path) -> None:
    gate = tmp_path / "go"
    pieces: list[str] = []

    def see(piece: str) -> None:
        pieces.append(piece)
        gate.touch()

    way.run(
        f"echo first; while [ ! -e '{gate}' ]; do sleep 0.01; done; echo last",
        on_stdout=see,
        timeout=30,
    )
    assert "".join(pieces) == "first\nlast\n"


def test_a_timeout_ends_the_process(way: holdfast.Connection, local_sshd: LocalSshd) -> None:
    way.run("true")
    with pytest.raises(holdfast.CommandTimeout) as caught:
        way.run("echo early; trap '' TERM; sleep 300; sleep 300", timeout=2)
    assert caught.value.output == "early\n"
    assert caught.value.remote_ended is not False
    deadline = time.monotonic() + 5
    idle = 2 if way.stats().ready_hits else 0  # the shells of ready sessions
    while len(local_sshd.commands()) > idle:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_it(way: holdfast.Connection, number: int) -> None:
    with way.popen(["sleep", "300"]) as process:
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(10) == -number
        assert process.signal == signal.Signals(number).name[3:]


def test_popen_in_both_directions(way: holdfast.Connection) -> None:
    with way.popen("while read l; do echo got $l; done; exit 5") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"got one\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
        process.stdin.close()
        assert process.wait(10) == 5
    assert way.popen("cat; echo err >&2").communicate(b"in") == (b"in", b"err\n")


def test_communicate_takes_what_is_left(way: holdfast.Connection) -> None:
    process = way.popen("echo one; echo two; echo err >&2; cat")
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"  # the rest may be in the buffer
    process.stdin.write(b"buffered ")
    assert process.communicate(b"input", timeout=20) == (b"two\nbuffered input", b"err\n")

    ended = way.popen("echo out; echo err >&2", stdin=subprocess.DEVNULL)
    assert ended.wait(20) == 0
    assert ended.communicate() == (b"out\n", b"err\n")
    assert ended.communicate() == (b"", b"")


def test_streams_to_files(way: holdfast.Connection, tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out, open(tmp_path / "err", "wb") as err:
        nothing = subprocess.DEVNULL
        with way.popen("echo a; echo b >&2", stdin=nothing, stdout=out, stderr=err) as process:
            assert process.wait(10) == 0
    deadline = time.monotonic() + 5
    while (tmp_path / "err").read_text() != "b\n":
        assert time.monotonic() < deadline
    assert (tmp_path / "out").read_text() == "a\n"


def test_a_link_that_drops_is_a_lost_connection(
    way: holdfast.Connection, local_sshd: LocalSshd
) -> None:
    with pytest.raises(holdfast.ConnectionLost) as lost, way.popen("echo up; sleep 300") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        local_sshd.kill_sessions()
    assert lost.value.started is not False
    assert way.run("echo again").stdout == "again\n"


def test_a_refused_session_has_not_started(
    local_sshd_factory: Any, way: holdfast.Connection, request: pytest.FixtureRequest
) -> None:
    server = local_sshd_factory(sshd_config=["MaxSessions 0"])
    conn = holdfast.connect(server.host, config_file=server.config_file)
    conn._link.speaks_mux = request.node.callspec.params["way"] != "ssh -S"
    with pytest.raises(holdfast.SessionRefused):
        conn.run("touch ran")
    assert not (server.home / "ran").exists()
