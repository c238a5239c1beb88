"""``holdfast shell``: this terminal on the far side."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from ..arguments import add_host, connection
from .run import split

USAGE = "holdfast shell HOST [options] [--] [COMMAND ...]"
DESCRIPTION = """\
A shell on HOST, or a COMMAND that wants a terminal, over the open connection.

If there is none, ssh logs in on this terminal first, asks what it has to ask, and the login is kept
open for later. Keys, ^C and the size of the window go to the far side. The words of COMMAND are
joined with spaces and read by the login shell on HOST, as ssh does.
"""
EPILOG = """\
examples:
  holdfast shell cluster1
  holdfast shell cluster1 top
  holdfast shell cluster1 'cd runs/42 && less job.out'
  holdfast shell cluster1 salloc --ntasks 4

exit status: that of the shell or command. 255: holdfast itself failed, or a signal or a hangup
ended it; stderr says which.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_host(parser, optional=True)
    parser.add_argument("command", metavar="COMMAND", nargs="*", help="default: the login shell")


def parse(parser: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """Options stand before HOST or between it and COMMAND; what follows is COMMAND's own."""
    options, host, command = split(argv)
    args = parser.parse_args(options)
    if host is None:
        parser.error("HOST is missing")
    args.host, args.command = host, command
    return args


def main(args: argparse.Namespace) -> int:
    from holdfast.errors import MultiplexingUnsupported

    conn = connection(args)
    if os.isatty(0):
        with suppress(MultiplexingUnsupported):  # interact asks as well, or says why not
            conn.open_interactively()
    status = conn.interact(" ".join(args.command) or None)
    if status < 0:
        print(f"holdfast: a signal or a hangup ended it on {conn.destination}", file=sys.stderr)
        return 255
    return status
