"""``holdfast hosts``: the hosts of ssh_config, listed and edited."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from holdfast import hosts
from holdfast.errors import ConfigError

from ..arguments import add_json, add_logging_options
from ..output import print_json, table

DESCRIPTION = """\
List and edit the hosts of ~/.ssh/config, and of the files that it includes.

An edit changes the lines in question and nothing else; ssh checks the result before it replaces
the file. KEY is any option of ssh_config(5).
"""
EPILOG = """\
examples:
  holdfast hosts list
  holdfast hosts show cluster1
  holdfast hosts add cluster1 HostName=login.cluster1.org User=alice ProxyJump=gate
  holdfast hosts set cluster1 User=bob Port=            (a key without value is removed)
  holdfast hosts rename cluster1 big
  holdfast hosts remove big

exit status: 0, or 255 with the reason on stderr.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, help: str, *words: str) -> None:
        sub = actions.add_parser(
            name, help=help, description=help, epilog=EPILOG, prog=f"holdfast hosts {name}"
        )
        for word in words:
            sub.add_argument(word, metavar=word.upper())
        if name in ("add", "set"):
            sub.add_argument(
                "options",
                metavar="KEY=VALUE",
                nargs="+" if name == "set" else "*",
                type=_option,
                help="an option of ssh_config(5); once for each value of a key",
            )
        sub.add_argument("--config-file", metavar="FILE", help="instead of ~/.ssh/config")
        add_json(sub)
        add_logging_options(sub)

    action("list", "list every host that the configuration names")
    action("show", "show one host", "name")
    action("add", "add a host", "name")
    action("set", "change, add or remove options of a host", "name")
    action("remove", "remove a host", "name")
    action("rename", "give a host another name", "name", "new_name")


def main(args: argparse.Namespace) -> int:
    file = args.config_file
    if args.action == "list":
        _print_list(hosts.list_hosts(file), args.json)
        return 0
    if args.action == "remove":
        hosts.remove_host(args.name, file)
        _print_done({"removed": args.name}, f"removed {args.name}", args.json)
        return 0
    if args.action == "show":
        entry = hosts.get_host(args.name, file)
    elif args.action == "add":
        entry = hosts.add_host(args.name, file, **_collected(args.options))
    elif args.action == "set":
        entry = hosts.set_host(args.name, file, **_collected(args.options))
    else:
        entry = hosts.rename_host(args.name, args.new_name, file)
    words = "\n".join(
        f"{key:14}{value}" for key, value in asdict(entry).items() if value is not None
    )
    _print_done(asdict(entry), words, args.json)
    return 0


def _option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    # As it will stand in the file: "Hostname", where "hostname" was typed.
    key = key.strip().replace("_", "")
    if not equals or not key:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key[:1].upper() + key[1:], value.strip()


def _collected(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """Keyword arguments; None removes a key, a list gives it several lines."""
    values: dict[str, list[str]] = {}
    for key, value in pairs:
        values.setdefault(key, []).append(value)
    for key, given in values.items():
        if "" in given and len(given) > 1:
            raise ConfigError(f"{key}: with a value and without one at once")
    return {
        key: None if given == [""] else given[0] if len(given) == 1 else given
        for key, given in values.items()
    }


def _print_list(entries: list[hosts.HostEntry], as_json: bool) -> None:
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    if not entries:
        print("the configuration names no hosts")
        return
    header = ["NAME", "HOSTNAME", "USER", "PORT", "PROXYJUMP", "IDENTITY FILE"]
    rows = [
        [
            entry.name,
            entry.hostname,
            entry.user or "-",
            entry.port,
            entry.proxyjump or "-",
            entry.identity_file or "-",
        ]
        for entry in entries
    ]
    if len({entry.source for entry in entries}) > 1:
        header.append("SOURCE")
        rows = [[*row, entry.source] for row, entry in zip(rows, entries)]
    print(table(header, rows))


def _print_done(document: dict[str, Any], words: str, as_json: bool) -> None:
    if as_json:
        print_json(document)
    else:
        print(words)
