"""``holdfast clean``: the sweep of what dead masters have left."""

from __future__ import annotations

import argparse
from typing import Any

from holdfast.openssh import control_path
from holdfast.openssh.mux_client import State
from holdfast.openssh.records import Records
from holdfast.openssh.sweep import Swept, sweep
from holdfast.settings import Settings

from ..arguments import add_json, positive_seconds
from ..output import duration, print_json

DESCRIPTION = """\
Remove what dead connections have left on this machine.

A socket that nobody listens on is removed at once. A master that holdfast has started and that has
not answered for a while is ended. Nothing else is touched: neither a connection that lives, nor
one that your own ssh has opened.
"""
EPILOG = """\
examples:
  holdfast clean
  holdfast clean --stale-timeout 5
  holdfast clean --json

exit status: 0.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stale-timeout",
        metavar="S",
        type=positive_seconds,
        help="a master that answers nothing for so many seconds is ended; "
        "default: the setting stale_timeout, 30",
    )
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    settings = Settings.load()
    stale_timeout = args.stale_timeout or settings.stale_timeout
    runtime = control_path.runtime_directory(settings.runtime_dir)
    records = Records(runtime)
    # Their records go with them: who they were must be known before.
    names = {name: record.destination for name in records.names() if (record := records.read(name))}
    report: list[dict[str, Any]] = []
    for name, swept in sweep(runtime, stale_timeout=stale_timeout):
        done, why = _told(swept, stale_timeout)
        report.append(
            {
                "destination": names.get(name),
                "control_path": swept.path,
                "done": done,
                "why": why,
                "ended_pid": swept.ended,
            }
        )
        if not args.json and done != "nothing":
            print(f"{names.get(name) or swept.path}: {done}: {why}")
    if args.json:
        print_json(report)
    elif all(row["done"] == "nothing" for row in report):
        print("nothing to clean")
    return 0


def _told(swept: Swept, stale_timeout: float) -> tuple[str, str]:
    """(what was done, why)."""
    if swept.ended is not None:
        return (
            "ended",
            f"its master (pid {swept.ended}) gave no answer for {duration(stale_timeout)}",
        )
    if swept.removed:
        return "removed", f"nobody listens on {swept.path} any more"
    if swept.state is State.STUCK:
        return "left", f"something on {swept.path} gives no answer, and holdfast has not started it"
    if swept.state is State.DEAD:
        return "left", f"{swept.path} is dead here, but another machine may have made it"
    if swept.state is State.FOREIGN:
        return "left", f"{swept.path} is no control socket of yours"
    return "nothing", "it has ended in good order"
