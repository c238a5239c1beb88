"""The Python of the manual and the README runs, on a real sshd.

Every block that is fenced as ``python`` counts. The blocks of one page are one program, run from top
to bottom in a process of its own: what a block defines, the next one has. A page is turned into that
program by emptying every other line, so that a traceback names the line of the page.

The pages know only a host called ``cluster1``. ``HOLDFAST_SSH`` names an ssh that reads the
configuration of a :class:`LocalSshd` with that alias; nothing in holdfast is replaced. The remote home
and the working directory hold the few files and commands that the pages speak of.

A page with ``def test_`` in it is given to pytest instead.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.testing import LocalSshd, fake_ssh

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 15  # seconds for a page; each takes one or two


def program(page: Path) -> str:
    """The page with every line emptied that is not inside a ``python`` block."""
    lines, inside = [], False
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            lines.append("")
        else:
            lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


@pytest.fixture
def cluster1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSshd]:
    """The server, found by its alias alone; the working directory is an empty one."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "squeue", "make"):
        fake_ssh(programs, f'echo "{name} was called"\n', name)
    path = f"{programs}:{os.environ['PATH']}"
    with LocalSshd(hosts=["cluster1"], environment={"PATH": path}) as server:
        for name in ("runs/42/job.sh", "runs/42/result.h5", "src/Makefile", "log"):
            file = server.home / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("a line\n")
        script = f'exec {shutil.which("ssh")} -F {server.config_file} "$@"\n'
        monkeypatch.setenv("HOLDFAST_SSH", str(fake_ssh(server.directory, script)))
        work = tmp_path / "work"
        work.mkdir()
        monkeypatch.chdir(work)
        yield server


def run_page(page: Path) -> None:
    text = program(page)
    tests = len(re.findall(r"^def test_", text, re.MULTILINE))
    # pytest wants a module's name; both are run in the fixture's own directory.
    file = Path(f"test_{page.stem}.py" if tests else page.name)
    file.write_text(text, encoding="utf-8")
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    argv = [*argv, "--rootdir=.", str(file)] if tests else [sys.executable, str(file)]
    # subprocess.run ends a program that hangs.
    done = subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stdout
    if tests:
        assert f"{tests} passed" in done.stdout, done.stdout


@pytest.mark.parametrize("name", ["guide.md", "settings.md", "testing.md"])
def test_the_python_of_the_manual_runs(name: str, cluster1: LocalSshd) -> None:
    run_page(ROOT / "docs" / name)
    # The guide has a second purpose; the tests of testing.md have servers of their own.
    assert cluster1.logins() == {"guide.md": 2, "settings.md": 0, "testing.md": 0}[name]


def test_the_python_of_the_readme_runs(cluster1: LocalSshd) -> None:
    run_page(ROOT / "README.md")
    assert cluster1.logins() == 1


def test_every_python_block_of_the_manual_is_run() -> None:
    with_python = {
        page.name
        for page in (ROOT / "docs").glob("*.md")
        if "```python" in page.read_text(encoding="utf-8")
    }
    assert with_python == {"guide.md", "settings.md", "testing.md"}
