"""``holdfast doctor``: what works, what does not, and what to do."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict

from ..arguments import add_host, add_json, first_values
from ..doctor_local import FAIL, WARN, Check
from ..output import plural, print_json

DESCRIPTION = """\
Tell what works, what does not, and what to do about it.

Without HOST nothing leaves this machine. With HOST one login is made, if the connection is not
open already, and everything else goes over it; the connection stays open.
"""
EPILOG = """\
examples:
  holdfast doctor
  holdfast doctor cluster1
  holdfast doctor cluster1 --json      to paste into a bug report

exit status: 0 if nothing failed (warnings are no failures), else 1.
"""

_COLOURS = {"ok": "32", "warn": "33", "fail": "31"}
_WIDTH = 19  # of the longest name and two spaces


def configure(parser: argparse.ArgumentParser) -> None:
    add_host(parser, optional=True)
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    found: list[dict[str, str]] = []
    section = None
    for where, check in _all(args):
        found.append({"where": where, **asdict(check)})
        if args.json:
            continue
        if where != section:
            print(where if section is None else f"\n{where}")
            section = where
        _print(check)
    failed = sum(1 for check in found if check["status"] == FAIL)
    warned = sum(1 for check in found if check["status"] == WARN)
    if args.json:
        print_json({"ok": not failed, "checks": found})
    elif failed or warned:
        print(f"\n{plural(failed, 'failure')}, {plural(warned, 'warning')}")
    else:
        print("\nall is well")
    return 1 if failed else 0


def _all(args: argparse.Namespace) -> Iterator[tuple[str, Check]]:
    from .. import doctor_local

    broken = False
    for check in doctor_local.checks(args.config_file):
        broken = broken or check.status == FAIL
        yield "this machine", check
    if args.host is None:
        return
    if broken:
        yield args.host, Check("login", WARN, "not tried, as this machine is not ready")
        return
    from holdfast.settings import Settings

    from .. import doctor_host

    options = first_values(args.options)
    for check in doctor_host.checks(args.host, args.config_file, options, Settings.load()):
        yield args.host, check


def _print(check: Check) -> None:
    status = f"{check.status.upper() if check.status == FAIL else check.status:4}"
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        status = f"\033[{_COLOURS[check.status]}m{status}\033[0m"
    indent = " " * (2 + 4 + 2)
    detail = check.detail.replace("\n", "\n" + indent + " " * _WIDTH)
    print(f"  {status}  {check.name:{_WIDTH}}{detail}", flush=True)
    if check.advice:
        print(f"{indent}{'':{_WIDTH}}-> {check.advice}")
