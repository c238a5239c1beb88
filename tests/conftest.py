"""What holds for every test: it cannot touch this machine's own configuration or connections."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.testing import end_clients

_REMOVED = (
    "SSH_ASKPASS",
    "SSH_AUTH_SOCK",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in tests/sshd and tests/docker have the mark of that name, whatever they say."""
    here = Path(__file__).parent
    for item in items:
        for name in ("sshd", "docker"):
            if here / name in item.path.parents:
                item.add_marker(name)


@pytest.fixture(autouse=True)
def runtime_dir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A private ``HOLDFAST_RUNTIME_DIR`` and ``HOME`` for each test; masters there end with it.

    OpenSSH takes the home directory, and with it ``~/.ssh/config``, ``~/.ssh/known_hosts`` and
    the keys, from passwd, NOT from ``$HOME``: so a test that starts ssh must always pass ``-F``
    (``config_file=``), or it reads the configuration of whoever runs the tests.
    """
    # /tmp and a short name: control paths below it must stay within 86 bytes.
    base = Path(tempfile.mkdtemp(prefix="hf", dir="/tmp"))
    runtime = base / "run"
    home = base / "home"
    for directory in (runtime, home):
        directory.mkdir(mode=0o700)
    for name in list(os.environ):
        if name in _REMOVED or name.startswith("HOLDFAST_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOLDFAST_RUNTIME_DIR", str(runtime))
    monkeypatch.setenv("HOME", str(home))
    try:
        yield runtime
    finally:
        end_clients(base)
        shutil.rmtree(base, ignore_errors=True)
