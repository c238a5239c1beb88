"""Sessions opened ahead of time: the same as any other, but for the round trip."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast import ready as ready_module
from holdfast.ready import parse_greeting, ready_sessions
from holdfast.testing import LocalSshd


def connect(server: LocalSshd, mode: str = "on", **more: Any) -> holdfast.Connection:
    settings = holdfast.Settings.load(ready_sessions=mode, **more)
    return holdfast.connect(server.host, config_file=server.config_file, settings=settings)


def await_true(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def has_exited(pid: int) -> bool:
    """Its files are closed: it is a zombie, or gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture
def warm(local_sshd: LocalSshd) -> holdfast.Connection:
    """A connection whose next command finds a ready session."""
    with open(local_sshd.home / ".bashrc", "a") as rc:
        rc.write("greet() { echo hello $1; }\nexport FROM_RC=${FROM_RC}x\necho rc noise >&2\n")
    conn = connect(local_sshd)
    for _ in range(3):
        conn.run("true")
    return conn


COMMANDS = [
    "greet you",
    "echo $FROM_RC $0 $SHLVL $-; env | sort",
    "exit 37",
    "kill -9 $$",
    "kill -TERM $$",
    "sh -c 'kill -9 $$'",
    "echo out; echo err >&2",
    "no_such_command",
    "if",
    "cat",
    "wc -c; echo end",
    'read line; echo "[$line]"; cat',
    "echo one\necho two\n\necho 'three\nlines'",
    "cat <<END\nhere $((1+2))\nEND",
    "# a comment\ntrue",
    "echo 'quotes \"'\\''`$HOME`\\\\ !*'",
    "pwd; cd /; pwd",
    "trap 'echo trapped' EXIT; exit 4",
    "ulimit -n; umask",
    "printf '%s\\n' " + "x" * 14000,
    "printf '%s\\n' " + "y" * 100_000,
    "echo \u00fc; printf '\\303\\274\\377'",
    "set -e; false; echo not reached",
    "exec 2>&1; ls /nonexistent",
    "sleep 0.01 & wait; echo $!x | sed s/[0-9]*x/pid/",
    "echo ${BASH_EXECUTION_STRING%% *}",
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[:30])
def test_nothing_tells_it_from_a_plain_session(
    warm: holdfast.Connection, local_sshd: LocalSshd, command: str
) -> None:
    plain = connect(local_sshd, "off", track_processes=False)
    for input in (None, "line one\nline two\n"):
        hits = warm.stats().ready_hits
        ahead = warm.run(command, input=input)
        usual = plain.run(command, input=input)
        if len(command) < ready_module.LONGEST:
            assert warm.stats().ready_hits == hits + 1
        assert (ahead.returncode, ahead.signal) == (usual.returncode, usual.signal)
        assert without_oldpwd(ahead.stdout) == without_oldpwd(usual.stdout)
        assert ahead.stderr == usual.stderr


def without_oldpwd(text: str) -> str:
    # sshd starts in the real home; the private one of LocalSshd is another, and its rc files go there.
    return "\n".join(line for line in text.split("\n") if not line.startswith("OLDPWD="))


def test_words_cwd_and_environment_are_what_they_are(warm: holdfast.Connection) -> None:
    words = ["printf", "%s|", "a b", "it's", "new\nline", "$HOME", "x!y\\"]
    assert warm.run(words).stdout == "a b|it's|new\nline|$HOME|x!y\\|"
    assert warm.run("pwd; echo $A", cwd="/usr", env={"A": "1 2"}).stdout == "/usr\n1 2\n"
    assert warm.stats().ready_hits >= 2


def test_popen_uses_one_too(warm: holdfast.Connection) -> None:
    hits = warm.stats().ready_hits
    with warm.popen("cat; exit 3") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"through")
        process.stdin.close()
        assert process.stdout.read() == b"through"
        assert process.wait(5) == 3
    assert warm.stats().ready_hits == hits + 1


def test_it_can_be_ended_like_any_other(warm: holdfast.Connection, local_sshd: LocalSshd) -> None:
    with pytest.raises(holdfast.CommandTimeout) as caught:
        warm.run("sleep 300", timeout=0.3)
    assert caught.value.remote_ended is True
    with warm.popen(["sleep", "300"]) as process:
        process.kill()
        assert process.wait(5) == -signal.SIGKILL


def test_large_streams_pass(warm: holdfast.Connection) -> None:
    data = os.urandom(5_000_000)
    hits = warm.stats().ready_hits
    assert warm.run("cat", input=data, text=False).stdout == data
    assert warm.stats().ready_hits == hits + 1


