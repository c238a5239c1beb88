"""Real shells are the oracles: what the words become in each of them, and nothing else, counts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Callable, Union

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.errors import ConfigError
from holdfast.openssh.quoting import (
    Word,
    local_operand,
    quote,
    quote_path,
    remote_command,
    scp_operand,
)

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]

NASTY: list[Word] = [
    "",
    " ",
    "a b",
    "-n",
    "--",
    "-",
    "'",
    "''",
    "a'b",
    '"',
    "'\"'\"",
    "\\",
    "\\\\",
    "a\\",
    "\\'",
    "'\\",
    "\\!",
    "!",
    "!!",
    "a!b",
    "!$",
    "^a^b",
    "$HOME",
    "${HOME}",
    "$(id)",
    "`id`",
    "$",
    "$$",
    "%self",  # fish: its pid
    "%",
    "%1",
    "~",
    "~root",
    "=ls",  # zsh: the path of ls
    "a=b",
    "*",
    "?",
    "[a]",
    "{a,b}",
    "#",
    "a#b",
    "\t",
    "\r",
    "\n",
    "\n\n",
    "a\nb",
    "a\n",
    "\\\n",
    "!\n",
    "'\n'",
    "\x01",
    "\x1b[31m",
    "\x7f",
    ";",
    "&",
    "|",
    "<",
    ">",
    "(",
    ")",
    "@",
    "@(a)",
    "+",
    ":",
    ",",
    "1>&2",
    "é",
    "日本",
    "\u2028",
    "\ue000",  # fish keeps its own marks in the private use area
    "\uf600",
    "\uf8ff",
    "\U0010ffff",
    b"\xff",
    b"\x80\x81!",
    b"\xff\n\xfe",
    b"\xc3",  # half a character
    Path("/a b/c"),
]

SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "tcsh", "fish")

WORDS = st.lists(
    st.one_of(
        st.binary(min_size=0, max_size=12).map(lambda raw: raw.replace(b"\0", b"\n")),
        st.text("a '\"\\!$`\n%~*-", max_size=8),
        st.sampled_from(NASTY),
    ),
    min_size=1,
    max_size=40,
)
VALUES = st.one_of(
    st.text("a '\"\\!$`\n%~*-", max_size=8),
    st.text(max_size=8).filter(lambda text: "\0" not in text and not _surrogates(text)),
)
_FEW = settings(
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _surrogates(text: str) -> bool:
    return any("\ud800" <= c <= "\udfff" for c in text)


@pytest.fixture(scope="session")
def show(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program that prints its arguments, each with a NUL behind it."""
    path = tmp_path_factory.mktemp("bin") / "show"
    path.write_text(
        f"#!{sys.executable} -IS\n"
        "import os, sys\n"
        "sys.stdout.buffer.write(b''.join(os.fsencode(a) + b'\\0' for a in sys.argv[1:]))\n"
    )
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="session")
def show_env(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A program that prints the variables that its arguments name."""
    path = tmp_path_factory.mktemp("bin") / "show_env"
    path.write_text(
        f"#!{sys.executable} -IS\n"
        "import os, sys\n"
        "for name in sys.argv[1:]:\n"
        "    sys.stdout.buffer.write(os.environb[name.encode()] + b'\\0')\n"
    )
    path.chmod(0o755)
    return str(path)


def _bytes(words: Sequence[Word]) -> bytes:
    return b"".join(os.fsencode(word) + b"\0" for word in words)


# --- words ----------------------------------------------------------------------------------


def test_each_nasty_word_arrives_alone(in_shell: Run, show: str) -> None:
    # With ";" between them they are many commands of one shell: fast, and each word stands alone.
    # Words with a newline end that shell (exec), so each of them has one of its own.
    one_line = [word for word in NASTY if b"\n" not in os.fsencode(word)]
    done = in_shell("; ".join(remote_command([show, word]) for word in one_line))
    assert (done.stdout, done.stderr) == (_bytes(one_line), b"")
    for word in NASTY:
        if word not in one_line:
            assert in_shell(remote_command([show, word])).stdout == _bytes([word])


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_all_nasty_words_arrive_together(in_shell: Run, show: str, locale: str) -> None:
    assert in_shell(remote_command([show, *NASTY]), LC_ALL=locale).stdout == _bytes(NASTY)


def test_every_byte_but_nul_arrives(in_shell: Run, show: str) -> None:
    each = [bytes([byte]) for byte in range(1, 256)]
    for locale in ("C", "C.UTF-8"):
        for words in (each, [b"".join(each)], [w for w in each if w != b"\n"]):
            assert in_shell(remote_command([show, *words]), LC_ALL=locale).stdout == _bytes(words)


@given(words=WORDS)
@_FEW
def test_any_words_arrive_as_they_are(in_shell: Run, show: str, words: list[Word]) -> None:
    done = in_shell(remote_command([show, *words]))
    assert (done.stdout, done.stderr) == (_bytes(words), b"")


def test_a_long_word_arrives(in_shell: Run, show: str) -> None:
    word = "it's 100% \\safe! " * 1000
    assert in_shell(remote_command([show, word])).stdout == _bytes([word])


def test_the_exit_status_arrives_also_with_newlines_in_words(in_shell: Run) -> None:
    for extra in ("", "\n"):
        words = [sys.executable, "-IS", "-c", f"raise SystemExit(7){extra}"]
        assert in_shell(remote_command(words)).returncode == 7


def test_a_string_is_the_shells_to_read() -> None:
    assert remote_command("a | b; c > d") == "a | b; c > d"


def test_plain_words_stay_readable() -> None:
    words = ["rsync", "-av", "--delete", "src/", "dst_1:x,y@z+1"]
    assert remote_command(words) == " ".join(["'rsync'", *words[1:]])


@pytest.mark.parametrize("nothing", ["", "  ", "\n", []])
def test_no_command_is_refused(nothing: Union[str, list[str]]) -> None:
    with pytest.raises(ConfigError, match="empty"):
        remote_command(nothing)


def test_a_nul_is_refused_wherever_it_stands() -> None:
    for bad in ("a\0b", ["a", "b\0"], [b"\0"]):
        with pytest.raises(ConfigError, match="NUL"):
            remote_command(bad)
    with pytest.raises(ConfigError, match="NUL"):
        remote_command("true", env={"A": "a\0b"})
    with pytest.raises(ConfigError, match="NUL"):
        remote_command("true", cwd="a\0b")


# --- cwd ------------------------------------------------------------------------------------

DIRECTORIES = ["plain", "a b", "-n", "--", "it's", "%self", "a!b", "$HOME", "x;y", "é", "-"]


def _real(home: Path, done: subprocess.CompletedProcess[bytes]) -> str:
    assert done.stderr == b""
    where = os.path.realpath(os.fsdecode(done.stdout[:-1]))
    return os.path.relpath(where, os.path.realpath(home))


@pytest.mark.parametrize("name", DIRECTORIES)
@pytest.mark.parametrize("command", ["pwd", ["/bin/pwd"]])
def test_a_relative_directory_is_one_of_the_home(
    in_shell: Run, tmp_path: Path, name: str, command: Union[str, list[str]]
) -> None:
    home, trap = tmp_path / "home", tmp_path / "trap"
    (home / name).mkdir(parents=True)
    (trap / name).mkdir(parents=True)
    # CDPATH would lead astray, and make cd print; ~/-name is the same as -name.
    assert _real(home, in_shell(remote_command(command, cwd=name), CDPATH=str(trap))) == name
    assert _real(home, in_shell(remote_command(command, cwd=f"~/{name}"))) == name
    assert _real(home, in_shell(remote_command(command, cwd=home / name))) == name


def test_a_tilde_alone_is_the_home(in_shell: Run, tmp_path: Path) -> None:
    for cwd in ("~", "~/", "."):
        assert _real(tmp_path / "home", in_shell(remote_command("pwd", cwd=cwd))) == "."


@pytest.mark.parametrize("cwd", ["no/such", "~/no such", "/no/such", "~nosuchuser", "a file", "-"])
@pytest.mark.parametrize(
    "command",
    ["echo ran", "true; echo ran", ["echo", "ran"], ["echo", "ran\n"], "echo ran & wait"],
)
def test_nothing_runs_where_the_directory_cannot_be_entered(
    in_shell: Run, tmp_path: Path, cwd: str, command: Union[str, list[str]]
) -> None:
    (tmp_path / "home" / "a file").write_text("")
    for env in ({}, {"A": "1"}):
        done = in_shell(remote_command(command, cwd=cwd, env=env))
        assert b"ran" not in done.stdout
        assert done.returncode == 1
        assert done.stderr != b""


@pytest.mark.parametrize("cwd", ["", "a\nb", "\n"])
def test_a_directory_that_no_shell_can_be_told_is_refused(cwd: str) -> None:
    with pytest.raises(ConfigError, match="cwd"):
        remote_command("pwd", cwd=cwd)


def test_a_background_job_does_not_take_the_directory_with_it(
    in_shell: Run, tmp_path: Path
) -> None:
    (tmp_path / "home" / "sub").mkdir(parents=True)
    done = in_shell(remote_command("sleep 0 & pwd", cwd="sub"))  # csh tells of the job on stdout
    assert b"/home/sub" in done.stdout


WORDS_OF_SHELLS = [
    "if",
    "time",
    "function",
    "repeat",
    "exec",
    "@",
    "%1",
    "-n",
    "-",
    "a=b",
    "!",
    "{",
]


# Quotes do not hide a builtin, as they must not (cd, test and echo are some, too), and there are
# shells that read some of their words in quotes as well. No program has such a name.
UNQUOTABLE = {
    *((shell, "exec") for shell in SHELLS),
    ("fish", "function"),
    ("fish", "if"),
    ("fish", "time"),
    ("fish", "!"),
    ("bash", "%1"),
    ("zsh", "-"),
}


@pytest.mark.parametrize("word", WORDS_OF_SHELLS)
def test_the_first_word_is_a_program_and_not_a_word_of_the_shell(
    shell: str, in_shell: Run, tmp_path: Path, word: str
) -> None:
    program = tmp_path / "bin" / word
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho program\n")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    done = in_shell(remote_command([word, "2", "echo", "x"]), PATH=path)
    if (os.path.basename(shell), word) in UNQUOTABLE:
        assert done.stdout != b"x\nx\n"
        return
    assert (done.stdout, done.stderr) == (b"program\n", b"")


def test_env_does_not_take_the_program_for_a_variable() -> None:
    with pytest.raises(ConfigError, match="as a variable"):
        remote_command(["a=b"], env={"X": "1"})


# --- env ------------------------------------------------------------------------------------

VARIABLES = {
    "EMPTY": "",
    "SPACES": " a  b ",
    "QUOTES": 'it\'s "this"',
    "BANG": "a!b!!",
    "BACK": "\\n\\\\",
    "NEWLINE": "a\nb\n",
    "DOLLAR": "$HOME `id` $(id)",
    "PERCENT": "%self",
    "ASSIGN": "a=b",
    "UNICODE": "é日本",
}


def test_variables_reach_a_list(in_shell: Run, show_env: str) -> None:
    done = in_shell(remote_command([show_env, *VARIABLES], env=VARIABLES))
    assert done.stdout == _bytes(list(VARIABLES.values()))


def test_variables_reach_every_part_of_a_string(in_shell: Run, show_env: str) -> None:
    names = " ".join(VARIABLES)
    done = in_shell(remote_command(f"{show_env} {names} | cat; {show_env} {names}", env=VARIABLES))
    assert done.stdout == 2 * _bytes(list(VARIABLES.values()))


def test_variables_and_a_directory_go_together(
    in_shell: Run, show_env: str, tmp_path: Path
) -> None:
    (tmp_path / "home" / "a b").mkdir(parents=True)
    for command in ("pwd", ["/bin/pwd"]):
        done = in_shell(remote_command(command, cwd="a b", env={"A": "x\ny"}))
        assert _real(tmp_path / "home", done) == "a b"


@given(values=st.lists(VALUES, min_size=1, max_size=10))
@_FEW
def test_any_value_arrives(in_shell: Run, show_env: str, values: list[str]) -> None:
    env = {f"V{number}": value for number, value in enumerate(values)}
    words = [show_env, *env]
    assert in_shell(remote_command(words, env=env)).stdout == _bytes(values)
    assert in_shell(remote_command(" ".join(words), env=env)).stdout == _bytes(values)


def test_the_exit_status_arrives_through_env(in_shell: Run) -> None:
    for env in ({"A": "1"}, {"A": "\n"}):
        assert in_shell(remote_command("sh -c 'exit 7'", env=env)).returncode == 7
        assert in_shell(remote_command(["sh", "-c", "exit 7"], env=env)).returncode == 7


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A-B", "A\n", "Ä", "A;id"])
def test_what_is_no_name_of_a_variable_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="not the name"):
        remote_command("true", env={name: "x"})


# --- operands -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("a/b", "a/b"),
        ("-n", "./-n"),
        ("~", "~"),
        ("~/", "~"),
        ("~/a b", "~/'a b'"),
        ("~alice/x", "~alice/x"),
        ("~a b", "'~a b'"),
        ("~$(id)/x", "'~$(id)/x'"),
        ("/a'b", "'/a'\\''b'"),
    ],
)
def test_a_tilde_keeps_its_meaning_and_nothing_else_does(path: str, word: str) -> None:
    assert quote_path(path) == word


@pytest.mark.parametrize("path", ["a", "a b", "-n", "~/it's", "%self", "a!b", "~weird name"])
def test_a_quoted_path_is_one_word_in_every_shell(
    in_shell: Run, show: str, tmp_path: Path, path: str
) -> None:
    done = in_shell(f"{show} {quote_path(path)}")
    expected = path.replace("~/", f"{tmp_path / 'home'}/") if path.startswith("~/") else path
    assert done.stdout == _bytes([f"./{expected}" if expected.startswith("-") else expected])


@pytest.mark.parametrize("name", ["a*b", "a?b", "[ab]", "a\\b", "plain", "a b", "-x"])
def test_scp_takes_a_fetched_path_literally(name: str) -> None:
    operand = scp_operand(name, remote_shell=False, fetch=True)
    assert operand == "".join(f"\\{c}" if c in "\\*?[]" else c for c in name)
    assert scp_operand(name, remote_shell=False, fetch=False) == name


def test_the_old_scp_hands_the_path_to_a_shell() -> None:
    assert scp_operand("a b", remote_shell=True, fetch=True) == "'a b'"
    assert scp_operand("~/a b", remote_shell=True, fetch=False) == "~/'a b'"
    with pytest.raises(ConfigError, match="NUL"):
        scp_operand("a\0", remote_shell=True, fetch=True)


@pytest.mark.parametrize(
    ("path", "operand"),
    [
        ("a", "a"),
        ("/a:b", "/a:b"),
        ("./a:b", "./a:b"),
        ("../a:b", "../a:b"),
        ("a:b", "./a:b"),
        ("host:file", "./host:file"),
        ("-r", "./-r"),
        (b"\xff:", "./\udcff:"),
        (Path("a:b"), "./a:b"),
    ],
)
def test_a_local_path_is_neither_an_option_nor_a_host(
    path: Union[str, bytes, Path], operand: str
) -> None:
    assert local_operand(path) == operand


def test_quoting_leaves_nothing_for_a_csh_to_expand() -> None:
    assert quote("a!b") == "'a'\\!'b'"
    assert quote("") == "''"
