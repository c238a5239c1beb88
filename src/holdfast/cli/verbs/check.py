"""``holdfast check``: whether a connection is open."""

from __future__ import annotations

import argparse
import time

from holdfast.errors import HoldfastError

from ..arguments import add_host, add_json, command_to_type, connection, link, positive_seconds
from ..output import print_json

DESCRIPTION = """\
Tell whether the connection to HOST is open. Never logs in.

The master is on this machine and knows nothing of the network; --deep asks the far side, too.
"""
EPILOG = """\
examples:
  holdfast check cluster1
  holdfast check cluster1 --deep
  holdfast check cluster1 -q || holdfast open cluster1

exit status: 0 if it is open, 1 if not, 255 if HOST or the configuration cannot be right.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_host(parser)
    parser.add_argument("--deep", action="store_true", help="also run `true` on HOST")
    parser.add_argument(
        "--timeout", metavar="S", type=positive_seconds, default=10.0, help="for --deep; default 10"
    )
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    ours = link(args)
    no_sharing = ours.why_no_sharing()
    master = None if no_sharing else ours.control_master().find()
    alive, detail, round_trip = master is not None, "", None
    if no_sharing:
        detail = f"connections cannot be shared here: {no_sharing}"
    elif master is None:
        detail = f"open it: {command_to_type('open', args)}"
    elif args.deep:
        begin = time.monotonic()
        try:
            # A moment ago there was a master, so this logs in only if it ended just now.
            connection(args).run("true", timeout=args.timeout)
            round_trip = time.monotonic() - begin
            detail = f"the far side answers in {round_trip * 1000:.0f} ms"
        except HoldfastError as error:
            alive, detail = False, f"its master lives (pid {master.pid}), but {error}"
    else:
        detail = f"pid {master.pid}" + ("" if master.ours else ", opened by your own ssh")
    if args.json:
        print_json(
            {
                "destination": args.host,
                "alive": alive,
                "pid": master.pid if master else None,
                "ours": master.ours if master else None,
                "control_path": master.control_path if master else None,
                "seconds": round_trip,
                "detail": detail,
            }
        )
    elif not args.quiet:
        print(f"{args.host} is {'open' if alive else 'not open'}; {detail}")
    return 0 if alive else 1
