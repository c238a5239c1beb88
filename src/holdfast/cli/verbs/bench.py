"""``holdfast bench``: what a command costs over the connection to a host of the user's."""

from __future__ import annotations

import argparse
import math
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from holdfast.errors import ConnectionLost, HoldfastError, MultiplexingUnsupported
from holdfast.openssh import command as ssh_command

from ..arguments import add_host, add_json, connection, link
from ..output import plural, print_json

if TYPE_CHECKING:
    from holdfast.connection import Connection
    from holdfast.link import Link
    from holdfast.openssh.control_master import Master

COMMANDS = 120
FEWEST = 30
AT_ONCE = 10  # OpenSSH's own MaxSessions
_ROUNDS = 5
_CHECKS = 100  # of is_alive, which is local
_TIMEOUT = 60.0  # seconds for one command, whatever the network does

DESCRIPTION = f"""\
Measure what a command costs on HOST: by holdfast, by an ssh process each over the same open
connection, in a shell kept open, and {AT_ONCE} at once. The command is `true`.

It logs in once if HOST is not open yet, and stops rather than log in again. The connection stays
open. The ways take turns, so that a busy network or machine falls on all of them.
"""
EPILOG = """\
examples:
  holdfast bench cluster1
  holdfast bench cluster1 --commands 60
  holdfast bench cluster1 --json > bench.json

times in JSON are seconds. The round trip is the fastest answer of the shell kept open.

exit status: 0, or 255 with the reason on stderr.
"""


@dataclass
class Result:
    """What was measured; times in seconds.

    :ivar logins: that this took: 0 or 1. :ivar commands: on the far side.
    :ivar times: way -> of each command. :ivar skipped: way -> why it could not be measured.
    :ivar per_second: commands that ended, AT_ONCE at once. :ivar together: how many those were.
    :ivar refused: sessions that the server refused meanwhile; they were waited for.
    """

    destination: str
    logins: int = 0
    commands: int = 0
    times: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    per_second: Optional[float] = None
    together: int = 0
    refused: int = 0

    @property
    def round_trip(self) -> Optional[float]:
        return min(self.times["shell"]) if self.times.get("shell") else None


def configure(parser: argparse.ArgumentParser) -> None:
    add_host(parser)
    parser.add_argument(
        "--commands",
        metavar="N",
        type=_commands,
        default=COMMANDS,
        help=f"about so many in all, at least {FEWEST}; default {COMMANDS}",
    )
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    result = measure(connection(args), link(args), args.commands)
    if args.json:
        print_json(document(result))
    else:
        print("\n".join(report(result)))
    return 0


def measure(conn: Connection, ours: Link, commands: int) -> Result:
    """:param ours: of the same destination. :param commands: in all, about."""
    reason = ours.why_no_sharing()
    if reason:
        raise MultiplexingUnsupported(
            f"every command would log in to {ours.name}, as connections cannot be shared: {reason}"
        )
    result = Result(ours.name)
    master = ours.control_master().ensure()
    result.logins = int(master.started)
    argv = ssh_command.run_over_master(
        ours.ssh,
        ours.destination,
        "true",
        control_path=master.control_path,
        log=None,
        config_file=ours.config_file,
        options=ours.session_options(),
    )

    def guarded(call: Callable[[], int]) -> float:
        """Seconds. That a master ends between the look and the call is as good as never."""
        _must_live(ours, master)
        begin = time.monotonic()
        status = call()
        taken = time.monotonic() - begin
        if status != 0:
            raise HoldfastError(f"`true` ended with status {status} on {ours.name}")
        return taken

    def run() -> int:
        return conn.run("true", timeout=_TIMEOUT).returncode

    guarded(run)  # the first one learns the login shell
    result.commands += 1
    each = commands // (4 * _ROUNDS)
    for _ in range(_ROUNDS):
        _add(result, "run", lambda: [guarded(run) for _ in range(each)], each)
        _add(result, "ssh", lambda: [guarded(lambda: _ssh(argv)) for _ in range(each)], each)
        _add(result, "shell", lambda: _in_shell(conn, ours, master, each), each + 1)
    result.together = max(AT_ONCE, commands - result.commands)
    refused = conn.stats().refused
    begin = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(lambda _: guarded(run), range(result.together)):
            pass
    result.per_second = result.together / (time.monotonic() - begin)
    result.refused = conn.stats().refused - refused
    result.commands += result.together
    _add(result, "is_alive", lambda: [guarded(lambda: not conn.is_alive()) for _ in range(_CHECKS)])
    return result


