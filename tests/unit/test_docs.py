"""The manual says what is there: pages against the code that they describe."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

import holdfast
from holdfast import errors, testing
from holdfast.cli.main import VERBS
from holdfast.openssh import diagnosis
from holdfast.settings import VARIABLES, Settings

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
LINKED = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]


def text_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def rows(text: str, header: str) -> list[list[str]]:
    """The cells of the table whose header starts so, without back quotes."""
    _, _, table = text.partition(f"| {header} |")
    lines = table.partition("\n\n")[0].splitlines()[2:]
    return [
        [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines
    ]


def anchors(text: str) -> set[str]:
    """The headings of a page, as a link names them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_opens_with_what_it_answers(page: Path) -> None:
    title, _, opening = page.read_text(encoding="utf-8").split("\n", 2)
    assert title.startswith("# ")
    assert opening.startswith("This page answers: ")


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        if not path.exists() or (anchor and anchor not in anchors(path.read_text("utf-8"))):
            broken.append(target)
    assert not broken


def test_the_page_of_the_command_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make-docs"), "--check"],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_verb_has_a_section() -> None:
    assert set(VERBS) <= anchors(text_of("command.md"))


def test_every_error_has_a_section() -> None:
    assert {name.lower() for name in errors.__all__} <= anchors(text_of("errors.md"))


def test_every_exported_name_is_in_the_manual() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert [n for n in holdfast.__all__ if not re.search(rf"\b{n}\b", text)] == []


@pytest.mark.parametrize(
    "kind",
    [
        holdfast.Connection,
        holdfast.RemoteProcess,
        holdfast.Completed,
        holdfast.Stats,
        holdfast.Forward,
    ],
    ids=lambda kind: kind.__name__,
)
def test_every_public_member_is_in_the_guide(kind: type) -> None:
    # Between a process and what carries it; no part of the interface.
    internal = {
        "carrier_ended",
        "carrier_fileno",
        "close_streams",
        "let_go",
        "verdict",
    }
    names = {n for n in [*vars(kind), *getattr(kind, "__dataclass_fields__", ())] if n[0] != "_"}
    text = text_of("guide.md")
    assert [n for n in sorted(names - internal) if not re.search(rf"\b{n}\b", text)] == []


def test_every_tool_for_tests_is_in_the_manual() -> None:
    text = text_of("testing.md")
    names = [*testing.__all__, *(n for n in vars(testing.LocalSshd) if n[0] != "_")]
    assert [n for n in names if not re.search(rf"\b{n}\b", text)] == []


def test_the_table_of_settings_is_that_of_the_code() -> None:
    expected = [
        [
            field.name,
            "-" if field.default is None else str(field.default),
            VARIABLES.get(field.name, "-"),
        ]
        for field in fields(Settings)
    ]
    found = rows(text_of("settings.md"), "name | default | unit | variable | meaning")
    assert [[name, default, variable] for name, default, _, variable, _ in found] == expected


def test_what_ssh_says_becomes_the_error_that_the_manual_names() -> None:
    found = rows(text_of("errors.md"), "ssh says | error")
    assert len(found) > 10
    for said, name in found:
        error = diagnosis.connection_error(said, "cluster1")
        assert type(error).__name__ == name, said
