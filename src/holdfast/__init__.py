"""Commands, files and jobs over one SSH login that stays open.

>>> import holdfast
>>> conn = holdfast.connect("cluster1")          # doctest: +SKIP
>>> conn.run("hostname").stdout                  # doctest: +SKIP
"""

from __future__ import annotations

from .connection import Connection, Stats
from .connection_cache import close_all_connections, connect, connections
from .errors import (
    AuthenticationRequired,
    CommandFailed,
    CommandTimeout,
    ConfigError,
    ConnectionFailed,
    ConnectionLost,
    HoldfastError,
    HostKeyRejected,
    HostUnreachable,
    LoginThrottled,
    MultiplexingUnsupported,
    SchedulerError,
    SessionRefused,
    TransferFailed,
)
from .forwards import Forward
from .remote_process import Completed, RemoteProcess
from .settings import Settings
from .shell import Shell

__version__ = "0.1.0.dev0"

__all__ = [
    "AuthenticationRequired",
    "CommandFailed",
    "CommandTimeout",
    "Completed",
    "ConfigError",
    "Connection",
    "ConnectionFailed",
    "ConnectionLost",
    "Forward",
    "HoldfastError",
    "HostKeyRejected",
    "HostUnreachable",
    "LoginThrottled",
    "MultiplexingUnsupported",
    "RemoteProcess",
    "SchedulerError",
    "SessionRefused",
    "Settings",
    "Shell",
    "Stats",
    "TransferFailed",
    "close_all_connections",
    "connect",
    "connections",
]
