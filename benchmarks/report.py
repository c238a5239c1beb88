"""The page: every figure next to what it is compared with, and the goals, reached or not."""

# ruff: noqa: RUF001  (a multiplication sign is what is meant)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from clients import CLIENTS
from results import Results
from suite import LIMITS, ROUND_TRIPS

_TITLES = {name: client.title for name, client in CLIENTS.items()}
_MB = 1e6

_OPENING = """\
# Benchmarks

This page answers: what does a command cost with holdfast, and what with other clients?

It is made by `benchmarks/run`, which anybody can repeat; do not edit it. All clients talk to one
private sshd on one machine, in turns (A B C, A B C, ...), and each figure is the median of the
rounds. A ratio is the median of each round's own ratio. Compare ratios: milliseconds are this
machine's.
"""

_HOW = """\
## How it is measured

- Each client has a process of its own and logs in once, but for those that log in for each
  command. `ssh -S` is one process for each command, over a control master of its own.
- Farther away: a relay in user space holds each chunk for half of the round trip in each
  direction. It models neither loss nor bandwidth. It acknowledges at once what it will deliver
  later, so those who wait for acknowledgements (Fabric, paramiko, parallel-ssh: Nagle's algorithm)
  look better here than they are on a real line.
- The server, the clients and the relay share the processor. With many commands at once, it is the
  server's processes that take the most of it.
- CPU is what the client's process and its children have used (getrusage). Both ways over a control
  master leave the encryption to that; *with master* has its share, too.
- A round in which more than 5 % of a client's commands failed has no rate; what failed is in the notes.
- Memory is the growth of the peak (VmHWM) of a fresh, connected process.
- `import holdfast` brings names that are imported when they are first used; `holdfast.connection`
  is what `holdfast.connect` needs.
- Import time is a whole `python -I -c 'import X'`, less the fastest `python -I -c pass` of its round.
- Install size is what `pip install --target` leaves, byte code included.
"""


@dataclass(frozen=True)
class Goal:
    """:ivar figure: None if it was not measured. :ivar least: reach at least this, not at most."""

    words: str
    unit: str
    figure: Optional[float]
    limit: float
    least: bool = False

    @property
    def met(self) -> Optional[bool]:
        if self.figure is None:
            return None
        return self.figure >= self.limit if self.least else self.figure <= self.limit

    def row(self) -> list[str]:
        verdict = "not measured" if self.met is None else "yes" if self.met else self._miss()
        shown = "-" if self.figure is None else f"{_short(self.figure)} {self.unit}".rstrip()
        return [
            self.words,
            shown,
            f"{'≥' if self.least else '≤'} {self.limit:g} {self.unit}".rstrip(),
            verdict,
        ]

    def _miss(self) -> str:
        assert self.figure is not None
        short, over = self.limit - self.figure, self.figure - self.limit
        share = (short if self.least else over) / self.limit
        return f"**no**, by {share:.0%}" if share >= 0.005 else "**no**, barely"


def goals(results: Results) -> list[Goal]:
    """What holdfast is to reach."""
    ratio, median = results.ratio, results.median

    def scaled(value: Optional[float], factor: float) -> Optional[float]:
        return None if value is None else value * factor

    run = ("latency.0", "holdfast")
    found = [
        Goal('`run("true")`, same machine', "× `ssh -S`", ratio(*run, "ssh-S"), 0.40),
        Goal('`run("true")`, same machine', "× asyncssh", ratio(*run, "asyncssh"), 0.85),
        Goal('`run("true")`, same machine', "× Fabric", ratio(*run, "fabric"), 0.07),
    ]
    for rtt in ROUND_TRIPS[1:]:
        trips = scaled(median(f"latency.{rtt}", "holdfast"), 1000 / rtt)
        found.append(Goal(f'`run("true")`, {rtt} ms away', "round trips", trips, 1.2))
    for command, limit in (("/bin/true", 0.30), ("builtin", 0.10)):
        figure = results.ratio_of((f"shell.{command}.0", "holdfast"), run)
        found.append(Goal(f"`shell().run`, {command}", "× `run`", figure, limit))
    far = "200 commands, 50 at once, 50 ms away"
    return [
        *found,
        Goal(
            "200 commands, 50 at once",
            "× `ssh -S`",
            ratio("rate.50.0", "holdfast", "ssh-S"),
            2.8,
            least=True,
        ),
        Goal(
            "200 commands, 50 at once",
            "× asyncssh",
            ratio("rate.50.0", "holdfast", "asyncssh"),
            1.1,
            least=True,
        ),
        Goal("client CPU of a command", "ms", scaled(median("cpu", "holdfast"), 1e3), 0.5),
        Goal("client CPU of a command", "× `ssh -S`", ratio("cpu", "holdfast", "ssh-S"), 0.12),
        Goal("`import holdfast`", "ms", scaled(median("import", "holdfast"), 1e3), 25),
        Goal("`import holdfast`", "× Fabric", ratio("import", "holdfast", "fabric"), 0.2),
        Goal("`is_alive()`", "ms", scaled(median("alive", "holdfast"), 1e3), 0.1),
        Goal(far, "× `ssh -S`", ratio("rate.50.50", "holdfast", "ssh-S"), 1.3, least=True),
        Goal(far, "× asyncssh", ratio("rate.50.50", "holdfast", "asyncssh"), 1.0, least=True),
        Goal(
            "`holdfast run HOST true`, the process",
            "× `python -I -c pass`",
            ratio("process", "holdfast", "python"),
            5,
        ),
        Goal(
            "100 MB of output, captured",
            "× `ssh -S`",
            ratio("data.output", "holdfast", "ssh-S"),
            0.9,
            least=True,
        ),
        Goal(
            "100 MB of output, streamed",
            "× `ssh -S`",
            ratio("data.streamed", "holdfast", "ssh-S"),
            0.9,
            least=True,
        ),
        Goal(
            "100 MB of input",
            "× `ssh -S`",
            ratio("data.input", "holdfast", "ssh-S"),
            0.9,
            least=True,
        ),
        Goal("its memory: output, captured", "MB", _mb(results, "memory.output"), 120),
        Goal("its memory: output, streamed", "MB", _mb(results, "memory.streamed"), 20),
        Goal("its memory: input, beside the input", "MB", _mb(results, "memory.input"), 20),
        Goal("install: distributions", "", median("distributions", "holdfast"), 6),
        Goal("install: size", "MB", _mb(results, "size"), 2),
    ]


