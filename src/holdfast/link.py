"""How this process reaches a destination: over a control master, or by plain ssh."""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Optional, Union

from .errors import ConfigError, HoldfastError, MultiplexingUnsupported
from .marker import Identity
from .openssh import config, control_path, records, version
from .openssh.control_master import ControlMaster, Master, MasterSpec
from .openssh.destination import Destination
from .openssh.login_ledger import LoginLedger
from .openssh.options import Options, Value, keepalive
from .session_gate import SessionGate
from .settings import Settings

_LATELY = 60.0  # seconds for which a measured round trip holds
_NOTE_EVERY = 256  # sessions between two looks at the length of the master's log

log = logging.getLogger("holdfast")

#: Seconds a master lives without a client, where neither ssh_config nor a setting says:
#: people come back within minutes, and a forgotten master should not last the night.
CONTROL_PERSIST = 600


@dataclass
class Counts:
    """What one connection has done; :class:`connection.Stats` explains the numbers."""

    commands: int = 0
    reuses: int = 0
    refused: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class Link:
    """The configuration of one destination, its master and its mode; safe for threads.

    The arguments and errors are those of :class:`connection.Connection`.
    """

    def __init__(
        self,
        destination: str,
        purpose: str,
        config_file: Optional[Union[str, os.PathLike[str]]],
        options: Optional[Mapping[str, Value]],
        settings: Optional[Settings],
    ) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", purpose):
            raise ConfigError(f"purpose {purpose!r} is not a word of lower-case letters and digits")
        self.destination = Destination.parse(destination)
        self.name = destination
        self.purpose = purpose
        self.config_file = (
            None if config_file is None else os.path.abspath(os.path.expanduser(config_file))
        )
        self.options = Options.from_user(options or {})
        self.settings = settings or Settings.load()
        self.ssh = version.find_program(self.settings.ssh)
        self.runtime = control_path.runtime_directory(self.settings.runtime_dir)
        self.ledger = LoginLedger(self.runtime)
        self.gate = SessionGate()
        self.shell = ""  # the account's login shell, once a command has told it
        self._master: Optional[tuple[MasterSpec, Master]] = None
        self.round_trip = 0.0  # seconds, the least that was seen lately; 0 is unknown
        self._measured = 0.0
        self._sessions_of = 0  # the pid of the master that has last given us a session
        self.without_sftp = False
        self.speaks_mux = True  # False: its masters speak another version of the protocol
        self._counts = Counts()
        self._lock = threading.RLock()
        self._plain_because: Optional[str] = None
        self._config: Optional[config.EffectiveConfig] = None
        self._spec = self._resolved()

    @property
    def key(self) -> str:
        """See :func:`control_path.connection_key`."""
        return self._spec.key

    @property
    def mode(self) -> str:
        return "plain" if self._plain_because else "multiplexed"

    @property
    def counts(self) -> Counts:
        with self._lock:
            return replace(self._counts)

    def has_run_commands(self) -> bool:
        return self._counts.commands > 0

    def count(self, **numbers: int) -> None:
        """``count(commands=1, bytes_sent=3)``"""
        with self._lock:
            for name, number in numbers.items():
                setattr(self._counts, name, getattr(self._counts, name) + number)

    def control_master(self) -> ControlMaster:
        """The master as the configuration wants it now."""
        return ControlMaster(self._resolved())

    def live_master(self, deadline: Optional[float]) -> Optional[Master]:
        """The master to use; None in plain mode. Logs in if there is none, once for everybody.

        :param deadline: the caller's, of time.monotonic().
        :raises subprocess.TimeoutExpired: the deadline came first.
        :raises ConnectionFailed: and its kinds. :raises MultiplexingUnsupported: see ``fallback``.
        """
        if self._plain_because:
            return None
        spec = self._resolved()
        known = self._master
        if known is not None and known[0] is spec:
            return known[1]
        ends = math.inf if deadline is None else deadline
        control_master = ControlMaster(spec)
        try:
            # One that answers proves that sharing works; only then need ssh be asked.
            master = control_master.find(ends)
            if master is None:
                reason = self.why_no_sharing()
                if reason:
                    self.fall_back(reason)
                    return None
                master = control_master.ensure(ends)
        except MultiplexingUnsupported as error:
            self.fall_back(str(error))
            return None
        except HoldfastError:
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("ssh", 0.0) from None
            raise
        # The next one takes it as it is: a session asks the master first whether it is there.
        self._master = spec, replace(master, started=False)
        return master

    def forget_master(self) -> None:
        """The master is not what it was: look again next time."""
        self._master = None

    def why_no_sharing(self) -> Optional[str]:
        """Why commands go through plain ssh; None if they share a master."""
        return self._plain_because or version.why_no_multiplexing(self.ssh)

    def fall_back(self, reason: str) -> None:
        """Plain mode from now on, with one warning. :raises MultiplexingUnsupported: forbidden."""
        if self.settings.fallback == "never":
            raise MultiplexingUnsupported(
                f"connections to {self.name} cannot be shared: {reason}; plain ssh would log in "
                "for every command, and HOLDFAST_SSH_FALLBACK=never forbids it"
            )
        with self._lock:
            first, self._plain_because = self._plain_because is None, reason
        if first:
            log.warning(
                "%s: every command logs in by itself, as connections cannot be shared: %s",
                self.name,
                reason,
            )

    def note_session(self, master: Master) -> None:
        """The master has given a session: a refusal means that it is full, from now on."""
        if self._sessions_of != master.pid or self._counts.commands % _NOTE_EVERY == 0:
            self._sessions_of = master.pid
            ControlMaster(self._spec).note_session(master)

    def has_given_sessions(self, master: Master) -> bool:
        return self._sessions_of == master.pid or self.control_master().has_given_sessions(master)

    def session_options(self) -> Options:
        """For a session on a live master."""
        return self._current().overrides() + self.options

    def note_round_trip(self, seconds: float) -> None:
        """A session took so long to open: a round trip, and what the server needed.

        The least of the last while counts: a busy server is no distance.
        """
        now = time.monotonic()
        if not self.round_trip or seconds <= self.round_trip or now > self._measured + _LATELY:
            self.round_trip, self._measured = seconds, now

    def learn_shell(self, who: Optional[Identity]) -> None:
        """A command has told its login shell."""
        if who is not None:
            self.shell = who.shell

    def session_environment(self) -> list[bytes]:
        """What SendEnv and SetEnv of the configuration give to a session."""
        return self._current().environment()

    def forwards_agent(self) -> bool:
        """Whether the configuration wants the agent forwarded."""
        return self._current().get("forwardagent", "no") not in ("no", "false")

    def login_options(self) -> Options:
        """For a login: the caller's options, and ours where neither they nor the files say."""
        options, found, settings = self.options, self._configured(), self.settings
        if found.server_alive_interval == 0 and "ServerAliveInterval" not in options:
            options += keepalive(settings.keepalive_interval, settings.keepalive_count)
        if found.connect_timeout is None and "ConnectTimeout" not in options:
            options += Options.of(ConnectTimeout=max(1, round(settings.login_timeout)))
        return options

    def new_log(self) -> Path:
        """A fresh name for the log of one client."""
        return (
            self.runtime
            / f"{records.CLIENT_LOG}{control_path.host_tag()}-{os.getpid()}-{next(_serial)}.log"
        )

    def _current(self) -> config.EffectiveConfig:
        """The configuration as the last look at it has found it; every command looks once."""
        return self._config or self._configured()

    def _configured(self) -> config.EffectiveConfig:
        """The effective configuration; asked again when a file has changed."""
        return config.resolve(
            self.ssh, self.destination, config_file=self.config_file, options=self.options
        )

    def _resolved(self) -> MasterSpec:
        found = self._configured()
        with self._lock:
            if found is self._config:
                return self._spec
        key = control_path.connection_key(found, self.options, self.config_file)
        persist = self.settings.control_persist
        if persist is None:
            persist = CONTROL_PERSIST if found.control_persist is None else found.control_persist
        spec = MasterSpec(
            ssh=self.ssh,
            destination=self.destination,
            runtime=self.runtime,
            name=control_path.socket_name(key, self.purpose),
            key=key,
            purpose=self.purpose,
            config_file=self.config_file,
            options=self.login_options(),
            user_path=self._user_path(found),
            proxied=found.proxied,
            persist=persist,
            login_timeout=self.settings.login_timeout,
            stale_timeout=self.settings.stale_timeout,
        )
        with self._lock:
            self._config, self._spec = found, spec
        return spec

    def _user_path(self, found: config.EffectiveConfig) -> Optional[str]:
        """The user's own ControlPath, if it stands for this very connection.

        A path without %r, say, is the same for two accounts: where the bare alias would use the
        same path for another connection, it is not ours to use.
        """
        path = found.control_path
        if path is None or self.purpose != "main":
            return None
        bare = Destination(self.destination.host)
        if bare != self.destination or self.options.items:
            usual = config.resolve(self.ssh, bare, config_file=self.config_file)
            if usual.control_path == path and usual.identity != found.identity:
                return None
        return path


_serial = itertools.count()
