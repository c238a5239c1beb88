"""``holdfast bench``: what it makes of the times it took."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from holdfast.cli import main as cli
from holdfast.cli.verbs import bench
from holdfast.errors import ConnectionLost, HoldfastError, MultiplexingUnsupported


def result(**changes: Any) -> bench.Result:
    fields: dict[str, Any] = {
        "destination": "cluster1",
        "logins": 1,
        "commands": 120,
        "times": {
            "run": [0.012, 0.011, 0.013],
            "ssh": [0.110, 0.100, 0.120],
            "shell": [0.0101, 0.0102, 0.0103],
            "is_alive": [0.00007, 0.00008],
        },
        "per_second": 412.4,
        "together": 25,
    }
    return bench.Result(**{**fields, **changes})


@pytest.mark.parametrize(
    ("numbers", "share", "expected"),
    [
        ([7.0], 0.9, 7.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0], 0.5, 1.5),
        ([float(n) for n in range(11)], 0.9, 9.0),
        ([1.0, 2.0, 3.0, 4.0], 1.0, 4.0),
    ],
)
def test_quantiles(numbers: list[float], share: float, expected: float) -> None:
    assert bench.quantile(numbers, share) == pytest.approx(expected)


def test_the_table_lines_up() -> None:
    assert bench.report(result()) == [
        "cluster1: 1 login, 120 commands, a round trip of about 10.10 ms",
        "",
        "                          count     median  90 % within  of ssh -S",
        "holdfast run                  3   12.00 ms     12.80 ms       0.11",
        "ssh -S, a process each        3  110.00 ms    118.00 ms       1.00",
        "a shell kept open             3   10.20 ms     10.28 ms       0.09",
        "is_alive(), on this side      2    0.08 ms      0.08 ms",
        "",
        "10 at once: 412 commands per second",
    ]


def test_an_open_connection_is_told_as_no_login() -> None:
    assert bench.report(result(logins=0))[0].startswith("cluster1: no login (it was open), 120 com")


def test_refused_sessions_and_ways_left_out_are_told() -> None:
    times = {"run": [0.01], "shell": [0.01]}
    lines = bench.report(result(times=times, refused=1, skipped={"ssh": "status 255"}))
    assert lines[-2].endswith("; the server refused 1 session meanwhile")
    assert lines[-1] == "ssh -S, a process each: not measured: status 255"
    assert not any("1.00" in line for line in lines)  # no ratio to what was not measured


def test_the_document_is_json_and_in_seconds() -> None:
    document = json.loads(json.dumps(bench.document(result())))
    assert document["ways"]["run"] == {
        "count": 3,
        "median": 0.012,
        "p90": pytest.approx(0.0128),
        "min": 0.011,
    }
    assert document["run_over_ssh"] == pytest.approx(0.012 / 0.11)
    assert document["round_trip"] == 0.0101
    assert document["at_once"] == {"limit": 10, "count": 25, "per_second": 412.4, "refused": 0}


def test_a_document_without_what_was_not_measured() -> None:
    document = bench.document(result(times={"run": [0.01]}, skipped={"ssh": "x", "shell": "y"}))
    assert (document["run_over_ssh"], document["round_trip"]) == (None, None)
    assert document["skipped"] == {"ssh": "x", "shell": "y"}


def test_a_way_that_fails_is_left_out_from_then_on() -> None:
    found = result(times={}, commands=0)

    def fail() -> list[float]:
        raise HoldfastError("no shell here")

    bench._add(found, "shell", lambda: [0.1], 1)
    bench._add(found, "shell", fail, 1)
    bench._add(found, "shell", lambda: [0.2], 1)
    assert (found.times, found.skipped) == ({}, {"shell": "no shell here"})
    assert found.commands == 1


def test_a_lost_connection_ends_it() -> None:
    def fail() -> list[float]:
        raise ConnectionLost("gone", started=None)

    with pytest.raises(ConnectionLost):
        bench._add(result(), "run", fail, 1)


def test_it_does_not_log_in_for_every_command() -> None:
    class Link:
        name = "cluster1"

        def why_no_sharing(self) -> str:
            return "this ssh cannot"

    link: Any = Link()
    connection: Any = None
    with pytest.raises(MultiplexingUnsupported, match="every command would log in to cluster1"):
        bench.measure(connection, link, 120)


@pytest.mark.parametrize("text", ["0", "29", "-5", "many"])
def test_too_few_commands_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="at least 30"):
        bench._commands(text)
    assert cli.main(["bench", "host", "--commands", text]) == cli.FAILED
