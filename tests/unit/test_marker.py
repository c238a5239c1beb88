from __future__ import annotations

import os
import subprocess
import threading
import time
from typing import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.marker import Identity, MarkedPipe, is_posix, marked, new_nonce

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]
NONCE = "holdfast-0123456789abcdef"
LINE = f"{NONCE} 12 34 /bin/bash\n".encode()
WHO = Identity(12, 34, "/bin/bash")


def _read(*chunks: bytes) -> tuple[bytes, MarkedPipe]:
    """All that comes out when the chunks come in one by one, never two in one read."""
    reader, writer = os.pipe()
    pipe = MarkedPipe(reader, NONCE)
    out = b""
    for chunk in chunks:
        if chunk:
            os.write(writer, chunk)
            out += pipe.read_available() or b""
    os.close(writer)
    while True:
        piece = pipe.read_available()
        if piece == b"":
            break
        out += piece or b""
    pipe.close()
    return out, pipe


@pytest.mark.parametrize("shell_known", [True, False])
@pytest.mark.parametrize("to_stderr", [True, False])
def test_every_shell_tells_who_it_is_before_the_command(
    shell: str, in_shell: Run, shell_known: bool, to_stderr: bool
) -> None:
    text = marked(
        "echo out; exit 7", NONCE, shell=shell if shell_known else "", to_stderr=to_stderr
    )
    done = in_shell(text)
    assert done.returncode == 7
    told, other = (done.stderr, done.stdout) if to_stderr else (done.stdout, b"out\n")
    rest, pipe = _read(told)
    assert (rest, other) == (b"" if to_stderr else b"out\n", b"out\n")
    assert pipe.found is not None
    assert (pipe.found.parent, pipe.found.shell) == (os.getpid(), shell)


def test_the_command_is_the_process_that_was_told(shell: str, in_shell: Run) -> None:
    pid = "$fish_pid" if shell.endswith("fish") else "$$"
    for known in (shell, ""):
        done = in_shell(marked(f"echo {pid}", NONCE, shell=known))
        found = _read(done.stderr)[1].found
        assert found is not None
        assert found.pid == int(done.stdout)


def test_the_shells_of_the_bourne_family_are_known() -> None:
    assert [
        name for name in ("/bin/bash", "sh", "/usr/bin/zsh", "ksh93") if not is_posix(name)
    ] == []
    assert [name for name in ("/bin/tcsh", "fish", "", "/x/bash/nu") if is_posix(name)] == []


def test_a_nonce_is_one_word_and_new_each_time() -> None:
    assert len({new_nonce() for _ in range(50)}) == 50
    assert new_nonce().replace("-", "").isalnum()


@pytest.mark.parametrize(
    ("data", "rest"),
    [
        (LINE, b""),
        (LINE + b"out", b"out"),
        (b"noise of rc files\n" + LINE + b"out", b"noise of rc files\nout"),
        (b"no newline" + LINE, b"no newline"),
        (b"hold" + LINE + b"holdfast-", b"holdholdfast-"),
    ],
)
def test_the_line_does_not_come_out_and_all_else_does(data: bytes, rest: bytes) -> None:
    out, pipe = _read(data)
    assert (out, pipe.found) == (rest, WHO)


@pytest.mark.parametrize("data", [b"", b"out", b"holdfast-", NONCE.encode(), LINE[:-1], b"hhh"])
def test_without_the_line_everything_comes_out(data: bytes) -> None:
    out, pipe = _read(data)
    assert out == data
    assert pipe.found is None


@pytest.mark.parametrize("words", ["", "12", "12 34", "x 34 /bin/sh", "12 x /bin/sh", "-1 2 sh"])
def test_a_line_that_tells_nothing_is_nobody(words: str) -> None:
    assert _read(f"{NONCE} {words}\n".encode())[1].found is None


@given(
    before=st.binary(max_size=12) | st.sampled_from([b"hold", NONCE.encode(), b"h" * 30]),
    after=st.binary(max_size=12) | st.sampled_from([b"hold", LINE]),
    cuts=st.lists(st.integers(0, 90), max_size=8),
)
@example(before=b"", after=b"out", cuts=[len(LINE) - 1])  # the line without its end ends in h
def test_however_the_stream_is_cut_it_comes_out_without_the_line(
    before: bytes, after: bytes, cuts: list[int]
) -> None:
    data = before + LINE + after
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    out, pipe = _read(*(data[a:b] for a, b in zip(places, places[1:])))
    assert (out, pipe.found) == (before + after, WHO)


def test_what_comes_before_the_line_is_not_held_back() -> None:
    reader, writer = os.pipe()
    pipe = MarkedPipe(reader, NONCE)
    os.write(writer, b"banner of the rc file\n")
    assert pipe.read_available() == b"banner of the rc file\n"
    os.close(writer)
    pipe.close()
    pipe.close()


def test_small_buffers_are_filled_piece_by_piece() -> None:
    reader, writer = os.pipe()
    os.write(writer, LINE + b"0123456789")
    os.close(writer)
    with MarkedPipe(reader, NONCE) as pipe:
        assert [pipe.read(4), pipe.read(4), pipe.read(4), pipe.read(4)] == [
            b"0123",
            b"4567",
            b"89",
            b"",
        ]


def test_the_identity_is_waited_for_and_the_output_is_kept() -> None:
    reader, writer = os.pipe()
    pipe = MarkedPipe(reader, NONCE)
    begin = time.monotonic()
    assert pipe.identity(begin + 0.1) is None
    assert time.monotonic() - begin < 2
    timer = threading.Timer(0.1, os.write, (writer, b"before" + LINE + b"after"))
    timer.start()
    assert pipe.identity(time.monotonic() + 5) == WHO
    timer.join()
    os.close(writer)
    assert pipe.read() == b"beforeafter"
    pipe.close()
    assert pipe.identity(time.monotonic() + 5) == WHO
