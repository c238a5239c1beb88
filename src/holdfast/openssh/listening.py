"""What of this machine can be listened on: ports that are free, paths for unix sockets."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Optional

from .errors import ConfigError
from .forwarding import Endpoint


def free_port(listen: Endpoint) -> int:
    """The port, if it is free on every one of its addresses; any such for 0.

    :raises ConfigError: it is not, or the address is none of this machine's.
    """
    port = listen.port or 0
    unusable: Optional[OSError] = None
    for family, address in _addresses(listen.host):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((address, port))
                sock.listen(1)
                port = int(sock.getsockname()[1])
        except PermissionError:
            raise ConfigError(f"port {port} of this machine takes root to listen on") from None
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} of this machine is in use; take another, or 0 for a free one"
                ) from None
            unusable = error
    if not port:
        raise ConfigError(f"nothing can listen on {listen.host!r} of this machine: {unusable}")
    return port


def check_path(path: str) -> None:
    """:raises ConfigError: no socket can be made there."""
    if os.path.lexists(path):
        raise ConfigError(f"{path} exists already; a forward takes a path that is free")
    parent = os.path.dirname(path)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ConfigError(f"no socket can be made in {parent}: no such directory of yours")


def remove_socket(path: str) -> None:
    """ssh leaves the file of a unix socket behind. Raises nothing."""
    with suppress(OSError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


def _addresses(bind: str) -> Iterator[tuple[int, str]]:
    flags = socket.AI_PASSIVE if bind == "*" else 0
    try:
        found = socket.getaddrinfo(
            None if bind == "*" else bind or "localhost", 0, type=socket.SOCK_STREAM, flags=flags
        )
    except OSError as error:
        raise ConfigError(f"{bind!r} is no address of this machine: {error}") from None
    for family, _, _, _, address in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            yield family, str(address[0])
