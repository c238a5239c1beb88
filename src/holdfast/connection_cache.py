"""The connections of this process: one object per destination and purpose, shared by all threads."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Mapping
from typing import Optional, Union

from .connection import Connection
from .openssh.destination import Destination
from .openssh.options import Options, Value
from .settings import Settings

log = logging.getLogger("holdfast")

_Key = tuple[str, str, Optional[str], Options, Settings]
_cache: dict[_Key, Connection] = {}
_cache_lock = threading.Lock()


def connect(
    destination: str,
    *,
    purpose: str = "main",
    config_file: Optional[Union[str, os.PathLike[str]]] = None,
    options: Optional[Mapping[str, Value]] = None,
    settings: Optional[Settings] = None,
) -> Connection:
    """The connection of this process to a destination, live: found, or made with one login.

    The same arguments give the same object until it is closed. Arguments and errors are those of
    :class:`Connection` and :meth:`Connection.open`.
    """
    fresh = Connection(
        destination, purpose=purpose, config_file=config_file, options=options, settings=settings
    )
    key = (
        str(Destination.parse(destination)),
        purpose,
        None if config_file is None else os.path.abspath(os.path.expanduser(config_file)),
        Options.from_user(options or {}),
        fresh.settings,
    )
    with _cache_lock:
        connection = _cache.get(key)
        if connection is None or connection.closed:
            connection = _cache[key] = fresh
    try:
        return connection.open()
    except BaseException:
        with _cache_lock:
            if _cache.get(key) is connection and not connection.is_alive():
                del _cache[key]
        raise


def connections() -> list[Connection]:
    """The connections of this process that are not closed, oldest first."""
    with _cache_lock:
        for key in [key for key, known in _cache.items() if known.closed]:
            del _cache[key]
        return list(_cache.values())


def close_all_connections() -> None:
    """Close every one; the masters live on for others, until their ControlPersist.

    Every one is tried, whatever the others do; the first error is raised at the end.
    """
    errors: list[Exception] = []
    for connection in connections():
        try:
            connection.close()
        except Exception as error:
            log.warning("closing %s: %s", connection.destination, error)
            errors.append(error)
    if errors:
        raise errors[0]


def _after_fork() -> None:
    """A child process starts with no connections: their locks and sessions are its parent's."""
    global _cache_lock
    _cache_lock = threading.Lock()
    _cache.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
