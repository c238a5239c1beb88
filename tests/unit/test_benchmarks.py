"""``benchmarks/``: figures, the page, and the delay. What it measures is measured elsewhere."""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

pytestmark = pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="only in the work tree")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Its modules, which are a program and no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


@pytest.fixture
def results(module: Callable[[str], ModuleType]) -> Any:
    found = module("results").Results()
    for ours, theirs in ((2.0, 8.0), (3.0, 6.0), (50.0, 100.0)):
        found.add("latency.0", "holdfast", [ours, ours, 99.0])
        found.add("latency.0", "ssh-S", [theirs])
    return found


def test_the_median_of_the_rounds_medians(results: Any) -> None:
    assert results.median("latency.0", "holdfast") == 3.0
    assert results.best["latency.0"]["holdfast"] == 2.0
    assert results.median("latency.0", "fabric") is None


def test_a_ratio_is_the_median_of_each_rounds_own(results: Any) -> None:
    assert results.ratio("latency.0", "holdfast", "ssh-S") == 0.5
    assert results.ratio("latency.0", "holdfast", "fabric") is None


def test_results_are_read_as_they_were_saved(results: Any, tmp_path: Path) -> None:
    results.note("one")
    results.note("one")
    results.save(tmp_path / "raw.json")
    again = type(results).load(tmp_path / "raw.json")
    assert vars(again) == vars(results)
    assert again.notes == ["one"]


def test_failed_rounds_do_not_count_and_are_told(results: Any) -> None:
    for rate in (100.0, float("nan"), 200.0):
        results.add("rate.50.0", "holdfast", [200.0])
        results.add("rate.50.0", "paramiko", [rate])
    results.count_failures("paramiko, 50 at once", ["gone"] * 3, left_out=False)
    results.count_failures("paramiko, 50 at once", ["gone"] * 90, left_out=True)
    assert results.median("rate.50.0", "paramiko") == 150.0
    assert results.ratio("rate.50.0", "paramiko", "holdfast") == 0.75
    assert results.all_notes() == [
        "paramiko, 50 at once: 93 commands failed (gone); rounds left out: 1"
    ]


def test_a_table_lines_up(module: Callable[[str], ModuleType]) -> None:
    rows = [["holdfast", "2.50 ms", "yes"], ["ssh -S, a process each", "-", "no"]]
    assert module("report").table(["way", "median", "met"], rows) == (
        "| way                    |  median | met |\n"
        "| ---------------------- | ------: | --- |\n"
        "| holdfast               | 2.50 ms | yes |\n"
        "| ssh -S, a process each |       - | no  |\n"
    )


@pytest.mark.parametrize(
    ("figure", "limit", "least", "verdict"),
    [
        (0.39, 0.40, False, "yes"),
        (0.40, 0.40, False, "yes"),
        (0.44, 0.40, False, "**no**, by 10%"),
        (2.8, 2.8, True, "yes"),
        (2.1, 2.8, True, "**no**, by 25%"),
        (0.4001, 0.40, False, "**no**, barely"),
        (None, 0.40, False, "not measured"),
    ],
)
def test_goals_are_judged_honestly(
    module: Callable[[str], ModuleType], figure: Any, limit: float, least: bool, verdict: str
) -> None:
    goal = module("report").Goal("measure", "ms", figure, limit, least)
    assert goal.row()[3] == verdict


def test_the_page_has_what_was_measured_and_no_more(
    module: Callable[[str], ModuleType], results: Any, tmp_path: Path
) -> None:
    text = module("report").write_page(results, tmp_path)
    assert (tmp_path / "benchmarks.md").read_text(encoding="utf-8") == text
    assert "## One command after the other" in text
    assert "## Much data" not in text
    assert "benchmarks.svg" not in text  # there is no picture without both its panels
    assert "not measured" in text


def test_help_needs_no_peers() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "run"), "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--quick" in done.stdout


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"the end")
    writer.close()


def test_the_delay_costs_time_and_chunks_overlap(module: Callable[[str], ModuleType]) -> None:
    rtt = 0.1

    async def measure() -> tuple[float, float, float, bytes]:
        target = await asyncio.start_server(_echo, "127.0.0.1", 0)
        relay = module("delay").Relay(target.sockets[0].getsockname()[1], rtt)
        server = await relay.serve()
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        times = []
        for count in (1, 1, 20):
            begin = time.monotonic()
            for _ in range(count):
                writer.write(b"x" * 100)
                await writer.drain()
                await asyncio.sleep(0.001)
            await reader.readexactly(100 * count)
            times.append(time.monotonic() - begin)
        writer.write_eof()
        rest = await reader.read()
        writer.close()
        server.close()
        target.close()
        return times[0], times[1], times[2], rest

    first, one, twenty, rest = asyncio.run(measure())
    assert first >= 2 * rtt * 0.9  # and the connection
    assert one >= rtt * 0.9
    assert twenty < 20 * rtt / 2
    assert rest == b"the end"
