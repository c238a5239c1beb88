"""``holdfast run``: a remote command as if it ran here."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Callable, Optional

from ..arguments import add_host, connection, positive_seconds, variable

USAGE = "holdfast run HOST [options] [--] COMMAND ..."
DESCRIPTION = """\
Run a command on HOST over its open connection, which is made with one login if there is none.

Its output comes as it is written, byte for byte; it reads this command's stdin; its exit status
becomes this command's. The words of COMMAND are joined with spaces and read by the login shell
on HOST, as ssh does: quote what that shell is to see ('echo $HOME', 'a | b').
"""
EPILOG = """\
examples:
  holdfast run cluster1 squeue --me
  holdfast run cluster1 --cwd runs/42 'grep energy *.out | tail -1'
  holdfast run cluster1 --env OMP_NUM_THREADS=4 -- ./analyse --all
  holdfast run cluster1 'tar xz -C data' < data.tar.gz
  holdfast run cluster1 --tty top

exit status: that of the command. 255: holdfast itself failed, a signal ended the command, or it
timed out; stderr says which. 130: interrupted with ^C.
"""

_OPTIONS_WITH_VALUE = {"--cwd", "--env", "--timeout", "--config-file", "-o"}


def configure(parser: argparse.ArgumentParser) -> None:
    add_host(parser, optional=True)
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="for the login shell on HOST")
    parser.add_argument("--cwd", metavar="DIR", help="run it there; relative to the home directory")
    parser.add_argument(
        "--env",
        metavar="K=V",
        action="append",
        type=variable,
        default=[],
        help="add a variable; may be repeated. Others on HOST can see it: no place for secrets",
    )
    parser.add_argument(
        "--timeout",
        metavar="S",
        type=positive_seconds,
        help="seconds for everything: login, waiting for a session, the command",
    )
    parser.add_argument("--tty", action="store_true", help="give it a terminal, as ssh -t")
    parser.add_argument(
        "-n", "--no-stdin", action="store_true", help="empty stdin, as ssh -n (for shell loops)"
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Options stand before HOST or between it and COMMAND; what follows is COMMAND's own."""
    options, host, command = split(argv)
    args = parser.parse_args(options)
    if host is None:
        parser.error("HOST is missing")
    if not command:
        parser.error("COMMAND is missing; for a shell type: holdfast shell HOST")
    args.host, args.command = host, command
    return args


def split(argv: Sequence[str]) -> tuple[list[str], Optional[str], list[str]]:
    """(options, HOST, COMMAND). argparse would read the command's own options as ours."""
    options: list[str] = []
    host: Optional[str] = None
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            if host is None and words:
                host = words.pop(0)
                words = words[1:] if words[:1] == ["--"] else words
            break
        if word.startswith("-") and word != "-":
            options.append(word)
            if word in _OPTIONS_WITH_VALUE and words:
                options.append(words.pop(0))
        elif host is None:
            host = word
        else:
            words.insert(0, word)
            break
    return options, host, words


def main(args: argparse.Namespace) -> int:
    from holdfast.terminal import terminal_kept

    conn = connection(args)
    with terminal_kept() if args.tty else nullcontext():
        done = conn.run(
            " ".join(args.command),
            cwd=args.cwd,
            env=dict(args.env) or None,
            stdin=_stdin(args.no_stdin),
            timeout=args.timeout,
            text=False,
            pty=args.tty,
            on_stdout=writer(1),
            on_stderr=writer(2),
        )
    if done.signal:
        name = "a signal" if done.signal == "unknown" else done.signal
        print(f"holdfast: {name} ended the command on {conn.destination}", file=sys.stderr)
        return 255
    return done.returncode


def _stdin(empty: bool) -> Optional[int]:
    """The file to hand to ssh, None for nothing.

    A master sets O_NONBLOCK on the open file description that it is given, and a terminal's is
    also our stdout, and the calling shell's stdin: so it gets one of its own where that can be
    had.
    """
    if empty:
        return None
    try:
        if os.isatty(0):
            return os.open(os.ttyname(0), os.O_RDWR | os.O_NOCTTY)
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            # O_NONBLOCK: opening a named pipe would wait for a writer.
            return os.open("/proc/self/fd/0", os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        pass  # another user's terminal (su), or no /proc
    return 0


def writer(descriptor: int) -> Callable[[bytes], None]:
    """Writes whole chunks at once, unbuffered. BrokenPipeError (``| head``) ends the run."""

    def write(chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:  # somebody else has made our stdout non-blocking
                import select

                select.select([], [descriptor], [])

    return write
