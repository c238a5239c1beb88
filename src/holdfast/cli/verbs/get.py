"""``holdfast get``: files from the host."""

from __future__ import annotations

import argparse

from ..arguments import add_host, connection

DESCRIPTION = """\
Copy a file or directory from HOST, over its open connection, as cp -r would.

File names arrive as they are: no shell reads them, and * is a star.
"""
EPILOG = """\
examples:
  holdfast get cluster1 runs/42/result.nc        into the current directory
  holdfast get cluster1 runs/42 results          a directory, under a new name
  holdfast get cluster1 --preserve runs/42/log .

exit status: 0, or 255 with the reason on stderr.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_host(parser)
    parser.add_argument("remote", metavar="REMOTE", help="relative to the home directory")
    parser.add_argument(
        "local",
        metavar="LOCAL",
        nargs="?",
        default=".",
        help="its new path, or a directory to put it into; default: the current directory",
    )
    parser.add_argument("-p", "--preserve", action="store_true", help="keep modes and times")


def main(args: argparse.Namespace) -> int:
    connection(args).get(args.remote, args.local, preserve=args.preserve)
    return 0
