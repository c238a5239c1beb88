"""The command line without any ssh: words in, words and exit statuses out."""

from __future__ import annotations

import importlib
import logging
import os
import pkgutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import holdfast
from holdfast.cli import main as cli
from holdfast.cli import verbs
from holdfast.cli.verbs import run as run_verb


@pytest.fixture(autouse=True)
def logger_restored() -> Iterator[None]:
    log = logging.getLogger("holdfast")
    state = (log.handlers[:], log.level, log.propagate)
    yield
    log.handlers[:], log.level, log.propagate = state


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError(f"a process was started: {args}")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def raising(error: BaseException) -> Any:
    def main(args: object) -> int:
        raise error

    return main


# --- help -------------------------------------------------------------------------------------


def test_every_verb_is_listed_and_has_a_file() -> None:
    files = {module.name for module in pkgutil.iter_modules(verbs.__path__)}
    assert files == set(cli.VERBS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help_with_an_example_and_its_exit_statuses(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"  holdfast {verb}" in text.partition("examples:")[2]
    assert "exit status" in text
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize(
    "words", [["hosts", "list"], ["hosts", "set"], ["config", "show"], ["config", "install"]]
)
def test_actions_have_help_of_their_own(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--help"]) == 0
    assert f"usage: holdfast {' '.join(words)}" in capsys.readouterr().out


def test_help_lists_the_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb} " in text and line in text for verb, line in cli.VERBS.items())


def test_without_words_it_helps(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "verbs:" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"holdfast {holdfast.__version__}\n"


# --- what cannot be right ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["opne", "x"], "did you mean open?"),
        (["zzzzz"], "holdfast --help lists the verbs"),
        (["--frobnicate"], "no verb"),
        (["run"], "HOST is missing"),
        (["run", "host"], "COMMAND is missing"),
        (["run", "host", "--"], "COMMAND is missing"),
        (["run", "--env", "NOVALUE", "host", "true"], "is not NAME=VALUE"),
        (["run", "--timeout", "0", "host", "true"], "positive number of seconds"),
        (["run", "--timeout", "nan", "host", "true"], "positive number of seconds"),
        (["check", "host", "-o", "NoEquals"], "is not KEY=VALUE"),
        (["check"], "HOST"),
        (["close"], "name one HOST, or say --all"),
        (["close", "host", "--all"], "name one HOST, or say --all"),
        (["hosts"], "ACTION"),
        (["hosts", "add", "x", "User"], "is not KEY=VALUE"),
        (["demo", "--plain", "-3"], "--plain"),
        (["check", "host", "-o", "ControlPath=/x"], "holdfast sets it itself"),
    ],
)
def test_bad_words_are_refused_with_255_and_the_reason(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str], no_process: None
) -> None:
    assert cli.main(words) == 255
    out, err = capsys.readouterr()
    assert out == ""
    assert "holdfast: " in err
    assert reason in err


@pytest.mark.parametrize(
    "destination", ["-oProxyCommand=x", "a b", "a;b", "a\nb", "$(x)", "", "a:0"]
)
@pytest.mark.parametrize("verb", ["run", "open", "close", "check", "put", "get", "doctor", "demo"])
def test_bad_destinations_start_no_process(
    verb: str,
    destination: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    no_process: None,
) -> None:
    more = {"run": ["true"], "put": ["/etc/passwd"], "get": ["x"]}.get(verb, [])
    # doctor looks at this machine first, and demo without a host is another thing.
    monkeypatch.setattr("holdfast.cli.doctor_local.checks", lambda config_file: iter([]))
    status = cli.main([verb, "--", destination, *more])
    out, err = capsys.readouterr()
    assert status == (1 if verb == "doctor" else 255)
    assert "destination" in (out if verb == "doctor" else err)


# --- errors become statuses -------------------------------------------------------------------


def test_an_error_of_ours_is_one_line_and_255(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "holdfast.cli.verbs.ls.main", raising(holdfast.HostUnreachable("nobody answers"))
    )
    assert cli.main(["ls"]) == 255
    assert capsys.readouterr().err == "holdfast: nobody answers\n"


def test_an_unexpected_error_says_how_to_see_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.cli.verbs.ls.main", raising(ZeroDivisionError("oh")))
    assert cli.main(["ls"]) == 255
    err = capsys.readouterr().err
    assert (
        err
        == "holdfast: internal error: ZeroDivisionError: oh; run it again with -vv for the whole story\n"
    )
    assert cli.main(["ls", "-vv"]) == 255
    assert "Traceback" in capsys.readouterr().err


