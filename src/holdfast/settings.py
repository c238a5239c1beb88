"""Settings: frozen values from arguments, ``HOLDFAST_*`` variables and config.toml, in this order."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Optional

from .errors import ConfigError

#: Setting -> variable.
VARIABLES = {
    "ssh": "HOLDFAST_SSH",
    "control_persist": "HOLDFAST_SSH_CONTROL_PERSIST",
    "fallback": "HOLDFAST_SSH_FALLBACK",
    "runtime_dir": "HOLDFAST_RUNTIME_DIR",
    "login_timeout": "HOLDFAST_LOGIN_TIMEOUT",
    "session_timeout": "HOLDFAST_SESSION_TIMEOUT",
    "stale_timeout": "HOLDFAST_STALE_TIMEOUT",
    "track_processes": "HOLDFAST_TRACK_PROCESSES",
    "ready_sessions": "HOLDFAST_READY_SESSIONS",
}


@dataclass(frozen=True)
class Settings:
    """How holdfast behaves; every value has a default.

    :ivar ssh: the OpenSSH client to use, a name in PATH or a path. scp and sftp are told to use it.
    :ivar control_persist: seconds a master stays open without a command; 0 for ever. A
        ControlPersist of the user's ssh_config wins over the default, not over a given value.
    :ivar keepalive_interval, keepalive_count: a dead link is noticed after interval x count
        seconds; 15 x 3. A ServerAliveInterval of ssh_config wins.
    :ivar fallback: "plain": where sharing cannot work, every command logs in by itself; "never":
        that raises MultiplexingUnsupported.
    :ivar runtime_dir: for sockets, locks and the login ledger; None for the usual place.
    :ivar login_timeout: seconds for a login that needs no human.
    :ivar session_timeout: seconds to wait for a session when the server gives no more at once.
    :ivar track_processes: commands tell their process id in a line of their own (which does not
        reach the caller), so that a timeout or ^C can end them. False for accounts whose forced
        command wants to see nothing but the command itself.
    :ivar ready_sessions: a connection in use keeps a session open for the next command, which
        then costs one round trip instead of two: "on", "off", or "auto", where round trips are slow.
    :ivar stale_timeout: seconds after which a master of ours that answers nothing is ended.
    """

    ssh: str = "ssh"
    control_persist: Optional[int] = None
    keepalive_interval: int = 15
    keepalive_count: int = 3
    fallback: str = "plain"
    runtime_dir: Optional[str] = None
    login_timeout: float = 60.0
    session_timeout: float = 600.0
    stale_timeout: float = 30.0
    track_processes: bool = True
    ready_sessions: str = "auto"

    def __post_init__(self) -> None:
        if self.fallback not in ("plain", "never"):
            raise ConfigError(f"fallback is {self.fallback!r}; it can be plain or never")
        if self.ready_sessions not in ("auto", "on", "off"):
            raise ConfigError(
                f"ready_sessions is {self.ready_sessions!r}; it can be auto, on or off"
            )
        for name in ("login_timeout", "session_timeout", "stale_timeout"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value!r}; it is a positive number of seconds")
        for name in ("control_persist", "keepalive_interval", "keepalive_count"):
            value = getattr(self, name)
            unset = value is None and name == "control_persist"
            if not unset and (type(value) is not int or value < 0):
                raise ConfigError(f"{name} is {value!r}; it is a whole number, 0 or more")

    @classmethod
    def load(
        cls,
        *,
        environ: Optional[Mapping[str, str]] = None,
        file: Optional[Path] = None,
        **arguments: Any,
    ) -> Settings:
        """Settings from all their sources; an argument beats a variable beats the file.

        :param environ: instead of os.environ. :param file: instead of :func:`config_path`.
        :raises ConfigError: an unknown name, or a value that is none; with its source.
        """
        environ = os.environ if environ is None else environ
        values = _from_file(file or config_path(environ))
        for name, variable in VARIABLES.items():
            if environ.get(variable):
                values[name] = _read(name, environ[variable], variable)
        for name in arguments:
            _wanted(name, "an argument")
        values.update(arguments)
        return cls(**values)


def config_path(environ: Optional[Mapping[str, str]] = None) -> Path:
    """``$XDG_CONFIG_HOME/holdfast/config.toml``, by default in ``~/.config``."""
    environ = os.environ if environ is None else environ
    base = environ.get("XDG_CONFIG_HOME")
    root = Path(base) if base and os.path.isabs(base) else Path("~/.config").expanduser()
    return root / "holdfast" / "config.toml"


def sources(
    environ: Optional[Mapping[str, str]] = None, file: Optional[Path] = None
) -> dict[str, str]:
    """Where :meth:`Settings.load` finds each setting that is not at its default: a variable's
    name, or the file's. :raises ConfigError: as load."""
    environ = os.environ if environ is None else environ
    path = file or config_path(environ)
    found = dict.fromkeys(_from_file(path), str(path))
    found.update({name: v for name, v in VARIABLES.items() if environ.get(v)})
    return found


_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}

_TYPES: Mapping[str, type] = {
    "ssh": str,
    "control_persist": int,
    "keepalive_interval": int,
    "keepalive_count": int,
    "fallback": str,
    "runtime_dir": str,
    "login_timeout": float,
    "session_timeout": float,
    "stale_timeout": float,
    "track_processes": bool,
    "ready_sessions": str,
}


def _from_file(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    return {name: _read(name, value, str(path)) for name, value in found.items()}


def _read(name: str, value: Any, source: str) -> Any:
    wanted = _wanted(name, source)
    try:
        if wanted is bool:
            return _BOOLEANS[str(value).lower()]
        fraction = wanted is int and isinstance(value, float)
        if isinstance(value, bool) or fraction or (wanted is str and not isinstance(value, str)):
            raise ValueError
        return wanted(value)
    except (TypeError, ValueError, KeyError):
        raise ConfigError(f"{source}: {name} = {value!r} is not a {wanted.__name__}") from None


def _wanted(name: str, source: str) -> type:
    wanted = _TYPES.get(name)
    if wanted is None:
        known = ", ".join(field.name for field in fields(Settings))
        raise ConfigError(f"{source}: there is no setting {name!r}; there are {known}")
    return wanted