def _add(result: Result, way: str, times: Callable[[], list[float]], commands: int = 0) -> None:
    """One round of one way. One that fails is left out from then on; with the connection, all ends."""
    if way in result.skipped:
        return
    try:
        result.times.setdefault(way, []).extend(times())
        result.commands += commands
    except ConnectionLost:
        raise
    except (HoldfastError, subprocess.TimeoutExpired) as error:
        result.skipped[way] = str(error)
        result.times.pop(way, None)


def _must_live(ours: Link, master: Master) -> None:
    found = ours.control_master().find()
    if found is None or found.pid != master.pid:
        raise ConnectionLost(
            f"the connection to {ours.name} ended meanwhile; this would log in again, and stops",
            started=False,
        )


def _ssh(argv: Sequence[str]) -> int:
    null = subprocess.DEVNULL
    return subprocess.run(argv, stdin=null, stdout=null, stderr=null, timeout=_TIMEOUT).returncode


def _in_shell(conn: Connection, ours: Link, master: Master, count: int) -> list[float]:
    """Of each command but the first, which waits for the shell to start."""
    _must_live(ours, master)
    times = []
    with conn.shell() as shell:
        shell.run("true", timeout=_TIMEOUT)
        for _ in range(count):
            begin = time.monotonic()
            shell.run("true", timeout=_TIMEOUT)
            times.append(time.monotonic() - begin)
    return times


def quantile(numbers: Sequence[float], share: float) -> float:
    """The number below which that share of them lies, between two where it falls between."""
    ordered = sorted(numbers)
    place = share * (len(ordered) - 1)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low + (high - low) * (place - math.floor(place))


def document(result: Result) -> dict[str, Any]:
    """For ``--json``."""
    run, ssh = result.times.get("run"), result.times.get("ssh")
    return {
        "destination": result.destination,
        "logins": result.logins,
        "commands": result.commands,
        "round_trip": result.round_trip,
        "ways": {
            way: {
                "count": len(times),
                "median": quantile(times, 0.5),
                "p90": quantile(times, 0.9),
                "min": min(times),
            }
            for way, times in result.times.items()
        },
        "run_over_ssh": quantile(run, 0.5) / quantile(ssh, 0.5) if run and ssh else None,
        "at_once": {
            "limit": AT_ONCE,
            "count": result.together,
            "per_second": result.per_second,
            "refused": result.refused,
        },
        "skipped": result.skipped,
    }


_TITLES = {
    "run": "holdfast run",
    "ssh": "ssh -S, a process each",
    "shell": "a shell kept open",
    "is_alive": "is_alive(), on this side",
}


def report(result: Result) -> list[str]:
    """The lines to print."""
    logins = plural(result.logins, "login") if result.logins else "no login (it was open)"
    head = f"{result.destination}: {logins}, {plural(result.commands, 'command')}"
    if result.round_trip is not None:
        head += f", a round trip of about {_ms(result.round_trip)}"
    ssh = result.times.get("ssh")
    rows = [["", "count", "median", "90 % within", "of ssh -S"]]
    for way, title in _TITLES.items():
        times = result.times.get(way)
        if times:
            share = quantile(times, 0.5) / quantile(ssh, 0.5) if ssh and way != "is_alive" else None
            rows.append(
                [
                    title,
                    str(len(times)),
                    _ms(quantile(times, 0.5)),
                    _ms(quantile(times, 0.9)),
                    "" if share is None else f"{share:.2f}",
                ]
            )
    lines = [head, "", *_aligned(rows), ""]
    if result.per_second is not None:
        line = f"{AT_ONCE} at once: {result.per_second:.0f} commands per second"
        if result.refused:
            line += f"; the server refused {plural(result.refused, 'session')} meanwhile"
        lines.append(line)
    lines += [f"{_TITLES[way]}: not measured: {why}" for way, why in result.skipped.items()]
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The first column to the left, figures to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:])]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    return lines


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _commands(text: str) -> int:
    if not text.isdigit() or int(text) < FEWEST:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least {FEWEST}")
    return int(text)
