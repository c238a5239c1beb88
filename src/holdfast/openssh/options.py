"""ssh_config(5) options as frozen values that render themselves as ``-o`` arguments."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Union

from .errors import ConfigError

Value = Union[str, int, bool]

_KEYWORD = re.compile(r"[A-Za-z][A-Za-z0-9]*", re.ASCII)

# What decides how connections are shared is holdfast's to set; a caller's value would break the
# promise that nothing logs in silently.
_OURS = {"controlmaster", "controlpath", "controlpersist"}


@dataclass(frozen=True)
class Options:
    """Options in the order in which they are given to ssh; the first value of a keyword wins.

    :ivar items: pairs of a keyword and its value, as ssh_config(5) spells them.
    """

    items: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, **values: Value) -> Options:
        """``Options.of(BatchMode=True, ServerAliveInterval=15)``; booleans become yes and no."""
        return cls.from_mapping(values)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Value]) -> Options:
        """The same from any mapping.

        :raises ConfigError: a keyword is no word, or a value holds a line break or a NUL.
        """
        return cls(tuple((_keyword(key), _spelled(key, value)) for key, value in values.items()))

    @classmethod
    def from_user(cls, values: Mapping[str, Value]) -> Options:
        """Options that a caller passes to ``connect``.

        :raises ConfigError: as :meth:`from_mapping`, or one of ControlMaster, ControlPath and
            ControlPersist is among them.
        """
        for key in values:
            if str(key).lower() in _OURS:
                raise ConfigError(
                    f"option {key}: holdfast sets it itself; set it in ssh_config, "
                    "or use control_persist of the settings"
                )
        return cls.from_mapping(values)

    def __add__(self, other: Options) -> Options:
        return Options(self.items + other.items)

    def __contains__(self, keyword: str) -> bool:
        return any(key.lower() == keyword.lower() for key, _ in self.items)

    def arguments(self) -> list[str]:
        """``["-o", "BatchMode=yes", ...]``"""
        return [word for key, value in self.items for word in ("-o", f"{key}={value}")]


def _keyword(key: str) -> str:
    if not isinstance(key, str) or not _KEYWORD.fullmatch(key):
        raise ConfigError(f"option {key!r} is not a keyword of ssh_config(5)")
    return key


def _spelled(key: str, value: Value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    if not text or any(c in text for c in "\r\n\0"):
        raise ConfigError(f"option {key}: the value {text!r} is empty or holds a line break or NUL")
    return text


#: Carried by every call that must use a master or fail. A client whose master is gone, or whose
#: session is refused, would otherwise log in afresh without a word (mux.c returns to ssh.c's
#: ordinary connect); ``ProxyCommand=false`` makes that connect fail, also over a ProxyJump.
GUARD = Options.of(ControlMaster=False, ProxyCommand="false", BatchMode=True)

#: For a login of its own, beside any master: no sharing, and no question that nobody answers.
PLAIN = Options.of(ControlMaster=False, ControlPath="none", BatchMode=True)


def keepalive(interval: int, count_max: int) -> Options:
    """A dead link is noticed after ``interval * count_max`` seconds without a byte."""
    return Options.of(ServerAliveInterval=interval, ServerAliveCountMax=count_max)
