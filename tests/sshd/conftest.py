"""Connections to a real sshd on this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import holdfast
from holdfast.testing import LocalSshd


@pytest.fixture
def conn(local_sshd: LocalSshd) -> Iterator[holdfast.Connection]:
    """A live connection to a server of its own."""
    yield holdfast.connect(local_sshd.host, config_file=local_sshd.config_file)
    holdfast.close_all_connections()
