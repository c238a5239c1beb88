"""``holdfast open``: the one login, by a human if need be."""

from __future__ import annotations

import argparse

from ..arguments import add_host, add_json, command_to_type, connection, link
from ..output import duration, print_json

DESCRIPTION = """\
Log in to HOST and keep the connection open for every later command, of any program.

ssh itself asks on this terminal for what it needs: password, one-time code, passphrase, an unknown
host key. Nothing happens if the connection is open already.
"""
EPILOG = """\
examples:
  holdfast open cluster1
  holdfast open alice@login2.example.org:2222
  holdfast open cluster1 --json

exit status: 0 if the connection is open, 255 if not.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_host(parser)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    logged_in = connection(args).open_interactively()
    control_master = link(args).control_master()
    master = control_master.find()
    if master is None:
        from holdfast.errors import ConnectionLost

        raise ConnectionLost(f"the connection to {args.host} was gone at once", started=False)
    persist = control_master.spec.persist if master.ours else None
    if args.json:
        print_json(
            {
                "destination": args.host,
                "logged_in": logged_in,
                "ours": master.ours,
                "pid": master.pid,
                "control_path": master.control_path,
                "persist": persist,
            }
        )
        return 0
    kept = (
        "as long as your own ssh keeps it"
        if persist is None
        else "until it is closed"
        if persist == 0
        else f"until {duration(persist)} after its last command"
    )
    how = "is open" if logged_in else "was open already"
    end = f"; close it: {command_to_type('close', args)}" if master.ours else ""
    print(f"{args.host} {how}, {kept}{end}")
    return 0
