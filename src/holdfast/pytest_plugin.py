"""pytest fixtures: a real SSH server for tests. pytest loads this wherever holdfast is installed.

So it imports nothing until a fixture is used, and neither fails nor costs anything elsewhere.

- ``local_sshd``: a started :class:`holdfast.testing.LocalSshd`, fresh for each test.
- ``local_sshd_factory``: a function with LocalSshd's arguments that returns started ones.

Where no sshd is installed, tests that use them are skipped; with ``CI`` set in the environment
they fail, for there a skip would be read as a pass.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable

import pytest

if TYPE_CHECKING:
    from holdfast.testing import LocalSshd


@pytest.fixture
def local_sshd_factory() -> Iterator[Callable[..., LocalSshd]]:
    """Start SSH servers: ``local_sshd_factory(sshd_config=["MaxSessions 1"])``; all end with the test."""
    from holdfast.errors import ConfigError
    from holdfast.testing import LocalSshd, find_sshd

    try:
        find_sshd()
    except ConfigError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))

    with contextlib.ExitStack() as servers:

        def start(*args: Any, **kwargs: Any) -> LocalSshd:
            return servers.enter_context(LocalSshd(*args, **kwargs))

        yield start


@pytest.fixture
def local_sshd(local_sshd_factory: Callable[..., LocalSshd]) -> LocalSshd:
    """A real SSH server without port or root: ``ssh -F local_sshd.config_file local_sshd.host``."""
    return local_sshd_factory()
