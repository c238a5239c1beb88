"""``holdfast demo``: one login against fifty."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from holdfast import demo

from ..arguments import add_host, add_json, first_values
from ..output import print_json

DESCRIPTION = f"""\
Show what holdfast does, in a minute: one login, {demo.COMMANDS} commands, a directory there and back
compared byte for byte, the same commands by plain ssh, and everything cleaned up.

Without HOST it runs against a real SSH server of its own, without port or root; neither ~/.ssh
nor an open connection is touched. With HOST it uses your own settings, and logs in
{demo.PLAIN_REMOTE} times by plain ssh: sites may count logins, and --plain 0 leaves that out.
"""
EPILOG = """\
examples:
  holdfast demo
  holdfast demo cluster1
  holdfast demo cluster1 --plain 0

exit status: 0; 1 if something was left behind; 255 with the reason on stderr.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_host(parser, optional=True)
    parser.add_argument(
        "--plain",
        metavar="N",
        type=_count,
        help=f"logins by plain ssh, to compare; default {demo.PLAIN_LOCAL}, "
        f"with HOST {demo.PLAIN_REMOTE}",
    )
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    def say(line: str) -> None:
        if not args.json:
            print(line, flush=True)

    if args.host is not None:
        result = demo.remote(
            args.host,
            say,
            plain=demo.PLAIN_REMOTE if args.plain is None else args.plain,
            config_file=args.config_file,
            options=first_values(args.options),
        )
    else:
        result = demo.local(say, plain=demo.PLAIN_LOCAL if args.plain is None else args.plain)
    if args.json:
        print_json({**asdict(result), "ratio": result.ratio})
    else:
        print("", *demo.summary(result), sep="\n")
    return 1 if result.left else 0


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return int(text)
