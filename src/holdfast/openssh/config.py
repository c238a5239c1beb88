"""What ssh would use for a destination: ``ssh -G``, asked once and kept while the files stand.

``ssh -G`` is the only reader of ssh_config(5) that agrees with ssh, because it is ssh: Include,
Match, tokens and defaults are resolved. It costs 4 to 5 ms and runs ``Match exec`` commands.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from pathlib import Path
from typing import Optional

from . import command, processes
from .destination import Destination
from .errors import ConfigError
from .options import Options, Value

_TIMEOUT = 30.0  # seconds; Match exec may run anything
# What files cannot tell (a `Match exec` that asks for the network, say) is asked again after this
# many seconds.
_MAX_AGE = 60.0

#: Keywords that decide which connection this is and as whom it is made. Two destinations that
#: agree in all of them may share a master.
_IDENTITY = (
    "user",
    "hostname",
    "port",
    "hostkeyalias",
    "proxyjump",
    "proxycommand",
    "identityfile",
    "identitiesonly",
    "identityagent",
    "certificatefile",
    "pkcs11provider",
    "preferredauthentications",
    "userknownhostsfile",
    "globalknownhostsfile",
    "stricthostkeychecking",
    "bindaddress",
    "bindinterface",
)


@dataclass(frozen=True)
class EffectiveConfig:
    """The resolved configuration of one destination.

    :ivar values: keyword in lower case to its values, in order; most have one.
    """

    values: Mapping[str, tuple[str, ...]]

    def get(self, keyword: str, default: str = "") -> str:
        """The first value of a keyword."""
        found = self.values.get(keyword.lower())
        return found[0] if found else default

    @property
    def user(self) -> str:
        return self.get("user")

    @property
    def hostname(self) -> str:
        return self.get("hostname")

    @property
    def port(self) -> int:
        return int(self.get("port", "22"))

    @property
    def proxy_jump(self) -> Optional[str]:
        return _unless_none(self.get("proxyjump"))

    @property
    def proxied(self) -> bool:
        """Whether another command makes the connection: a jump host's ssh, or a ProxyCommand."""
        return self.proxy_jump is not None or _unless_none(self.get("proxycommand")) is not None

    @property
    def control_path(self) -> Optional[str]:
        """The user's own ControlPath, tokens expanded; None if there is none."""
        return _unless_none(self.get("controlpath"))

    @property
    def control_persist(self) -> Optional[int]:
        """Seconds; 0 is for ever; None if the user has not set it (or set it to ``no``)."""
        value = self.get("controlpersist", "no")
        if value in ("no", "false"):
            return None
        return 0 if value in ("yes", "true") else int(value)

    @property
    def server_alive_interval(self) -> int:
        """Seconds; 0 is never, and ssh's default."""
        return int(self.get("serveraliveinterval", "0"))

    @property
    def connect_timeout(self) -> Optional[int]:
        """Seconds; None is the system's own TCP timeout, and ssh's default."""
        value = _unless_none(self.get("connecttimeout"))
        return int(value) if value and int(value) > 0 else None

    def environment(self) -> list[bytes]:
        """``NAME=value`` for what SendEnv names and SetEnv sets, as ssh would send it now."""
        wanted = _matcher(self.values.get("sendenv", ()))
        items: list[bytes] = []
        if wanted is not None:
            items = [
                b"%s=%s" % (name, value)
                for name, value in _environb().items()
                if wanted.match(name)
            ]
        return items + [os.fsencode(item) for item in self.values.get("setenv", ())]

    def overrides(self) -> Options:
        """What keeps a command line of ours a command line, whatever the user's files say.

        ssh refuses a command beside RemoteCommand, and the other three of ssh_config(5) would
        take away its session, its stdin or its foreground. Each is named only where it is set, as
        older versions do not know it.
        """
        values: dict[str, Value] = {}
        if _unless_none(self.get("remotecommand")):
            values["RemoteCommand"] = "none"
        if self.get("sessiontype", "default") != "default":
            values["SessionType"] = "default"
        if self.get("stdinnull") in ("yes", "true"):
            values["StdinNull"] = False
        if self.get("forkafterauthentication") in ("yes", "true"):
            values["ForkAfterAuthentication"] = False
        return Options.from_mapping(values)

    @property
    def identity(self) -> tuple[tuple[str, ...], ...]:
        """What decides the connection, as a value to compare and to hash."""
        return tuple((key, *self.values.get(key, ())) for key in _IDENTITY)


@functools.lru_cache(maxsize=64)
def _matcher(patterns: tuple[str, ...]) -> Optional[re.Pattern[bytes]]:
    """SendEnv's patterns as one; a ``-`` takes back what stands before it (ssh_config(5))."""
    wanted: list[str] = []
    for pattern in patterns:
        if pattern.startswith("-"):
            wanted = [known for known in wanted if not fnmatchcase(known, pattern[1:])]
        else:
            wanted.append(pattern)
    if not wanted:
        return None
    return re.compile(os.fsencode("|".join(translate(pattern) for pattern in wanted)))


