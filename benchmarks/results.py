"""Figures of a run: what was measured in each round, and medians and ratios of that."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional


class Results:
    """Measure -> client -> one value for each round; seconds, bytes, or commands per second.
    A round that did not work is NaN.

    :ivar about: date, versions and machine. :ivar notes: what was left out or failed.
    :ivar failures: what -> commands that failed, rounds left out for it, and the first reason.
    """

    def __init__(self) -> None:
        self.rounds: dict[str, dict[str, list[float]]] = {}
        self.best: dict[str, dict[str, float]] = {}
        self.about: dict[str, str] = {}
        self.notes: list[str] = []
        self.failures: dict[str, dict[str, Any]] = {}

    def add(self, measure: str, client: str, values: Sequence[float]) -> None:
        """What one round has given: its median counts."""
        found = self.rounds.setdefault(measure, {}).setdefault(client, [])
        found.append(statistics.median(values))
        best = self.best.setdefault(measure, {})
        best[client] = min([best.get(client, values[0]), *values])

    def note(self, words: str) -> None:
        if words not in self.notes:
            self.notes.append(words)

    def count_failures(self, what: str, reasons: Sequence[str], *, left_out: bool) -> None:
        """Commands of one round that failed."""
        found = self.failures.setdefault(what, {"commands": 0, "left_out": 0, "why": reasons[0]})
        found["commands"] += len(reasons)
        found["left_out"] += left_out

    def all_notes(self) -> list[str]:
        """The notes and the failures, in words."""
        notes = list(self.notes)
        for what, found in self.failures.items():
            rounds = f"; rounds left out: {found['left_out']}" if found["left_out"] else ""
            notes.append(f"{what}: {found['commands']} commands failed ({found['why']}){rounds}")
        return notes

    def clients(self, measure: str) -> list[str]:
        return list(self.rounds.get(measure, {}))

    def median(self, measure: str, client: str) -> Optional[float]:
        values = [v for v in self.rounds.get(measure, {}).get(client, []) if not math.isnan(v)]
        return statistics.median(values) if values else None

    def ratio(self, measure: str, client: str, other: str) -> Optional[float]:
        """The median of each round's own ratio, which a machine that changes its pace between
        rounds does not spoil."""
        return self.ratio_of((measure, client), (measure, other))

    def ratio_of(self, one: tuple[str, str], other: tuple[str, str]) -> Optional[float]:
        """The same for two measures of the same rounds."""
        ours, theirs = (self.rounds.get(m, {}).get(c, []) for m, c in (one, other))
        pairs = [(a, b) for a, b in zip(ours, theirs) if not math.isnan(a) and b > 0]
        return statistics.median(a / b for a, b in pairs) if pairs else None

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(vars(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        results = cls()
        document: dict[str, Any] = json.loads(path.read_text())
        vars(results).update(document)
        return results
