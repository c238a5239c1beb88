"""Commands, files and jobs over one SSH login that stays open.

>>> import holdfast
>>> conn = holdfast.connect("cluster1")          # doctest: +SKIP
>>> conn.run("hostname").stdout                  # doctest: +SKIP
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing's, which takes 7 ms to import

if TYPE_CHECKING:
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

#: Where each name is defined. A name is imported when it is first used (PEP 562): whoever imports
#: holdfast to have it at hand pays nothing yet.
_MODULES = {
    "AuthenticationRequired": "errors",
    "CommandFailed": "errors",
    "CommandTimeout": "errors",
    "Completed": "remote_process",
    "ConfigError": "errors",
    "Connection": "connection",
    "ConnectionFailed": "errors",
    "ConnectionLost": "errors",
    "Forward": "forwards",
    "HoldfastError": "errors",
    "HostKeyRejected": "errors",
    "HostUnreachable": "errors",
    "LoginThrottled": "errors",
    "MultiplexingUnsupported": "errors",
    "RemoteProcess": "remote_process",
    "SchedulerError": "errors",
    "SessionRefused": "errors",
    "Settings": "settings",
    "Shell": "shell",
    "Stats": "connection",
    "TransferFailed": "errors",
    "close_all_connections": "connection_cache",
    "connect": "connection_cache",
    "connections": "connection_cache",
}


if not TYPE_CHECKING:  # or a type checker would find every name

    def __getattr__(name: str) -> object:
        module = _MODULES.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(f".{module}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