def test_the_variable_asks_for_tracebacks_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOLDFAST_DEBUG", "1")
    monkeypatch.setattr("holdfast.cli.verbs.ls.main", raising(ZeroDivisionError("oh")))
    assert cli.main(["ls"]) == 255
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_130_and_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.cli.verbs.ls.main", raising(KeyboardInterrupt()))
    assert cli.main(["ls"]) == 130
    assert capsys.readouterr().err == ""


def test_a_reader_that_has_had_enough_is_141_and_silent(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    redirected: list[int] = []
    monkeypatch.setattr(cli, "_nowhere", redirected.append)
    monkeypatch.setattr("holdfast.cli.verbs.ls.main", raising(BrokenPipeError()))
    assert cli.main(["ls"]) == 141
    assert capsys.readouterr().err == ""
    assert redirected == [1]


@pytest.mark.parametrize(
    ("words", "level"),
    [
        (["ls"], logging.WARNING),
        (["ls", "-v"], logging.INFO),
        (["-v", "ls"], logging.INFO),
        (["ls", "-vv"], logging.DEBUG),
        (["ls", "-q"], logging.ERROR),
    ],
)
def test_messages_go_to_stderr(
    words: list[str], level: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    log = logging.getLogger("holdfast")
    assert log.level == level
    log.error("something")
    assert capsys.readouterr().err.endswith("holdfast: something\n")


# --- run --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ("h ls -l", ([], "h", ["ls", "-l"])),
        ("h -- ls -l", ([], "h", ["ls", "-l"])),
        ("-- h ls -l", ([], "h", ["ls", "-l"])),
        ("-- h -- ls", ([], "h", ["ls"])),
        ("-- -oX=y ls", ([], "-oX=y", ["ls"])),
        ("--cwd d h ls --cwd", (["--cwd", "d"], "h", ["ls", "--cwd"])),
        ("h --cwd d --tty ls", (["--cwd", "d", "--tty"], "h", ["ls"])),
        ("h --cwd=d ls", (["--cwd=d"], "h", ["ls"])),
        ("h -o A=b -oC=d ls", (["-o", "A=b", "-oC=d"], "h", ["ls"])),
        ("h echo -- x", ([], "h", ["echo", "--", "x"])),
        ("h -- --version", ([], "h", ["--version"])),
        ("h -n - x", (["-n"], "h", ["-", "x"])),
        ("--env A=1", (["--env", "A=1"], None, [])),
        ("--env", (["--env"], None, [])),
        ("--", ([], None, [])),
        ("", ([], None, [])),
    ],
)
def test_options_of_the_command_are_not_ours(
    argv: str, expected: tuple[list[str], Any, list[str]]
) -> None:
    assert run_verb.split(argv.split()) == expected


def test_every_option_of_run_with_a_value_is_known() -> None:
    parser = cli.verb_parser("run", importlib.import_module("holdfast.cli.verbs.run"))
    options = {
        name for action in parser._actions if action.nargs is None for name in action.option_strings
    }
    assert options == run_verb._OPTIONS_WITH_VALUE


def test_large_chunks_are_written_whole_to_a_slow_and_nonblocking_reader() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    data = os.urandom(500_000)
    received = bytearray()

    def read() -> None:
        while True:
            chunk = os.read(read_end, 7001)
            if not chunk:
                return
            received.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()
    run_verb.writer(write_end)(data)
    os.close(write_end)
    reader.join()
    os.close(read_end)
    assert received == data


def test_run_imports_nothing_that_it_does_not_need() -> None:
    code = (
        "import sys, holdfast.cli.main, holdfast.cli.verbs.run;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    unwanted = {"asyncio", "difflib", "pexpect", "sshconf", "tomli", "tqdm", "importlib_metadata"}
    assert not unwanted & set(done.stdout.split())


# --- closed streams ---------------------------------------------------------------------------


@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_do_no_harm(redirection: str) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f'"$0" -m holdfast ls {redirection}', sys.executable],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_ls_into_a_closed_pipe_is_quiet() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '{ "$0" -m holdfast --help; echo $? >&2; } | true', sys.executable],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert done.stderr.strip() in ("0", "141")  # whoever was first
