"""What verbs print: tables that line up, JSON, times that people read."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Optional


def print_json(document: Any) -> None:
    """One document on stdout."""
    # ASCII: a file name may hold bytes that are no UTF-8, which JSON spells as lone surrogates.
    print(json.dumps(document, indent=2, default=str))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    numeric = [
        any(row[i].isdigit() for row in cells)
        and all(row[i].isdigit() or row[i] in ("", "-") for row in cells)
        for i in range(len(header))
    ]

    def line(words: Sequence[str]) -> str:
        return "  ".join(
            word.rjust(width) if right else word.ljust(width)
            for word, width, right in zip(words, widths, numeric)
        ).rstrip()

    return "\n".join([line(list(header)), *map(line, cells)])


def duration(seconds: float) -> str:
    """``45 s``, ``10 min``, ``2 h 5 min``, ``3 d 4 h``"""
    whole = round(max(0.0, seconds))
    if whole < 60:
        return f"{whole} s"
    minutes = whole // 60
    if minutes < 60:
        return (
            f"{minutes} min"
            if whole % 60 == 0 or minutes >= 10
            else f"{minutes} min {whole % 60} s"
        )
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def moment(when: float, now: Optional[float] = None) -> str:
    """``14:05`` today, else ``2024-05-17 14:05``; local time."""
    then = time.localtime(when)
    today = time.localtime(now)
    same_day = then[:3] == today[:3]
    return time.strftime("%H:%M" if same_day else "%Y-%m-%d %H:%M", then)


def plural(number: int, noun: str) -> str:
    """``1 login``, ``2 logins``"""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
