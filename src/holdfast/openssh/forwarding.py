"""What a forward is: where it listens and where it leads, checked and spelled. No I/O."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import Optional, Union

from .errors import ConfigError

Path = Union[str, "os.PathLike[str]"]

_HOST = re.compile(r"[A-Za-z0-9._:%][A-Za-z0-9._:%-]*", re.ASCII)
# What ssh would expand or split in an argument of -L; and what no path needs.
_NOT_IN_PATHS = re.compile(r"[%$:\\\x00-\x1f\x7f]")
# sun_path of <sys/un.h>, less its NUL.
_LONGEST_PATH = 103 if sys.platform == "darwin" else 107


@dataclass(frozen=True)
class Endpoint:
    """One end of a forward.

    :ivar host: a name or an address; empty: ssh's own default, "*": every address. Or the path of
        a unix socket. :ivar port: None for a unix socket.
    """

    host: str
    port: Optional[int] = None

    def __str__(self) -> str:
        if self.port is None:
            return self.host
        return f"{self._bracketed()}:{self.port}" if self.host else str(self.port)

    def _bracketed(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host


@dataclass(frozen=True)
class Forwarding:
    """A forward as it is asked for.

    :ivar kind: "local", "remote" or "dynamic". :ivar listen: where, here or (remote) there.
    :ivar connect: where it leads; None for a dynamic one, whose clients say so by SOCKS.
    """

    kind: str
    listen: Endpoint
    connect: Optional[Endpoint] = None

    def __str__(self) -> str:
        """As ``-L``, ``-R`` or ``-D`` take it."""
        return str(self.listen) if self.connect is None else f"{self.listen}:{self.connect}"

    @property
    def flag(self) -> str:
        return {"local": "-L", "remote": "-R", "dynamic": "-D"}[self.kind]


def local(
    listen: Union[int, Path], host: str, port: Optional[int], bind: str = "127.0.0.1"
) -> Forwarding:
    """Connections to here, made from there. :raises ConfigError: a port, host or path is none."""
    return Forwarding("local", _listener(listen, bind, here=True), _target(host, port, here=False))


def remote(listen: Union[int, Path], host: str, port: Optional[int], bind: str = "") -> Forwarding:
    """Connections to there, made from here. :raises ConfigError: see :func:`local`."""
    return Forwarding("remote", _listener(listen, bind, here=False), _target(host, port, here=True))


def dynamic(port: int, bind: str = "127.0.0.1") -> Forwarding:
    """Connections to here, made from there to wherever each asks. :raises ConfigError:"""
    return Forwarding("dynamic", Endpoint(_bind(bind), _port(port, 0)))


def parse(kind: str, text: str) -> Forwarding:
    """The argument of ``-L``, ``-R`` or ``-D`` of ssh(1). :raises ConfigError: it is none."""
    fields = re.findall(r"(?:^|:)((?:\[[^\]]*\]|[^:\[\]])*)(?=:|$)", text)
    if ":".join(fields) != text:
        raise _bad_words(kind, text)
    target: list[str] = []
    if kind != "dynamic":
        count = 1 if "/" in fields[-1] else 2
        fields, target = fields[:-count], fields[-count:]
        if not fields or len(target) != count:
            raise _bad_words(kind, text)
    if len(fields) > 2:
        raise _bad_words(kind, text)
    bind = fields[0] if len(fields) == 2 else "" if kind == "remote" else "127.0.0.1"
    if fields[0] == "" and len(fields) == 2:
        bind = "*"  # as ssh(1) has it for an empty bind_address
    if kind == "dynamic":
        return dynamic(_number(kind, text, fields[-1]), bind)
    listen: Union[int, str] = fields[-1]
    if "/" not in fields[-1]:
        listen = _number(kind, text, fields[-1])
    elif len(fields) == 2:
        raise _bad_words(kind, text)
    port = _number(kind, text, target[1]) if len(target) == 2 else None
    return (remote if kind == "remote" else local)(listen, target[0], port, bind)


def _number(kind: str, text: str, word: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", word, re.ASCII):
        raise _bad_words(kind, text)
    return int(word)


def _bad_words(kind: str, text: str) -> ConfigError:
    form = "[bind:]port" if kind == "dynamic" else "[bind:]port:host:hostport"
    return ConfigError(f"{text!r} is no {kind} forward; it is {form}")


def _listener(listen: Union[int, Path], bind: str, *, here: bool) -> Endpoint:
    if isinstance(listen, int):
        return Endpoint(_bind(bind), _port(listen, 0))
    return Endpoint(_path(os.fspath(listen), here=here))


def _target(host: str, port: Optional[int], *, here: bool) -> Endpoint:
    if isinstance(host, os.PathLike) or (isinstance(host, str) and "/" in host):
        if port is not None:
            raise ConfigError(f"a forward to the unix socket {str(host)!r} takes no port")
        return Endpoint(_path(os.fspath(host), here=here))
    if port is None:
        raise ConfigError(f"a forward to {host!r} needs a port")
    return Endpoint(_host(host), _port(port, 1))


def _port(port: int, least: int) -> int:
    if isinstance(port, bool) or not isinstance(port, int) or not least <= port <= 65535:
        raise ConfigError(f"port {port!r} is not a number from {least} to 65535")
    return port


def _host(host: str) -> str:
    if isinstance(host, str):
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if len(bare) <= 255 and _HOST.fullmatch(bare):
            return bare
    raise ConfigError(f"host {host!r} of a forward is neither a name nor an address")


def _bind(bind: str) -> str:
    return bind if bind in ("", "*") else _host(bind)


def _path(path: str, *, here: bool) -> str:
    """:param here: on this machine, where a relative path can be made whole."""
    if here and path:
        # The master has a directory of its own.
        path = os.path.abspath(os.path.expanduser(path))
    if not path.startswith("/"):
        raise ConfigError(f"the unix socket {path!r} of a forward needs an absolute path")
    if _NOT_IN_PATHS.search(path):
        raise ConfigError(
            f"the unix socket {path!r} of a forward holds a character that ssh does not take as it "
            "is (% $ : \\ or a control character)"
        )
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(
            f"the unix socket {path!r} of a forward is longer than {_LONGEST_PATH} bytes"
        )
    return path
