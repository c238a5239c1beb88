"""Destinations, as ssh(1) calls them: ``[user@]host[:port]`` or ``ssh://[user@]host[:port]``.

Whatever reaches a command line passes through :meth:`Destination.parse` first. OpenSSH itself
refuses shell metacharacters in names only since 9.6 (CVE-2023-51385), so this is the one place
that keeps a hostile name from a ``ProxyCommand`` or ``Match exec`` of the user's configuration.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from .errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9._:%@-]+", re.ASCII)
_MAX_LENGTH = 1025  # NI_MAXHOST, what ssh(1) itself can hold


@dataclass(frozen=True)
class Destination:
    """One place to log in to, exactly as far as the user named it.

    :ivar host: a host name, an address, or an alias from ssh_config(5).
    :ivar user: the account, None to leave it to ssh_config.
    :ivar port: the TCP port, None to leave it to ssh_config.
    """

    host: str
    user: Optional[str] = None
    port: Optional[int] = None

    def __post_init__(self) -> None:
        _check_name(self.host, "host", self.host)
        if self.user is not None:
            _check_name(self.user, "user", self.user)
        if self.port is not None and not 1 <= self.port <= 65535:
            raise ConfigError(f"port {self.port} is not between 1 and 65535")

    @classmethod
    def parse(cls, text: str) -> Destination:
        """Read a destination as a user types it.

        :param text: ``host``, ``user@host``, ``host:port``, ``[::1]:port``, ``::1`` or an
            ``ssh://`` URI. The user is what stands before the last ``@`` (Kerberos principals
            hold one themselves). Two or more colons without brackets are an IPv6 address.
        :raises ConfigError: it is empty, starts with ``-``, or holds anything that has no place
            in a name: white space, control characters, shell metacharacters.
        """
        if not isinstance(text, str) or not text:
            raise ConfigError("the destination is empty; write [user@]host[:port]")
        rest = text
        uri = text.lower().startswith("ssh://")
        if uri:
            rest = text[len("ssh://") :]
            rest = rest[:-1] if rest.endswith("/") else rest
        user: Optional[str] = None
        if "@" in rest:
            user, _, rest = rest.rpartition("@")
            user = _unquoted(user) if uri else user
            _check_name(user, "user", text)
        host, port = _split_port(rest, text)
        _check_name(host, "host", text)
        return cls(host, user, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.port and ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        port = f":{self.port}" if self.port else ""
        return f"{user}{host}{port}"


def _unquoted(text: str) -> str:
    from urllib.parse import unquote  # 4 ms to import, for a rare spelling

    return unquote(text)


def _split_port(rest: str, text: str) -> tuple[str, Optional[int]]:
    port = ""
    if rest.startswith("["):
        host, bracket, tail = rest[1:].partition("]")
        if not bracket or host.count(":") < 2 or (tail and not tail.startswith(":")):
            raise ConfigError(f"destination {text!r}: an address in brackets is written [::1]:port")
        if tail:
            port = tail[1:]
            if not port:
                raise ConfigError(f"destination {text!r}: the port after ':' is missing")
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
        if not port:
            raise ConfigError(f"destination {text!r}: the port after ':' is missing")
    else:
        host = rest
    if not port:
        return host, None
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 1 <= int(port) <= 65535:
        raise ConfigError(f"destination {text!r}: port {port!r} is not between 1 and 65535")
    return host, int(port)


def _check_name(name: str, what: str, text: str) -> None:
    if what == "user" and ":" in name:
        # scp would read what stands before it as the host.
        raise ConfigError(f"destination {text!r}: ':' has no place in a user")
    if not name:
        raise ConfigError(f"destination {text!r}: the {what} is missing")
    if name.startswith("-"):
        raise ConfigError(
            f"destination {text!r}: the {what} starts with '-', ssh would read an option"
        )
    if len(name) > _MAX_LENGTH:
        raise ConfigError(
            f"destination {text[:40]!r}...: the {what} is over {_MAX_LENGTH} characters"
        )
    if not _NAME.fullmatch(name):
        bad = next(c for c in name if not _NAME.fullmatch(c))
        raise ConfigError(
            f"destination {text!r}: {bad!r} has no place in a {what}; "
            "letters, digits and . _ : % @ - have"
        )
