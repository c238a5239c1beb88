"""Login shells of all kinds: words arrive as they are, and a string is the shell's own to read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Union

import pytest

import holdfast

if TYPE_CHECKING:
    from tests.docker.conftest import Connect, StartServer

SHELLS = ["/bin/bash", "/bin/sh", "/bin/tcsh", "/usr/bin/fish", "/bin/zsh", "/bin/ksh93"]

NASTY: list[Union[str, bytes]] = [
    "",
    " ",
    "two  words",
    "it's",
    '"double"',
    "''",
    "$HOME",
    "${HOME}",
    "`id`",
    "$(id)",
    "!",
    "!!",
    "a!b",
    "\\",
    "\\\\",
    "\\n",
    "ends with \\",
    "'\\''",
    "*",
    "?",
    "[a-z]",
    "{a,b}",
    "~",
    "~root",
    "=ls",
    "#no comment",
    "a;b|c&d<e>f",
    "(x)",
    "^a^b^",
    "%1",
    "-n",
    "--",
    "\t",
    "new\nline",
    "ends\n",
    "\n",
    "it's\n!\\ $HOME",
    "a\rb",
    "\x01\x7f",
    "Übergröße 世界",
    b"\xff\xfe bytes",
    b"\xff\n'",
    "x" * 5000,
]

PRINT_ARGUMENTS = [
    "python3",
    "-c",
    "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, sys.argv[1:])))",
]


@pytest.fixture(params=SHELLS, ids=lambda path: path.rpartition("/")[2])
def account(
    request: pytest.FixtureRequest, server: StartServer, connect: Connect
) -> holdfast.Connection:
    shell: str = request.param
    return connect(server() if shell == "/bin/bash" else server(LOGIN_SHELL=shell))


def test_words_arrive_as_they_are(account: holdfast.Connection) -> None:
    done = account.run([*PRINT_ARGUMENTS, *NASTY], text=False, check=True)
    assert done.stdout.split(b"|") == b"|".join(map(os.fsencode, NASTY)).split(b"|")
    assert done.stderr == b""


def test_a_word_that_is_the_command(account: holdfast.Connection) -> None:
    odd = "/tmp/an odd 'name'!"
    account.run(["cp", "/bin/echo", odd], check=True)
    assert account.run([odd, "ran"], check=True).stdout == "ran\n"


@pytest.mark.parametrize("as_string", [False, True], ids=["words", "string"])
def test_environment(account: holdfast.Connection, as_string: bool) -> None:
    values = {
        "HF_PLAIN": "1",
        "HF_ODD": 'it\'s \\ ! $HOME `id` "x" *',
        "HF_LINES": "one\ntwo\n",
        "HF_EMPTY": "",
        "HF_WIDE": "Übergröße",
        "LC_ALL": "C.UTF-8",  # in the C locale fish 3.6 takes its environment for Latin-1
    }
    for name, value in values.items():
        command = f"printenv {name}" if as_string else ["printenv", name]
        done = account.run(command, env=values, check=True)
        assert (done.stdout, done.stderr) == (value + "\n", "")


def test_directory(account: holdfast.Connection) -> None:
    for name in ("plain", "two words", "it's $HOME!", "-dash", "Übung", "[a]*"):
        path = f"/home/alice/cwd/{name}"
        account.run(["mkdir", "-p", "--", path], check=True)
        for command in (["pwd"], "pwd"):
            for cwd in (path, f"cwd/{name}", f"~/cwd/{name}", f"~alice/cwd/{name}"):
                done = account.run(command, cwd=cwd, env={"HF_X": "a b"}, check=True)
                assert (done.stdout, done.stderr) == (path + "\n", "")


def test_a_directory_that_is_not_there(account: holdfast.Connection) -> None:
    for command in ("echo ran", ["echo", "ran"]):
        done = account.run(command, cwd="/no/such place")
        assert (done.returncode, done.stdout) == (1, "")
        assert "/no/such place" in done.stderr


def test_exit_statuses(account: holdfast.Connection) -> None:
    for status in (0, 1, 7, 126, 127, 128, 137, 254, 255):
        for command in (f"exit {status}", ["sh", "-c", f"exit {status}"]):
            done = account.run(command)
            assert (done.returncode, done.signal) == (status, None)


def test_input_and_both_streams(account: holdfast.Connection) -> None:
    data = bytes(range(256)) * 100
    assert account.run(["cat"], input=data, text=False).stdout == data
    done = account.run(["sh", "-c", "cat; echo no >&2"], input="zeile\n")
    assert (done.stdout, done.stderr) == ("zeile\n", "no\n")
    assert account.run(["cat"]).stdout == ""


def test_a_command_that_is_not_there(account: holdfast.Connection) -> None:
    done = account.run(["no-such-command", "x"])
    assert done.returncode in (1, 127)  # tcsh says 1
    assert "no-such-command" in done.stderr


@pytest.mark.parametrize(
    ("shell", "command", "output"),
    [
        ("/bin/bash", "x=(a b); echo ${x[1]} {1..3}", "b 1 2 3\n"),
        ("/bin/sh", "x=5; echo $((x + 1)) ${x%5}.", "6 .\n"),
        ("/bin/tcsh", "set x = (a b); echo $x[2]; @ y = 2 + 3; echo $y", "b\n5\n"),
        ("/usr/bin/fish", "set x a b; echo $x[2]; if true; echo yes; end", "b\nyes\n"),
        ("/bin/zsh", "x=(a b); echo $x[2] ${(U)x}", "b A B\n"),
        ("/bin/ksh93", "typeset -u x=abc; echo $x ${.sh.version%%/*}", "ABC Version AJM 93u+m\n"),
    ],
    ids=["bash", "dash", "tcsh", "fish", "zsh", "ksh93"],
)
def test_a_string_is_in_the_shells_own_language(
    server: StartServer, connect: Connect, shell: str, command: str, output: str
) -> None:
    account = connect(server() if shell == "/bin/bash" else server(LOGIN_SHELL=shell))
    assert account.run(command).stdout == output
    done = account.run(command, cwd="/tmp", env={"HF_X": "it's"})
    assert (done.stdout, done.stderr) == (output, "")


# --- rc files that print


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("/bin/bash", ".bashrc"),
        ("/bin/tcsh", ".cshrc"),
        ("/bin/zsh", ".zshenv"),
        ("/usr/bin/fish", "config.fish"),
    ],
)
def test_noise_of_rc_files_is_not_hidden(
    server: StartServer, connect: Connect, shell: str, file: str
) -> None:
    noisy = connect(server(NOISY="1", LOGIN_SHELL=shell))
    done = noisy.run(["echo", "output"], check=True)
    assert done.stdout == f"NOISE from {file}\noutput\n"


@pytest.mark.parametrize("sftp", ["yes", "no"])
@pytest.mark.parametrize("direction", ["put", "get"])
def test_noise_of_rc_files_is_told_when_it_breaks_a_transfer(
    server: StartServer,
    connect: Connect,
    tmp_path_factory: pytest.TempPathFactory,
    sftp: str,
    direction: str,
) -> None:
    noisy = connect(server(NOISY="1", LOGIN_SHELL="/bin/bash", SFTP=sftp))
    here = tmp_path_factory.mktemp("noise")
    (here / "file").write_text("data")
    noisy.run("echo data >/tmp/there", check=True)
    with pytest.raises(holdfast.TransferFailed) as caught:
        if direction == "put":
            noisy.put(here / "file", "/tmp/arrived")
        else:
            noisy.get("/tmp/there", here / "arrived")
    message = str(caught.value)
    assert "rc files" in message
    assert "NOISE from .bashrc" in message or "no output" in message