def write_page(results: Results, directory: Path) -> str:
    """Write ``benchmarks.md``. :returns: its text."""
    sections = [_OPENING, _about(results)]
    if {"latency.0", "latency.50"} <= set(results.rounds):
        sections.append("![Time of one command, same machine and 50 ms away](benchmarks.svg)\n")
    rows = [goal.row() for goal in goals(results)]
    sections.append("## The goals\n\n" + table(["measure", "figure", "reach", "met"], rows))
    sections += [
        _latency(results),
        _concurrency(results),
        _cpu(results),
        _start(results),
        _data(results),
        _install(results),
    ]
    notes = results.all_notes()
    if notes:
        sections.append("## Notes of this run\n\n" + "".join(f"- {note}\n" for note in notes))
    sections.append(_HOW)
    text = "\n".join(section for section in sections if section)
    (directory / "benchmarks.md").write_text(text, encoding="utf-8")
    return text


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that lines up as plain text; columns of figures to the right."""
    widths = [max(3, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]
    right = [
        i > 0 and any(r[i][:1].isdigit() or r[i][:1] in "-≤≥" for r in rows)
        for i in range(len(header))
    ]

    def line(cells: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right))
        return f"| {' | '.join(padded)} |\n"

    ruler = ("-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right))
    return line(header) + line(list(ruler)) + "".join(map(line, rows))


def _about(results: Results) -> str:
    parts = [f"{label} {words}" for label, words in results.about.items() if label != "date"]
    return f"Measured on {results.about.get('date', '?')}: {', '.join(parts)}.\n"


def _latency(results: Results) -> str:
    measures = [f"latency.{rtt}" for rtt in ROUND_TRIPS]
    if not any(results.clients(m) for m in measures):
        return ""
    rows = []
    for name in _TITLES:
        cells = [_title(name, '`run("true")`')]
        for rtt, measure in zip(ROUND_TRIPS, measures):
            value = results.median(measure, name)
            cells.append(_ms(value))
            cells.append(
                _times(results.ratio(measure, name, "ssh-S")) if not rtt else _trips(value, rtt)
            )
        rows.append(cells)
    for command in ("/bin/true", "builtin"):
        cells = [f"holdfast, `shell()`, {command}"]
        for rtt in ROUND_TRIPS:
            measure = f"shell.{command}.{rtt}"
            value = results.median(measure, "holdfast")
            cells.append(_ms(value))
            share = results.ratio_of((measure, "holdfast"), ("latency.0", "ssh-S"))
            cells.append(_times(share) if not rtt else _trips(value, rtt))
        if set(cells[1:]) != {"-"}:
            rows.insert(1, cells)
    header = ["one `true`", "same machine", "× `ssh -S`"]
    for rtt in ROUND_TRIPS[1:]:
        header += [f"{rtt} ms away", "round trips"]
    return "## One command after the other\n\n" + table(header, rows)


def _concurrency(results: Results) -> str:
    measures = [f"rate.{limit}.0" for limit in LIMITS] + ["rate.50.50"]
    if not any(results.clients(m) for m in measures):
        return ""
    rows = [
        [
            _title(name, "`run`"),
            *(_count(results.median(m, name)) for m in measures),
            _times(results.ratio("rate.50.0", name, "ssh-S")),
        ]
        for name in results.clients(measures[0])
    ]
    header = ["commands per second", *(f"{n} at once" for n in LIMITS), "50, 50 ms away"]
    return "## Many commands over one login\n\n" + table([*header, "50 at once × `ssh -S`"], rows)


def _cpu(results: Results) -> str:
    if not results.clients("cpu"):
        return ""
    rows = [
        [
            _title(name, "`run`"),
            _ms(results.median("cpu", name)),
            _times(results.ratio("cpu", name, "ssh-S")),
            _ms(results.median("cpu+master", name)),
        ]
        for name in _TITLES
        if name in results.clients("cpu")
    ]
    header = ["CPU of the client", "a command", "× `ssh -S`", "with master"]
    alive = [
        [words, _ms(results.median("alive", name)), _times(results.ratio("alive", name, "ssh-S"))]
        for words, name in (("`is_alive()`", "holdfast"), ("`ssh -O check`", "ssh-S"))
    ]
    return (
        "## What it costs this side\n\n"
        + table(header, rows)
        + "\n"
        + table(["does the connection live?", "time", "× `ssh -O check`"], alive)
    )


def _start(results: Results) -> str:
    parts = []
    if results.clients("import"):
        rows = [
            [
                f"`import {name}`",
                _ms(results.median("import", name)),
                _times(results.ratio("import", name, "fabric")),
            ]
            for name in results.clients("import")
        ]
        parts.append(table(["over bare Python", "time", "× Fabric"], rows))
    if results.clients("process"):
        words = {
            "python": "`python -I -c pass`",
            "holdfast": "`holdfast run HOST true`",
            "ssh-S": "`ssh -S SOCKET HOST true`",
        }
        rows = [
            [
                words[name],
                _ms(results.median("process", name)),
                _times(results.ratio("process", name, "python")),
            ]
            for name in results.clients("process")
        ]
        parts.append(table(["a process over an open connection", "time", "× Python"], rows))
    return "## Start\n\n" + "\n".join(parts) if parts else ""


def _data(results: Results) -> str:
    rows = []
    for measure, words in (
        ("output", "100 MB of output, captured"),
        ("streamed", "100 MB of output, streamed"),
        ("input", "100 MB of input"),
    ):
        if results.clients(f"data.{measure}"):
            cells = [words]
            for name in ("holdfast", "ssh-S"):
                cells.append(f"{_count(results.median(f'data.{measure}', name), _MB)} MB/s")
            cells.append(_times(results.ratio(f"data.{measure}", "holdfast", "ssh-S")))
            for name in ("holdfast", "ssh-S"):
                cells.append(f"{_count(results.median(f'memory.{measure}', name), _MB)} MB")
            rows.append(cells)
    header = [
        "`run`",
        "holdfast",
        "`ssh -S`, pipe",
        "ratio",
        "memory, holdfast",
        "memory, `ssh -S`",
    ]
    return "## Much data\n\n" + table(header, rows) if rows else ""


def _install(results: Results) -> str:
    rows = [
        [
            f"`pip install {name}`",
            _count(results.median("distributions", name)),
            f"{_short((results.median('size', name) or 0) / _MB)} MB",
        ]
        for name in results.clients("size")
    ]
    return "## Install\n\n" + table(["", "distributions", "size"], rows) if rows else ""


def _title(name: str, of_ours: str) -> str:
    return f"**holdfast, {of_ours}**" if name == "holdfast" else _TITLES[name]


def _mb(results: Results, measure: str) -> Optional[float]:
    value = results.median(measure, "holdfast")
    return None if value is None else value / _MB


def _short(number: float) -> str:
    """Three digits that matter, at most."""
    if number == round(number) and abs(number) < 1000:
        return f"{number:.0f}"
    if abs(number) >= 100:
        return f"{number:,.0f}"
    if abs(number) >= 10:
        return f"{number:.1f}".removesuffix(".0")
    return f"{number:.2f}" if abs(number) >= 0.1 or number == 0 else f"{number:.3f}"


def _ms(seconds: Optional[float]) -> str:
    if seconds is None:
        return "-"
    value = seconds * 1000
    return (
        f"{value:.2f} ms"
        if value < 10
        else f"{value:.0f} ms"
        if value >= 100
        else f"{value:.1f} ms"
    )


def _times(ratio: Optional[float]) -> str:
    return "-" if ratio is None else _short(ratio)


def _trips(seconds: Optional[float], rtt: int) -> str:
    return "-" if seconds is None else f"{seconds * 1000 / rtt:.2f}"


def _count(number: Optional[float], unit: float = 1) -> str:
    return "-" if number is None else f"{number / unit:,.0f}"