def test_the_setting_turns_it_off_and_auto_wants_a_slow_line(local_sshd: LocalSshd) -> None:
    for mode in ("off", "auto"):
        conn = connect(local_sshd, mode)
        for _ in range(5):
            conn.run("true")
        stats = conn.stats()
        assert stats.ready_hits == 0
        if conn._link.round_trip < ready_module.WORTH:
            assert stats.ready_misses == 0


def test_one_command_alone_prepares_none(local_sshd: LocalSshd) -> None:
    conn = connect(local_sshd)
    conn.run("true")
    assert not ready_sessions(conn._link)._ready


def test_it_is_dropped_when_it_is_not_used(
    warm: holdfast.Connection, local_sshd: LocalSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = ready_sessions(warm._link)
    assert not mine.drop(older_than=30)
    assert mine.drop(older_than=0)
    await_true(lambda: local_sshd.commands() == [])  # its shell has ended with its stdin
    assert warm.run("echo fine").stdout == "fine\n"


def test_closing_lets_go_of_it(warm: holdfast.Connection, local_sshd: LocalSshd) -> None:
    warm.run("true")
    warm.close()
    await_true(lambda: local_sshd.commands() == [])


@pytest.mark.parametrize("sessions", [1, 2, 3])
def test_few_sessions_are_enough(local_sshd_factory: Any, sessions: int) -> None:
    server = local_sshd_factory(sshd_config=[f"MaxSessions {sessions}"])
    conn = connect(server)
    statuses: list[int] = []

    def work(number: int) -> None:
        for _ in range(5):
            statuses.append(conn.run(f"exit {number}").returncode)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == sorted(list(range(6)) * 5)
    assert server.logins() == 1


def test_a_master_that_dies_takes_it_along(
    warm: holdfast.Connection, local_sshd: LocalSshd
) -> None:
    warm.run("true")
    found = warm._link.control_master().find()
    assert found is not None
    os.kill(found.pid, signal.SIGKILL)
    await_true(lambda: has_exited(found.pid))  # or its end would be unknown to a command
    assert warm.run("echo again").stdout == "again\n"
    for _ in range(3):
        assert warm.run("echo again").stdout == "again\n"
    assert local_sshd.logins() == 2


def test_an_environment_that_changes_is_sent(local_sshd_factory: Any, monkeypatch: Any) -> None:
    server = local_sshd_factory(sshd_config=["AcceptEnv LC_*"], ssh_config=["SendEnv LC_*"])
    conn = connect(server)
    for value in ("one", "one", "one", "two", "two", "two", "two"):
        monkeypatch.setenv("LC_TEST", value)
        assert conn.run("echo $LC_TEST").stdout == f"{value}\n"
    assert conn.stats().ready_hits > 0


def test_a_forced_command_is_left_alone(local_sshd_factory: Any) -> None:
    server = local_sshd_factory(sshd_config=['ForceCommand echo "forced: $SSH_ORIGINAL_COMMAND"'])
    conn = connect(server, track_processes=False)
    for _ in range(4):
        assert conn.run("whatever").stdout == "forced: whatever\n"
    assert conn.stats().ready_hits == 0


def test_a_greeting_without_an_environment_is_none() -> None:
    assert parse_greeting(b"", "n", 1, ()) is None
    assert parse_greeting(b"n-environment\nbash\n\n", "n", 1, ()) is None
    assert parse_greeting(b"n-environment\nbash\nA=1\0junk\0\n", "n", 1, ()) is None
    template = parse_greeting(b"noise n-environment\nbash\nPATH=/bin\0A=x\ny\0\n", "n", 1, ())
    assert template is not None
    assert template.shell == "bash"
    assert template.environment == ("PATH=/bin", "A=x\ny")
    line = template.line("echo 'x'; echo \"$A\"")
    assert (
        subprocess.run(["dash", "-c", line], capture_output=True, check=True).stdout == b"x\nx\ny\n"
    )


def test_a_killed_client_leaves_no_shell_behind(local_sshd: LocalSshd, tmp_path: Path) -> None:
    import sys

    script = (
        "import sys, holdfast, time\n"
        "c = holdfast.connect(sys.argv[1], config_file=sys.argv[2],"
        " settings=holdfast.Settings.load(ready_sessions='on'))\n"
        "for _ in range(4): c.run('true')\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, local_sshd.host, local_sshd.config_file],
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    await_true(lambda: len(local_sshd.commands()) == ready_module.DEPTH)
    child.kill()
    child.wait()
    child.stdout.close()
    await_true(lambda: local_sshd.commands() == [])
