"""One session kept open as a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import holdfast
from holdfast.testing import LocalSshd


@pytest.fixture
def shell(conn: holdfast.Connection) -> Iterator[holdfast.Shell]:
    with conn.shell() as shell:
        yield shell


def test_statuses_and_both_streams_come_back_apart_and_byte_exact(shell: holdfast.Shell) -> None:
    done = shell.run("printf 'no newline'; printf 'err' >&2; (exit 37)")
    assert (done.returncode, done.stdout, done.stderr) == (37, "no newline", "err")
    data = shell.run(r"printf '\000\377\n\n'; printf '\001' >&2", text=False)
    assert (data.stdout, data.stderr) == (b"\0\xff\n\n", b"\1")
    assert shell.run("true").stdout == ""


def test_words_travel_as_they_are(shell: holdfast.Shell) -> None:
    words = ["a b", "it's", "$HOME", "", "new\nline", "x!y\\"]
    assert shell.run(["printf", "%s|", *words]).stdout == "|".join(words) + "|"


def test_it_is_one_shell(shell: holdfast.Shell) -> None:
    shell.run("cd /usr; A=1; f() { echo f $1; }")
    assert shell.run('pwd; echo "$A"; f x').stdout == "/usr\n1\nf x\n"


def test_cwd_and_env_hold_for_one_command(shell: holdfast.Shell) -> None:
    here = shell.run("pwd").stdout
    assert shell.run("pwd; echo $B", cwd="/usr", env={"B": "it's"}).stdout == "/usr\nit's\n"
    assert shell.run("pwd; echo $B").stdout == f"{here}\n"
    assert shell.run("echo ran", cwd="/no such").returncode == 1
    with pytest.raises(holdfast.ConfigError):
        shell.run("true", env={"not a name": "x"})
    assert shell.run("echo fine").stdout == "fine\n"


def test_functions_of_rc_files_are_there(local_sshd: LocalSshd) -> None:
    with open(local_sshd.home / ".bashrc", "a") as rc:
        rc.write("module() { echo module $1; }\necho noise; echo more noise >&2\n")
    conn = holdfast.connect(local_sshd.host, config_file=local_sshd.config_file)
    with conn.shell() as shell:
        done = shell.run("module avail")
        assert done.stdout.endswith("module avail\n")
        assert shell.run("module list").stdout == "module list\n"


def test_stdin_is_empty_and_a_reader_does_not_eat_the_next_command(shell: holdfast.Shell) -> None:
    assert shell.run("cat; read x; echo done").stdout == "done\n"
    assert shell.run("echo next").stdout == "next\n"


def test_a_syntax_error_is_a_status(shell: holdfast.Shell) -> None:
    done = shell.run("if")
    assert done.returncode != 0
    assert "syntax error" in done.stderr
    assert shell.run("echo fine").stdout == "fine\n"


def test_multi_line_and_large_commands(shell: holdfast.Shell) -> None:
    assert shell.run("cat <<END\none\n  two\nEND\necho three").stdout == "one\n  two\nthree\n"
    assert shell.run("echo " + "x" * 100_000).stdout == "x" * 100_000 + "\n"


def test_large_output_on_both_streams(shell: holdfast.Shell) -> None:
    done = shell.run("head -c 5000000 /dev/zero; head -c 4000000 /dev/zero >&2", text=False)
    assert (len(done.stdout), len(done.stderr)) == (5_000_000, 4_000_000)


def test_hundreds_of_commands_keep_their_answers_apart(
    shell: holdfast.Shell, local_sshd: LocalSshd
) -> None:
    for number in range(500):
        done = shell.run(f"echo {number}; (exit {number % 256})")
        assert (done.returncode, done.stdout) == (number % 256, f"{number}\n")
    assert local_sshd.logins() == 1


def test_threads_take_turns(shell: holdfast.Shell) -> None:
    results: dict[int, str] = {}

    def work(number: int) -> None:
        for _ in range(10):
            results[number] = shell.run(f"echo {number}").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n" for number in range(10)}


def test_a_timeout_ends_shell_and_command(shell: holdfast.Shell, local_sshd: LocalSshd) -> None:
    begin = time.monotonic()
    with pytest.raises(holdfast.CommandTimeout) as caught:
        shell.run("echo early; sleep 300", timeout=0.3)
    assert time.monotonic() - begin < 1.3
    assert (caught.value.output, caught.value.remote_ended) == ("early\n", True)
    assert not shell.alive
    assert local_sshd.commands() == []
    with pytest.raises(holdfast.ConnectionLost, match=r"timed out.*open a new one") as lost:
        shell.run("true")
    assert lost.value.started is False


def test_exit_gives_its_status_and_ends_it(shell: holdfast.Shell) -> None:
    done = shell.run("echo bye; exit 5")
    assert (done.returncode, done.stdout) == (5, "bye\n")
    with pytest.raises(holdfast.ConnectionLost, match="is no more"):
        shell.run("true")


def test_a_worker_that_is_killed_is_told(conn: holdfast.Connection) -> None:
    with conn.shell() as shell:
        assert shell.run("kill -9 $$").signal == "unknown"
        assert not shell.alive
    with conn.shell() as shell:
        pid = int(shell.run("echo $$").stdout)
        os.kill(pid, signal.SIGKILL)
        while shell.alive:
            time.sleep(0.01)
        with pytest.raises(holdfast.ConnectionLost, match="no more") as lost:
            shell.run("true")
        assert lost.value.started is False


def test_a_lost_connection_under_a_command(conn: holdfast.Connection) -> None:
    with conn.shell() as shell:
        threading.Timer(0.3, conn.disconnect, kwargs={"drain": False}).start()
        with pytest.raises(holdfast.ConnectionLost) as lost:
            shell.run("sleep 300")
        assert lost.value.started is True
    assert conn.run("echo again").stdout == "again\n"


def test_check_raises(shell: holdfast.Shell) -> None:
    with pytest.raises(holdfast.CommandFailed, match="exit status 3"):
        shell.run("(exit 3)", check=True)
    assert shell.alive


def test_closing_frees_the_session(conn: holdfast.Connection, local_sshd: LocalSshd) -> None:
    shell = conn.shell()
    assert conn.stats().sessions_open == 1
    shell.close()
    shell.close()
    assert conn.stats().sessions_open == 0
    deadline = time.monotonic() + 5
    while local_sshd.commands():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("name", ["bash", "dash", "zsh", "ksh"])
def test_the_loop_works_in_every_posix_shell(name: str, tmp_path: Path) -> None:
    """The account's login shell cannot be chosen here; the loop is run by each shell itself."""
    from holdfast.shell import _LOOP

    loop = _LOOP.format(eval="eval" if name == "zsh" else "command eval")
    commands = "N1\necho one; false\nN1\nN2\ncat; echo two >&2\nN2\nN3\nprintf 'a\\n'\nb=2\nN3\nN4\necho $b\nN4\n"
    done = subprocess.run(
        [name, "-c", loop], input=commands, capture_output=True, text=True, check=False
    )
    assert done.stdout == "one\nN1 1\nN2 0\na\nN3 0\n2\nN4 0\n"
    assert done.stderr == "N1\ntwo\nN2\nN3\nN4\n"
