"""Ready sessions with the login shells that accounts really have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.docker.conftest import Connect, StartServer

RC = {
    "/bin/bash": ".bashrc",
    "/usr/bin/zsh": ".zshenv",
    "/usr/bin/ksh": None,  # reads none for a command
    "/bin/dash": None,
}
COMMANDS = [
    "env | grep -v ^_= | sort",  # ksh has its pid in it
    "echo $0 $SHLVL; pwd",
    "exit 37",
    "kill -9 $$",
    "kill -TERM $$",
    "sh -c 'kill -9 $$'",
    "no_such_command",
    "cat; echo end",
    "read line; echo [$line]; cat",
    "echo one\necho 'two\nthree'\ncat <<END\n$((1+1))\nEND",
    "printf '%s' " + "x" * 14000,
    "printf '%s' " + "y" * 100_000,
    "trap 'echo trapped' EXIT; exit 4",
    "umask; ulimit -n",
    "if",
]


@pytest.mark.parametrize("shell", RC)
def test_nothing_tells_it_from_a_plain_session(
    server: StartServer, connect: Connect, shell: str
) -> None:
    account = server(fresh=True, LOGIN_SHELL=shell)
    rc = RC[shell]
    if rc:
        lines = "greet() { echo hello $1; }\nexport FROM_RC=${FROM_RC}x\n"
        account.exec("sh", "-c", f"printf '%s' '{lines}' >> /home/alice/{rc}")
    ahead = connect(account, ready_sessions="on")
    plain = connect(account, ready_sessions="off", track_processes=False)
    for _ in range(3):
        ahead.run("true")
    for command in [*COMMANDS, *(["greet you; echo $FROM_RC"] if rc else [])]:
        hits = ahead.stats().ready_hits
        one = ahead.run(command, input="line one\nline two\n")
        other = plain.run(command, input="line one\nline two\n")
        if len(command) < 16_000:
            assert ahead.stats().ready_hits == hits + 1, command[:40]
        assert (one.returncode, one.signal) == (other.returncode, other.signal), command[:40]
        assert (one.stdout, one.stderr) == (other.stdout, other.stderr), command[:40]
    assert account.logins() == 1


@pytest.mark.parametrize("shell", ["/bin/tcsh", "/usr/bin/fish"])
def test_other_shells_have_none(server: StartServer, connect: Connect, shell: str) -> None:
    conn = connect(server(LOGIN_SHELL=shell), ready_sessions="on")
    for _ in range(4):
        assert conn.run("echo x").stdout == "x\n"
    assert conn.stats().ready_hits == 0


@pytest.mark.parametrize("shell", [*RC, "/bin/tcsh", "/usr/bin/fish"])
def test_a_shell_kept_open_works_with_every_account(
    server: StartServer, connect: Connect, shell: str
) -> None:
    conn = connect(server(LOGIN_SHELL=shell))
    with conn.shell() as worker:
        done = worker.run("echo out; echo err >&2; (exit 3)")
        assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
        assert worker.run("if").returncode != 0
        worker.run("cd /usr; A=1")
        assert worker.run("pwd; echo $A").stdout == "/usr\n1\n"
        assert worker.run(["printf", "%s|", "a b", "it's\n"], cwd="/", env={"B": "2"}).stdout == (
            "a b|it's\n|"
        )
        assert worker.run("exit 9").returncode == 9
        assert not worker.alive