def _environb() -> Mapping[bytes, bytes]:
    if os.supports_bytes_environ:
        return os.environb
    return {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}


def _unless_none(value: str) -> Optional[str]:
    return None if value in ("", "none") else value


def parse(text: str) -> EffectiveConfig:
    """Read what ``ssh -G`` prints on stdout."""
    values: dict[str, list[str]] = {}
    for line in text.splitlines():
        keyword, _, value = line.strip().partition(" ")
        if keyword:
            values.setdefault(keyword.lower(), []).append(value.strip())
    return EffectiveConfig({key: tuple(found) for key, found in values.items()})


def files_read(debug: str) -> list[str]:
    """The paths whose change may change the answer, from the stderr of ``ssh -v -G``.

    Every file that was read, and the directories in which Include patterns looked.
    """
    paths: dict[str, None] = {}
    for line in debug.splitlines():
        found = re.match(r"debug1: Reading configuration data (.+)$", line)
        if found:
            paths[found[1]] = None
            continue
        found = re.search(r"line \d+: include (.+?) matched no files$", line)
        if found:
            paths[os.path.dirname(found[1])] = None
    # A new file may match a pattern that has matched before: its directory's time tells. The
    # directory of the user's main file is left out, as known_hosts changes there all the time.
    main = {os.path.dirname(path) for path in list(paths)[:1]} | {"/etc/ssh"}
    for path in list(paths)[1:]:
        directory = os.path.dirname(path)
        if directory not in main:
            paths[directory] = None
    return list(paths)


def resolve(
    ssh: str,
    destination: Destination,
    *,
    config_file: Optional[str] = None,
    options: Options = Options(),  # noqa: B008  (frozen)
) -> EffectiveConfig:
    """The effective configuration of a destination.

    :param ssh: path of the ssh to ask.
    :param config_file: instead of ``~/.ssh/config`` and the system's, as ``ssh -F``.
    :param options: given on the command line, and so stronger than any file.
    :raises ConfigError: ssh refuses the configuration; the message is ssh's own, with file and
        line.
    """
    key = (ssh, destination, config_file, options)
    with _lock:
        entry = _cache.get(key)
    if (
        entry is not None
        and time.monotonic() < entry.expires
        and entry.stamps == _stamps(entry.stamps)
    ):
        return entry.config
    asked = time.time_ns()
    config, paths = _ask(ssh, destination, config_file, options)
    stamps = _stamps(dict.fromkeys([*paths, *_usual_files(config_file)]))
    # A file that changes while ssh reads may have been read before or after: ask again next time.
    changing = any(stamp is not None and stamp[0] >= asked for stamp in stamps.values())
    fresh = _Entry(config, stamps, time.monotonic() + (0 if changing else _MAX_AGE))
    with _lock:
        if len(_cache) >= 1024:
            _cache.clear()
        _cache[key] = fresh
    return config


Stamp = Optional[tuple[int, int, int]]


@dataclass(frozen=True)
class _Entry:
    config: EffectiveConfig
    stamps: Mapping[str, Stamp]
    expires: float


_cache: dict[tuple[str, Destination, Optional[str], Options], _Entry] = {}
_lock = threading.Lock()


def _usual_files(config_file: Optional[str]) -> list[str]:
    """Read if they exist; one that appears must be noticed."""
    return (
        [config_file]
        if config_file
        else [str(Path("~/.ssh/config").expanduser()), "/etc/ssh/ssh_config"]
    )


def _stamps(paths: Mapping[str, object]) -> dict[str, Stamp]:
    found: dict[str, Stamp] = {}
    for path in paths:
        try:
            status = os.stat(os.path.expanduser(path))
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            found[path] = None
    return found


def _ask(
    ssh: str, destination: Destination, config_file: Optional[str], options: Options
) -> tuple[EffectiveConfig, list[str]]:
    argv = command.print_config(ssh, destination, config_file=config_file, options=options)
    try:
        done = processes.run(argv, _TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"ssh -G {destination} gave no answer within {_TIMEOUT:g} s; "
            "is there a 'Match exec' in ssh_config that hangs?"
        ) from None
    except OSError as error:
        raise ConfigError(f"{ssh} cannot be run: {error.strerror}") from None
    debug = done.stderr.decode("utf-8", "surrogateescape")
    if done.returncode != 0:
        words = [line for line in debug.splitlines() if not re.match(r"debug\d: |OpenSSH_", line)]
        raise ConfigError("\n".join(words) or f"ssh -G {destination} failed with {done.returncode}")
    return parse(done.stdout.decode("utf-8", "surrogateescape")), files_read(debug)
