"""The life of a control master: found, started under a lock, verified, drained, ended."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Optional

from . import command, control_path, diagnosis, mux_client, processes
from .destination import Destination
from .errors import (
    ConnectionFailed,
    ConnectionLost,
    HoldfastError,
    HostUnreachable,
    MultiplexingUnsupported,
)
from .file_lock import FileLock, LockTimeout
from .login_ledger import LoginLedger
from .mux_client import PROBE_TIMEOUT, MuxError, Probe, State
from .options import Options
from .records import Record, Records, read
from .sweep import remove_socket, sweep_socket, within

log = logging.getLogger("holdfast")

_LONGEST_LOG = 1024 * 1024  # bytes; a talkative master writes a few lines for each session
_STOP_TIMEOUT = 5.0  # seconds for a master to take a stop or exit request
_POLL = 0.05  # seconds between two looks at something that gives no event


@dataclass(frozen=True)
class MasterSpec:
    """What a master is to be.

    :ivar ssh: path of the program. :ivar destination: as the user wrote it.
    :ivar runtime: the runtime directory. :ivar name: see :func:`control_path.socket_name`.
    :ivar key: see :func:`control_path.connection_key`.
    :ivar user_path: the user's own ControlPath, None if there is none, or not for this purpose.
    :ivar proxied: it goes through a jump host or another ProxyCommand.
    :ivar persist: seconds a master lives on without a client; 0 for ever.
    :ivar login_timeout: seconds for ssh to log in, and for another process that is at it.
    :ivar stale_timeout: seconds without an answer after which a master of ours is ended.
    """

    ssh: str
    destination: Destination
    runtime: Path
    name: str
    key: str
    purpose: str = "main"
    config_file: Optional[str] = None
    options: Options = Options()  # noqa: RUF009  (frozen)
    user_path: Optional[str] = None
    proxied: bool = False
    persist: int = 600
    login_timeout: float = 60.0
    stale_timeout: float = 30.0

    @property
    def own_path(self) -> str:
        return str(control_path.socket_directory(self.runtime) / self.name)


@dataclass(frozen=True)
class Master:
    """A live master.

    :ivar ours: holdfast started it and may end it; False for one that was found on the user's
        own ControlPath.
    :ivar started: it was started by this very call, with one login.
    """

    control_path: str
    pid: int
    ours: bool
    started: bool = False


class ControlMaster:
    """Finds, starts and ends the master of one specification; safe for threads and processes."""

    def __init__(self, spec: MasterSpec) -> None:
        self.spec = spec
        self._ledger = LoginLedger(spec.runtime)
        self._records = Records(spec.runtime)

    def find(self, deadline: float = math.inf) -> Optional[Master]:
        """The live master, None if there is none. Local, no login, well under a millisecond.

        :param deadline: of time.monotonic(), for a master that does not answer.
        """
        for path in self._paths():
            probe = mux_client.probe(path, within(PROBE_TIMEOUT, deadline))
            if probe.state is State.ALIVE and probe.pid is not None:
                return Master(path, probe.pid, self._is_ours(path, probe.pid))
        return None

    def answers(self) -> bool:
        """Whether there is a live master, ours or another."""
        return any(
            mux_client.probe(path, PROBE_TIMEOUT).state is State.ALIVE for path in self._paths()
        )

    def ensure(self, deadline: float = math.inf) -> Master:
        """The live master; started with one login if there is none. Call :meth:`find` first.

        However many threads and processes call it at once, one of them logs in.

        :param deadline: of time.monotonic(): to have failed by then, with any ConnectionFailed.
        :raises ConnectionFailed: and its kinds, if the login fails, or another process is at it
            for longer than ``login_timeout``.
        :raises MultiplexingUnsupported: no place can hold its socket.
        """
        return self._start_under_lock(deadline, interactive=False)

    def open(self) -> Master:
        """As :meth:`ensure`, but ssh may ask its questions on the terminal of this process."""
        return self.find() or self._start_under_lock(math.inf, interactive=True)

    def stop(self) -> bool:
        """Drain: no new sessions, and it ends after the last. True if there was one to stop.

        A master that was only found is never stopped: that is False, too.
        """
        return self._end(mux_client.stop_listening)

    def exit(self) -> bool:
        """End it now, with its sessions. True if there was one to end; see :meth:`stop`."""
        return self._end(mux_client.terminate)

    def note_session(self, master: Master) -> None:
        """Remember, for all processes, that this master gives sessions."""
        self._records.note_session(self.spec.name, master.pid)
        self._records.shorten_log(self.spec.name, _LONGEST_LOG)

    def has_given_sessions(self, master: Master) -> bool:
        """Whether any process has had a session of this master."""
        return self._records.has_given_sessions(self.spec.name, master.pid)

    def _paths(self) -> Iterator[str]:
        if self.spec.user_path:
            yield self.spec.user_path
        yield self.spec.own_path

    def _is_ours(self, path: str, pid: int) -> bool:
        record = self._records.read(self.spec.name)
        return record is not None and (record.control_path, record.pid) == (path, pid)

    def _start_under_lock(self, deadline: float, *, interactive: bool) -> Master:
        lock = self.spec.runtime / f"{self.spec.name}.lock"
        patience = within(self.spec.login_timeout + self.spec.stale_timeout, deadline)
        # It may have gone since: XDG_RUNTIME_DIR does at the last logout.
        control_path.private_directory(self.spec.runtime)
        try:
            with FileLock(lock, patience):
                return self.find(deadline) or self._start(deadline, interactive=interactive)
        except LockTimeout:
            raise ConnectionFailed(
                f"another process is logging in to {self.spec.destination} and has not finished "
                "yet; finish or end it, then try again",
                destination=str(self.spec.destination),
            ) from None

    def _end(self, request: Callable[[str, float], None]) -> bool:
        master = self.find()
        if master is None or not master.ours:
            return False
        try:
            request(master.control_path, _STOP_TIMEOUT)
        except MuxError as error:
            raise ConnectionLost(f"{self.spec.destination}: {error}", started=None) from None
        return True

    def _start(self, deadline: float, *, interactive: bool) -> Master:
        """Called under the lock, when no master answers."""
        path = self._place(deadline)
        spec = self.spec
        logfile = spec.runtime / f"{spec.name}.log"
        # A terminal shows ssh's questions and banners itself; else everything goes to the log,
        # also what the ssh of a jump host writes to the stderr that it inherits.
        terminal = interactive and os.isatty(2)
        argv = command.start_master(
            spec.ssh,
            spec.destination,
            control_path=path,
            persist=spec.persist,
            log=None if terminal else str(logfile),
            config_file=spec.config_file,
            options=spec.options,
            interactive=interactive,
            talkative=spec.proxied and not terminal,
        )
        log.info("login to %s: starting a master on %s", spec.destination, path)
        kind = "open" if interactive else "master"
        with self._ledger.login(str(spec.destination), spec.key, kind) as entry:
            patience = None if terminal else within(spec.login_timeout, deadline)
            returncode = self._login(argv, logfile, patience)
            said = "" if terminal else read(logfile)
            if returncode != 0:
                entry.failed(diagnosis.classify(diagnosis.without_debug(said))[0].value)
                raise self._login_error(returncode, said, terminal)
            entry.succeeded()
            self._records.shorten_log(spec.name, 0)
        probe = mux_client.probe(path, PROBE_TIMEOUT)
        if probe.state is not State.ALIVE or probe.pid is None:
            raise self._not_sharing(path, probe, logfile, said)
        if "disabling multiplexing" in said:
            # Plain ssh has bound the user's ControlPath in this very moment: theirs stays, and
            # our login, which nobody can reach, ends.
            processes.end_by_argument(str(logfile))
            return Master(path, probe.pid, ours=False, started=True)
        self._records.write(
            spec.name,
            Record(
                str(spec.destination),
                path,
                probe.pid,
                spec.purpose,
                spec.key,
                time.time(),
                spec.ssh,
                spec.config_file,
            ),
        )
        return Master(path, probe.pid, ours=True, started=True)

    def _login(self, argv: list[str], logfile: Path, patience: Optional[float]) -> int:
        """Run ssh until it has gone to the background. -1: it took too long and was ended.

        :param patience: seconds; None is a human's, at a terminal that ssh shall have.
        """
        terminal = patience is None
        logfile.unlink(missing_ok=True)
        descriptor = os.open(logfile, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Never a pipe: a master would hold it open for as long as it lives.
            process = subprocess.Popen(
                processes.with_file_limit(argv),
                stdin=None if terminal else subprocess.DEVNULL,
                stdout=None if terminal else subprocess.DEVNULL,
                stderr=None if terminal else descriptor,
                start_new_session=not terminal,
            )
        finally:
            os.close(descriptor)
        try:
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            return -1
        finally:
            if process.poll() is None:  # a timeout, or ^C
                processes.end_group(process)

    def _login_error(self, returncode: int, said: str, terminal: bool) -> HoldfastError:
        spec = self.spec
        name = str(spec.destination)
        if terminal:
            return ConnectionFailed(
                f"the login to {name} did not succeed; ssh has told why above", destination=name
            )
        if returncode == -1:
            words = diagnosis.without_debug(said)
            return HostUnreachable(
                f"the login to {name} did not finish within {spec.login_timeout:g} s"
                f"{': ' + words.splitlines()[-1] if words else ''}; check the network, the port "
                "and the jump hosts, or allow more time (login_timeout)",
                destination=name,
                detail=words,
            )
        return diagnosis.connection_error(said, name, config_file=spec.config_file)

    def _not_sharing(self, path: str, probe: Probe, logfile: Path, said: str) -> HoldfastError:
        """The login worked and there is no master: a background ssh is left that nobody reaches."""
        processes.end_by_argument(str(logfile))
        remove_socket(path)
        words = diagnosis.without_debug(said) or probe.detail or probe.state.value
        return MultiplexingUnsupported(
            f"ssh logged in to {self.spec.destination}, but no control master answers: {words}"
        )

    def _place(self, deadline: float) -> str:
        """The path to listen on, free and able to hold a socket."""
        user_path = self.spec.user_path
        if (
            user_path
            and control_path.why_unusable(user_path) is None
            and self._is_free(user_path, deadline)
            and control_path.can_hold_sockets(Path(user_path).parent)
        ):
            return user_path
        own = self.spec.own_path
        if not self._is_free(own, deadline):
            raise ConnectionFailed(
                f"{own} is in the way and is no control socket of ours; remove it",
                destination=str(self.spec.destination),
            )
        if not control_path.can_hold_sockets(Path(own).parent):
            raise MultiplexingUnsupported(
                f"no control socket can be made in {Path(own).parent}: its filesystem does not hold "
                "sockets; set HOLDFAST_RUNTIME_DIR to a private directory on a local disk"
            )
        return own

    def _is_free(self, path: str, deadline: float) -> bool:
        """Whether the path can be bound, after what is provably dead on it has been removed."""
        record = self._records.read(self.spec.name)
        swept = sweep_socket(
            path,
            pid=record.pid if record and record.control_path == path else None,
            local=path == self.spec.own_path or control_path.on_local_filesystem(Path(path).parent),
            stale_timeout=self.spec.stale_timeout,
            deadline=deadline,
        )
        if swept.state is State.STUCK and time.monotonic() >= deadline:
            raise ConnectionFailed(
                f"the master of {self.spec.destination} does not answer",
                destination=str(self.spec.destination),
            )
        return swept.state is State.ABSENT
