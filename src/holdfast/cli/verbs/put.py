"""``holdfast put``: files to the host."""

from __future__ import annotations

import argparse

from ..arguments import add_host, connection

DESCRIPTION = """\
Copy a file or directory to HOST, over its open connection, as cp -r would.

File names arrive as they are: no shell reads them, neither here nor there.
"""
EPILOG = """\
examples:
  holdfast put cluster1 input.nc                 to the home directory
  holdfast put cluster1 input.nc runs/42/        into a directory that exists
  holdfast put cluster1 results runs/43          a directory, under a new name
  holdfast put cluster1 -- -odd-name- .

exit status: 0, or 255 with the reason on stderr.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_host(parser)
    parser.add_argument("local", metavar="LOCAL", help="a file or directory of this machine")
    parser.add_argument(
        "remote",
        metavar="REMOTE",
        nargs="?",
        default=".",
        help="its new path, or a directory to put it into; default: the home directory",
    )
    parser.add_argument("-p", "--preserve", action="store_true", help="keep modes and times")


def main(args: argparse.Namespace) -> int:
    connection(args).put(args.local, args.remote, preserve=args.preserve)
    return 0
