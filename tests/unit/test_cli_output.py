"""Tables, times and JSON of the command line."""

from __future__ import annotations

import json
import os
import time

import pytest

from holdfast.cli import output


def test_a_table_lines_up() -> None:
    text = output.table(["NAME", "PORT", "USER"], [["a", 22, "alice"], ["longer-name", 2222, "-"]])
    assert text.splitlines() == [
        "NAME         PORT  USER",
        "a              22  alice",
        "longer-name  2222  -",
    ]


def test_a_table_of_nothing_is_its_header() -> None:
    assert output.table(["A", "B"], []) == "A  B"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (90, "1 min 30 s"),
        (600, "10 min"),
        (601, "10 min"),
        (3600, "1 h"),
        (3660, "1 h 1 min"),
        (86400, "1 d"),
        (86400 * 3 + 7200, "3 d 2 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_moments_name_the_day_only_where_it_is_another() -> None:
    noon = time.mktime((2024, 5, 17, 12, 5, 0, 0, 0, -1))
    assert output.moment(noon, noon + 60) == "12:05"
    assert output.moment(noon, noon + 86400) == "2024-05-17 12:05"


def test_plurals() -> None:
    assert [output.plural(n, "login") for n in (0, 1, 2)] == ["0 logins", "1 login", "2 logins"]


def test_json_holds_names_that_are_no_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"name": os.fsdecode(b"a\xff")})
    printed = capsys.readouterr().out
    assert printed.isascii()
    assert os.fsencode(json.loads(printed)["name"]) == b"a\xff"
