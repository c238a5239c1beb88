"""Arguments that several verbs share, and what is made of them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.connection import Connection
    from holdfast.link import Link

HOST_HELP = "what ssh takes: an alias of ssh_config, [user@]host[:port], or an ssh:// URI"


def add_logging_options(parser: argparse.ArgumentParser) -> None:
    """``-v`` and ``-q``, which every verb has."""
    group = parser.add_argument_group("messages, on stderr")
    group.add_argument(
        "-v",
        "--verbose",
        action="count",
        default=0,
        help="tell about logins and the like; twice: everything",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="errors only, no warnings")


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """``--config-file`` and ``-o``, for verbs that talk to a host."""
    group = parser.add_argument_group("ssh")
    group.add_argument("--config-file", metavar="FILE", help="instead of ~/.ssh/config, as ssh -F")
    group.add_argument(
        "-o",
        dest="options",
        metavar="KEY=VALUE",
        action="append",
        type=_option,
        default=[],
        help="an option of ssh_config(5), as ssh -o; may be repeated",
    )


def add_host(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """HOST, and the options of its connection."""
    parser.add_argument(
        "host", metavar="HOST", nargs="?" if optional else None, help=HOST_HELP, default=None
    )
    add_connection_options(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document")


def positive_seconds(text: str) -> float:
    """An argparse type."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return seconds


def variable(text: str) -> tuple[str, str]:
    """An argparse type: ``NAME=VALUE``."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _option(text: str) -> tuple[str, str]:
    # ssh takes "Key=Value" and "Key Value".
    key, equals, value = text.partition("=")
    if not equals:
        key, equals, value = text.strip().partition(" ")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key.strip(), value.strip()


def connection(args: argparse.Namespace) -> Connection:
    """The connection that the arguments name; not opened yet."""
    from holdfast.connection import Connection

    return Connection(args.host, config_file=args.config_file, options=first_values(args.options))


def link(args: argparse.Namespace) -> Link:
    """The same, for verbs that look at masters and never run anything."""
    from holdfast.link import Link

    return Link(args.host, "main", args.config_file, first_values(args.options), settings=None)


def command_to_type(verb: str, args: argparse.Namespace) -> str:
    """What a human types to have another verb done to the same connection."""
    import shlex

    words = ["holdfast", verb]
    if args.config_file:
        words += ["--config-file", args.config_file]
    for key, value in args.options:
        words += ["-o", f"{key}={value}"]
    return " ".join(shlex.quote(word) for word in [*words, args.host])


def first_values(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """As in ssh, the first value of a keyword wins."""
    values: dict[str, str] = {}
    for key, value in pairs:
        if key.lower() not in {known.lower() for known in values}:
            values[key] = value
    return values
