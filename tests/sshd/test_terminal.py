"""Terminals over a real sshd: interact on a pseudo-terminal of the test's, and spawn."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Optional

import pexpect
import pytest

import holdfast
from holdfast.testing import LocalSshd

Factory = Callable[..., LocalSshd]
Interact = Callable[..., "pexpect.spawn[str]"]

# ssh's own last word about a session on a terminal.
GOODBYE = b"Shared connection to localsshd closed.\r\n"

# What a program does that puts its terminal on a remote command, and what the terminal is afterwards.
_PROGRAM = """
import os, sys, termios
import holdfast
host, config, mode, command = sys.argv[1:]
conn = holdfast.Connection(host, config_file=config)
if mode == "plain":
    conn._link.fall_back("the test says so")
before = termios.tcgetattr(0)
try:
    print("status", conn.interact(command or None))
except holdfast.HoldfastError as error:
    print(type(error).__name__, error)
except KeyboardInterrupt:
    print("KeyboardInterrupt")
print("modes kept", termios.tcgetattr(0) == before, "blocking", [os.get_blocking(n) for n in (0, 1, 2)])
print("logins", conn.stats().logins, "commands", conn.stats().commands)
"""


def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def no_process(pid: int) -> bool:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    return True


@pytest.fixture(params=["multiplexed", "plain"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def interact(local_sshd: LocalSshd) -> Iterator[Interact]:
    """``interact(command)``: a program on a terminal of its own that calls ``conn.interact``."""
    children: list[pexpect.spawn[str]] = []

    def start(
        command: str = "", mode: str = "multiplexed", server: Optional[LocalSshd] = None
    ) -> pexpect.spawn[str]:
        server = server or local_sshd
        child = pexpect.spawn(
            sys.executable,
            ["-c", _PROGRAM, server.host, server.config_file, mode, command],
            encoding="utf-8",
            timeout=15,
            dimensions=(31, 97),
        )
        children.append(child)
        return child

    yield start
    for child in children:
        child.close(force=True)


def ends_well(child: pexpect.spawn[str], status: int, logins: int = 1, commands: int = 1) -> None:
    child.expect_exact(f"status {status}\r\n")
    child.expect_exact("modes kept True blocking [True, True, True]\r\n")
    child.expect_exact(f"logins {logins} commands {commands}\r\n")
    child.expect(pexpect.EOF)


# --- interact -----------------------------------------------------------------------------------


def test_a_command_has_the_terminal(interact: Interact, mode: str) -> None:
    child = interact("stty size; tty -s && echo tty; read line; echo got $line; exit 7", mode)
    child.expect_exact("31 97\r\n")
    child.expect_exact("tty\r\n")
    child.sendline("a line")
    child.expect_exact("got a line\r\n")
    ends_well(child, 7)


def test_the_login_shell_has_the_terminal(
    interact: Interact, local_sshd: LocalSshd, mode: str
) -> None:
    child = interact("", mode)
    child.sendline("echo $((6 * 7))-$-")
    child.expect(r"42-\w*i")  # it is interactive
    child.sendline("exit 5")
    ends_well(child, 5)
    until(lambda: local_sshd.commands() == [])


def test_the_size_follows_the_window(interact: Interact, mode: str) -> None:
    child = interact(
        "trap 'stty size' WINCH; trap 'exit 2' INT; echo ready; while :; do sleep 0.05; done", mode
    )
    child.expect_exact("ready")
    child.setwinsize(20, 60)
    child.expect_exact("20 60")
    child.sendintr()
    ends_well(child, 2)


def test_interrupt_goes_to_the_far_side(interact: Interact, mode: str) -> None:
    child = interact(
        "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.05; done", mode
    )
    child.expect_exact("ready")
    child.sendintr()
    child.expect_exact("caught")
    ends_well(child, 3)


def test_a_remote_255_is_a_status_and_a_signal_is_none(interact: Interact) -> None:
    ends_well(interact("exit 255"), 255)
    ends_well(interact("kill -9 $$"), -1)


def test_a_lost_connection_is_told_and_the_terminal_put_right(
    interact: Interact, local_sshd: LocalSshd
) -> None:
    child = interact("echo ready; sleep 60")
    child.expect_exact("ready")
    local_sshd.kill_sessions()
    child.expect_exact(
        "ConnectionLost the connection to localsshd was lost; the command had started"
    )
    child.expect_exact("modes kept True blocking [True, True, True]\r\n")
    child.expect_exact("logins 1 ")


def test_a_killed_ssh_leaves_the_terminal_as_it_was(
    interact: Interact, local_sshd: LocalSshd
) -> None:
    child = interact("echo ready; sleep 60")
    child.expect_exact("ready")
    clients = [
        pid
        for pid in local_sshd.clients()
        if b"-tt" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    ]
    assert len(clients) == 1
    os.kill(clients[0], signal.SIGKILL)
    child.expect_exact("modes kept True")


def test_a_session_is_waited_for(local_sshd_factory: Factory, interact: Interact) -> None:
    server = local_sshd_factory(sshd_config=["MaxSessions 1"])
    with holdfast.connect(server.host, config_file=server.config_file) as conn:
        with conn.popen("cat") as process:
            child = interact("echo at last", server=server)
            with pytest.raises(pexpect.TIMEOUT):
                child.expect_exact("at last", timeout=1)
            assert process.stdin
            process.stdin.close()
            assert process.wait(5) == 0
        child.expect_exact("at last")
        ends_well(child, 0)
    assert server.logins() == 1


def test_the_forwards_of_the_configuration_stay_out(
    local_sshd_factory: Factory, interact: Interact
) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    server = local_sshd_factory(ssh_config=[f"LocalForward 127.0.0.1:{port} localhost:22"])
    child = interact("read line", server=server)
    with holdfast.connect(server.host, config_file=server.config_file) as conn:
        assert conn.run("true", pty=True).returncode == 0
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass
    child.sendline()
    child.expect("status 0")


def test_without_a_terminal_the_streams_are_used(conn: holdfast.Connection) -> None:
    script = (
        "import sys, holdfast\n"
        "conn = holdfast.Connection(sys.argv[1], config_file=sys.argv[2])\n"
        "sys.exit(conn.interact(['sh', '-c', 'echo \"$1\"; exit 4', 'sh', 'a  b']))\n"
    )
    argv = [sys.executable, "-c", script, conn.destination, str(conn._link.config_file)]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (4, b"a  b\n", GOODBYE)


def test_a_closed_connection_gives_no_terminal(conn: holdfast.Connection) -> None:
    conn.close()
    with pytest.raises(holdfast.ConfigError, match="is closed"):
        conn.interact()
    with pytest.raises(holdfast.ConfigError, match="is closed"):
        conn.spawn()


# --- spawn --------------------------------------------------------------------------------------


@pytest.fixture
def either(mode: str, local_sshd: LocalSshd) -> Iterator[holdfast.Connection]:
    conn = holdfast.Connection(local_sshd.host, config_file=local_sshd.config_file)
    if mode == "plain":
        conn._link.fall_back("the test says so")
    yield conn
    conn.close()


def test_a_child_is_pexpects(
    either: holdfast.Connection, local_sshd: LocalSshd, runtime_dir: Path
) -> None:
    child = either.spawn(
        "stty size; read -p 'name? ' name; echo hello $name; exit 3",
        encoding="utf-8",
        timeout=10,
        dimensions=(11, 55),
    )
    child.expect_exact("11 55")
    child.expect_exact("name? ")
    child.sendline("you")
    child.expect("hello you\r\n")
    child.expect(pexpect.EOF)
    assert re.fullmatch(r"(Shared c|C)onnection to \S+ closed\.\s+", child.before or "")
    child.close()
    assert (child.exitstatus, child.signalstatus) == (3, None)
    assert (either.stats().logins, either.stats().commands, local_sshd.logins()) == (1, 1, 1)
    assert list(runtime_dir.glob("client-*")) == []


def test_children_of_the_login_shell_and_of_words(either: holdfast.Connection) -> None:
    child = either.spawn(timeout=10)
    child.sendline(b"echo $((6 * 7)); exit 2")
    child.expect(rb"[\r\n]42\r\n")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 2
    child = either.spawn(["printf", "%s|", "a  b", "$HOME"], encoding="utf-8", timeout=10)
    child.expect_exact("a  b|$HOME|")
    child.expect(pexpect.EOF)
    child.close()


def test_closing_a_child_hangs_up(conn: holdfast.Connection) -> None:
    child = conn.spawn("echo $$; sleep 300", encoding="utf-8", timeout=10)
    child.expect(r"(\d+)\r\n")
    pid = int(str(child.after))
    child.close()
    until(lambda: no_process(pid))
    assert conn.run("echo on").stdout == "on\n"


def test_a_child_of_a_lost_connection_ends_with_255(
    conn: holdfast.Connection, local_sshd: LocalSshd
) -> None:
    child = conn.spawn("echo ready; sleep 60", encoding="utf-8", timeout=10)
    child.expect_exact("ready")
    conn.disconnect(drain=False)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 255
    with conn.spawn("echo anew", encoding="utf-8", timeout=10) as child:
        child.expect_exact("anew")
    assert local_sshd.logins() == 2


def test_a_child_waits_for_its_session(local_sshd_factory: Factory) -> None:
    server = local_sshd_factory(sshd_config=["MaxSessions 1"])
    settings = holdfast.Settings.load(session_timeout=1)
    with holdfast.connect(server.host, config_file=server.config_file, settings=settings) as conn:
        with conn.popen("cat") as process:
            with pytest.raises(holdfast.SessionRefused):
                conn.spawn("echo early")
            assert process.stdin
            process.stdin.close()
            assert process.wait(5) == 0
        with conn.spawn("echo on time", encoding="utf-8", timeout=10) as child:
            child.expect_exact("on time")
    assert server.logins() == 1


def test_a_plain_child_whose_login_fails_says_why(local_sshd: LocalSshd) -> None:
    conn = holdfast.Connection(
        local_sshd.host,
        config_file=local_sshd.config_file,
        options={"PubkeyAuthentication": False},
    )
    conn._link.fall_back("the test says so")
    with pytest.raises(holdfast.AuthenticationRequired):
        conn.spawn("true")
    assert conn.stats().login_failures == 1


# --- the verbs ----------------------------------------------------------------------------------


def test_holdfast_shell(conn: holdfast.Connection, local_sshd: LocalSshd) -> None:
    argv = ["-m", "holdfast", "shell", "--config-file", local_sshd.config_file, local_sshd.host]
    with pexpect.spawn(sys.executable, argv, encoding="utf-8", timeout=15) as child:
        before = termios.tcgetattr(child.child_fd)
        child.sendline("echo $((6 * 7)); exit 9")
        child.expect_exact("42\r\n")
        child.expect(pexpect.EOF)
        assert termios.tcgetattr(child.child_fd) == before
        child.close()
        assert child.exitstatus == 9
    words = ["echo", "$((6", "*", "7))"]
    done = subprocess.run(
        [sys.executable, *argv, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=20
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"42\n", GOODBYE)
    done = subprocess.run(
        [sys.executable, *argv, "kill -9 $$"], stdin=subprocess.DEVNULL, capture_output=True
    )
    assert (done.returncode, done.stdout) == (255, b"")
    assert (
        done.stderr.replace(GOODBYE, b"")
        == b"holdfast: a signal or a hangup ended it on localsshd\n"
    )
    assert local_sshd.logins() == 1


def test_holdfast_shell_logs_in_on_the_terminal_first(local_sshd: LocalSshd) -> None:
    argv = ["-m", "holdfast", "shell", "--config-file", local_sshd.config_file, local_sshd.host]
    with pexpect.spawn(sys.executable, [*argv, "read"], encoding="utf-8", timeout=15) as child:
        conn = holdfast.Connection(local_sshd.host, config_file=local_sshd.config_file)
        until(conn.is_alive)
        assert [login.kind for login in conn._link.ledger.logins()] == ["open"]
        child.sendline()
        child.expect(pexpect.EOF)
    assert local_sshd.logins() == 1
