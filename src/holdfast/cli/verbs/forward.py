"""``holdfast forward``: ports of one side that lead to the other, until ^C."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from typing import Callable

from ..arguments import add_host, add_json, link
from ..output import print_json

DESCRIPTION = """\
Open forwards over the connection to HOST, which is made with one login if there is none, and keep
them until ^C.

Each is printed on a line of its own once it is open. Port 0 takes any free one. A path in place of
a port, or of a host and its port, is a unix socket. If the connection is lost, so are the forwards:
this command then ends with 255.
"""
EPILOG = """\
examples:
  holdfast forward cluster1 -L 8888:node17:8888         a notebook that runs on node17
  holdfast forward cluster1 -L 0:localhost:5432 --json  any free port here
  holdfast forward cluster1 -L ~/db.sock:db1:5432       a socket here that is yours alone
  holdfast forward cluster1 -R 0:localhost:9000         a port there that leads here
  holdfast forward cluster1 -D 1080                     a SOCKS proxy

exit status: 130 after ^C; 255 if a forward cannot be opened, or is lost.
"""

_SLICE = 1.0  # seconds; the forwards of one master end together, those of plain mode may not


def configure(parser: argparse.ArgumentParser) -> None:
    add_host(parser)
    for option, kind, form, text in (
        ("-L", "local", "[BIND:]PORT:HOST:PORT", "listen here, lead to what HOST reaches"),
        ("-R", "remote", "[BIND:]PORT:HOST:PORT", "listen there, lead to what this side reaches"),
        ("-D", "dynamic", "[BIND:]PORT", "a SOCKS proxy here, whose connections start there"),
    ):
        parser.add_argument(
            option,
            metavar=form,
            dest="forwards",
            type=_of_kind(kind),
            action="append",
            default=[],
            help=f"{text}, as ssh {option}; may be repeated",
        )
    add_json(parser)


def _of_kind(kind: str) -> Callable[[str], tuple[str, str]]:
    return lambda text: (kind, text)


def main(args: argparse.Namespace) -> int:
    from holdfast.errors import ConfigError, ConnectionLost
    from holdfast.forwards import open_forward
    from holdfast.openssh import forwarding

    if not args.forwards:
        raise ConfigError("name a forward: -L, -R or -D; holdfast forward --help has examples")
    wanted = [forwarding.parse(kind, text) for kind, text in args.forwards]
    way = link(args)
    with ExitStack() as stack:
        opened = [stack.enter_context(open_forward(way, one)) for one in wanted]
        if args.json:
            print_json(
                {
                    "destination": args.host,
                    "forwards": [
                        {
                            "kind": one.kind,
                            "listen": one.listen,
                            "port": one.port,
                            "target": one.target,
                        }
                        for one in opened
                    ],
                }
            )
        else:
            for one in opened:
                listens, makes = args.host, "this machine"
                if one.kind != "remote":
                    listens, makes = makes, listens
                print(f"{one.kind}: {one.listen} on {listens} -> {one.target}, from {makes}")
        sys.stdout.flush()
        while not any(one.wait(0) for one in opened):
            opened[0].wait(_SLICE)
    raise ConnectionLost(f"the connection to {args.host} was lost, and its forwards with it")
