"""``holdfast config``: the settings in force, and the drop-in for plain ssh."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from typing import Any, Optional

from holdfast.openssh import config as ssh_config
from holdfast.openssh import control_path
from holdfast.settings import VARIABLES, Settings, config_path, sources

from ..arguments import add_connection_options, add_json, add_logging_options, link
from ..output import duration, print_json, table

DESCRIPTION = """\
Show the settings in force, or have plain ssh, scp, rsync and git share connections.
"""
EPILOG = """\
examples:
  holdfast config show               every setting, and where it comes from
  holdfast config show cluster1      also what ssh will use for cluster1
  holdfast config install            shows the change of ~/.ssh/config, then asks
  holdfast config install --yes      does not ask
  holdfast config uninstall          undoes it

exit status: 0; 1 if you said no; 255 with the reason on stderr.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, help: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = actions.add_parser(
            name, help=help, description=help, epilog=EPILOG, prog=f"holdfast config {name}"
        )
        return sub

    show = action("show", "show the settings in force, and what ssh will use for HOST")
    show.add_argument("host", metavar="HOST", nargs="?")
    add_connection_options(show)
    install = action("install", "have plain ssh, scp, rsync and git share connections")
    uninstall = action("uninstall", "undo config install")
    for sub in (install, uninstall):
        sub.add_argument("--config-file", metavar="FILE", help="instead of ~/.ssh/config")
        sub.add_argument("--yes", action="store_true", help="do it without asking")
        sub.add_argument("--dry-run", action="store_true", help="only show the change")
    for sub in (show, install, uninstall):
        add_json(sub)
        add_logging_options(sub)


def main(args: argparse.Namespace) -> int:
    return _show(args) if args.action == "show" else _change(args)


def _show(args: argparse.Namespace) -> int:
    settings, origins = Settings.load(), sources()
    rows: list[dict[str, Any]] = [
        {
            "name": field.name,
            "value": getattr(settings, field.name),
            "from": origins.get(field.name, "default"),
            "variable": VARIABLES.get(field.name),
        }
        for field in fields(Settings)
    ]
    found = effective(args) if args.host is not None else None
    if args.json:
        print_json({"file": str(config_path()), "settings": rows, "host": found})
        return 0
    print(f"settings; the file is {config_path()}\n")
    print(
        table(
            ["SETTING", "VALUE", "FROM", "VARIABLE"],
            [
                [row["name"], _shown(row["value"]), row["from"], row["variable"] or "-"]
                for row in rows
            ],
        )
    )
    if found is not None:
        print(f"\n{args.host}, by your ssh configuration\n")
        persist = found.pop("persist")
        found["persist"] = duration(persist) if persist else "until it is closed"
        for name, value in found.items():
            print(f"{name.replace('_', ' '):18}{_shown(value)}")
    return 0


def effective(args: argparse.Namespace) -> dict[str, Any]:
    """What ssh and holdfast will use for HOST."""
    ours = link(args)
    found = ssh_config.resolve(
        ours.ssh, ours.destination, config_file=ours.config_file, options=ours.options
    )
    control_master = ours.control_master()
    spec = control_master.spec
    live = control_master.find()
    if live is not None:
        path, whose = live.control_path, "open now"
    elif spec.user_path and control_path.why_unusable(spec.user_path) is None:
        path, whose = spec.user_path, "your ControlPath, shared with plain ssh"
    else:
        path, whose = spec.own_path, why_own(found.control_path, spec.user_path)
    interval = found.server_alive_interval or ours.settings.keepalive_interval
    count = (
        int(found.get("serveralivecountmax", "3"))
        if found.server_alive_interval
        else ours.settings.keepalive_count
    )
    return {
        "user": found.user,
        "hostname": found.hostname,
        "port": found.port,
        "proxyjump": found.proxy_jump,
        "proxycommand": found.get("proxycommand") or None,
        "control_path": path,
        "control_path_why": whose,
        "keepalive": f"{interval} s x {count}",
        "persist": spec.persist,
    }


def why_own(configured: Optional[str], user_path: Optional[str]) -> str:
    """Why a master of ours listens on a path of holdfast's own."""
    if configured is None:
        return "holdfast's own, as ssh_config sets no ControlPath"
    if user_path is None:
        return f"holdfast's own, as {configured} stands for another connection"
    return f"holdfast's own, as {configured} {control_path.why_unusable(configured)}"


def _change(args: argparse.Namespace) -> int:
    from holdfast import ssh_include

    make = ssh_include.install if args.action == "install" else ssh_include.uninstall
    plan = make(args.config_file)
    agreed = bool(plan) and not args.dry_run and (args.yes or _agreed(plan.diff(), args.json))
    if agreed:
        plan.apply()
    if args.json:
        print_json({"changed": agreed, "needed": bool(plan), "diff": plan.diff()})
        return 0 if agreed or args.dry_run or not plan else 1
    if not plan:
        print("nothing to change: " + _state(args.action == "install"))
        return 0
    if args.yes or args.dry_run:
        print(plan.diff(), end="")
    if args.dry_run:
        print("nothing was changed")
        return 0
    print(_state(args.action == "install") if agreed else "nothing was changed")
    return 0 if agreed else 1


def _agreed(diff: str, as_json: bool) -> bool:
    """Show the change and ask a human; without one nothing is changed."""
    if as_json:
        return False
    print(diff)
    if not sys.stdin.isatty():
        print("holdfast: no terminal to ask on; --yes does it", file=sys.stderr)
        return False
    try:
        return input("Change this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        print()
        return False


def _state(installed: bool) -> str:
    return (
        "plain ssh, scp, rsync and git share connections (undo: holdfast config uninstall)"
        if installed
        else "plain ssh goes its own way, as before"
    )


def _shown(value: object) -> str:
    return "-" if value is None else str(value)
