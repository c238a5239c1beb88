"""The life of a control master: found, started under a lock, verified, drained, ended; and the
sweep of what dead ones leave.

What is on disk, all in the runtime directory and named by :func:`control_path.socket_name`:
``NAME`` the socket (or it listens on the user's own ControlPath), ``NAME.json`` the record of the
master that we started, ``NAME.lock`` the lock around probe, sweep and start, ``NAME.log`` what
the master had to say.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
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
from .mux_client import MuxError, Probe, State
from .options import Options

log = logging.getLogger("holdfast")

#: Seconds for one alive check: a healthy master answers in 0.05 ms.
PROBE_TIMEOUT = 2.0
_STOP_TIMEOUT = 5.0  # seconds for a master to take a stop or exit request
_POLL = 0.05  # seconds between two looks at something that gives no event


@dataclass(frozen=True)
class MasterSpec:
    """What a master is to be.

    :ivar ssh: path of the program. :ivar destination: as the user wrote it.
    :ivar runtime: the runtime directory. :ivar name: see :func:`control_path.socket_name`.
    :ivar key: see :func:`control_path.connection_key`.
    :ivar user_path: the user's own ControlPath, None if there is none, or not for this purpose.
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
    persist: int = 600
    login_timeout: float = 60.0
    stale_timeout: float = 30.0

    @property
    def own_path(self) -> str:
        return str(control_path.socket_directory(self.runtime) / self.name)


@dataclass(frozen=True)
class Record:
    """What is kept of a master that we started.

    :ivar pid: as the master itself has told; it can be ended by it when its socket is gone.
    :ivar started: seconds since the epoch. :ivar sessions: it has given at least one session.
    """

    destination: str
    control_path: str
    pid: int
    purpose: str
    key: str
    started: float
    ssh: str
    config_file: Optional[str] = None
    sessions: bool = False


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
            probe = mux_client.probe(path, _within(PROBE_TIMEOUT, deadline))
            if probe.state is State.ALIVE and probe.pid is not None:
                return Master(path, probe.pid, self._is_ours(path, probe.pid))
        return None

    def ensure(self, deadline: float = math.inf) -> Master:
        """The live master; started with one login if there is none.

        However many threads and processes call it at once, one of them logs in.

        :param deadline: of time.monotonic(): to have failed by then, with any ConnectionFailed.
        :raises ConnectionFailed: and its kinds, if the login fails, or another process is at it
            for longer than ``login_timeout``.
        :raises MultiplexingUnsupported: no place can hold its socket.
        """
        return self.find(deadline) or self._start_under_lock(deadline, interactive=False)

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

    def end_dead_link(self) -> bool:
        """End our master by all means: its server does not answer. True if there was one."""
        record = self._records.read(self.spec.name)
        ended = False
        with suppress(MuxError):
            ended = self.exit()
        if record is not None and processes.is_master(record.pid, record.control_path):
            ended = processes.end(record.pid) or ended
        return ended

    def note_session(self) -> None:
        """Remember, for all processes, that this master gives sessions."""
        record = self._records.read(self.spec.name)
        if record is not None and not record.sessions:
            self._records.write(self.spec.name, replace(record, sessions=True))

    def has_given_sessions(self) -> bool:
        """Whether any process has had a session of our master."""
        record = self._records.read(self.spec.name)
        return record is not None and record.sessions

    def _paths(self) -> Iterator[str]:
        if self.spec.user_path:
            yield self.spec.user_path
        yield self.spec.own_path

    def _is_ours(self, path: str, pid: int) -> bool:
        record = self._records.read(self.spec.name)
        return record is not None and (record.control_path, record.pid) == (path, pid)

    def _start_under_lock(self, deadline: float, *, interactive: bool) -> Master:
        lock = self.spec.runtime / f"{self.spec.name}.lock"
        patience = _within(self.spec.login_timeout + self.spec.stale_timeout, deadline)
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
        )
        log.info("login to %s: starting a master on %s", spec.destination, path)
        kind = "open" if interactive else "master"
        with self._ledger.login(str(spec.destination), spec.key, kind) as entry:
            patience = None if terminal else _within(spec.login_timeout, deadline)
            returncode = self._login(argv, logfile, patience)
            said = "" if terminal else _read(logfile)
            if returncode != 0:
                entry.failed(diagnosis.classify(diagnosis.without_debug(said))[0].value)
                raise self._login_error(returncode, said, terminal)
            entry.succeeded()
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
        _remove_socket(path)
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
            and can_hold_sockets(Path(user_path).parent)
        ):
            return user_path
        own = self.spec.own_path
        if not self._is_free(own, deadline):
            raise ConnectionFailed(
                f"{own} is in the way and is no control socket of ours; remove it",
                destination=str(self.spec.destination),
            )
        if not can_hold_sockets(Path(own).parent):
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


@dataclass(frozen=True)
class Swept:
    """What the sweep made of one socket.

    :ivar state: as it is now: ABSENT after a removal.
    :ivar removed: there was a dead one. :ivar ended: the pid that was ended for it.
    """

    path: str
    state: State
    removed: bool = False
    ended: Optional[int] = None
    pid: Optional[int] = None


def sweep_socket(
    path: str,
    *,
    pid: Optional[int],
    local: bool,
    stale_timeout: float,
    deadline: float = math.inf,
) -> Swept:
    """Remove a socket if its master is provably dead, or has not answered for too long.

    :param pid: of the master that we started there, None if we started none: then a master that
        does not answer is left alone, whoever it belongs to.
    :param local: a refused connection proves that it is dead, as no other machine can have bound
        it.
    :param stale_timeout: seconds without an answer to any alive check.
    :param deadline: of time.monotonic(): when to give up before that.
    """
    stale = time.monotonic() + stale_timeout
    while True:
        before = _inode(path)
        probe = mux_client.probe(path, _within(min(PROBE_TIMEOUT, stale_timeout), deadline))
        if probe.state is State.ABSENT or probe.state is State.ALIVE:
            return Swept(path, probe.state, pid=probe.pid)
        if probe.state is State.DEAD:
            if not local or before is None or _inode(path) != before:
                return Swept(path, probe.state)
            log.info("removing the dead control socket %s", path)
            _remove_socket(path)
            return Swept(path, State.ABSENT, removed=True)
        if probe.state is State.FOREIGN or pid is None:
            return Swept(path, probe.state)
        now = time.monotonic()
        if now >= deadline:
            return Swept(path, probe.state)
        if now >= stale:
            break
        time.sleep(max(0.0, min(0.5, stale - now, deadline - now)))
    if not processes.is_master(pid, path):
        return Swept(path, State.STUCK)
    log.warning("ending the master of %s (pid %d): no answer for %g s", path, pid, stale_timeout)
    processes.end(pid)
    _remove_socket(path)
    return Swept(path, State.ABSENT, removed=True, ended=pid)


class Records:
    """The records of the masters that we started on this machine."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime

    def read(self, name: str) -> Optional[Record]:
        try:
            return Record(**json.loads((self._runtime / f"{name}.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, name: str, record: Record) -> None:
        path = self._runtime / f"{name}.json"
        fresh = path.with_suffix(f".json.{secrets.token_hex(6)}")
        try:
            fresh.write_text(json.dumps(asdict(record)), encoding="utf-8")
            fresh.replace(path)
        except OSError as error:
            # Without a record the master works all the same; it counts as found, not as ours.
            log.warning("%s cannot be written: %s", path, error.strerror)
            fresh.unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        for suffix in (".json", ".log", ".lock"):
            (self._runtime / f"{name}{suffix}").unlink(missing_ok=True)

    def names(self) -> list[str]:
        """All masters of this machine that have left a trace, sorted."""
        found = {
            entry.name.rsplit(".", 1)[0]
            for entry in self._runtime.iterdir()
            if entry.suffix in (".json", ".lock", ".log")
        }
        found |= {
            entry.name
            for entry in control_path.socket_directory(self._runtime).iterdir()
            if stat.S_ISSOCK(entry.lstat().st_mode) and len(entry.suffix) > 1
        }
        return sorted(name for name in found if control_path.of_this_host(name))


def sweep(
    runtime: Path, *, stale_timeout: float, lock_timeout: float = 1.0
) -> Iterator[tuple[str, Swept]]:
    """Clean up after dead masters of this machine, whoever of the user's processes started them.

    Yields (name, what became of it) for every name that had something to sweep. A name that
    another process is working on is left to it.
    """
    records = Records(runtime)
    for name in records.names():
        lock = FileLock(runtime / f"{name}.lock", lock_timeout)
        try:
            with lock:
                record = records.read(name)
                path = (
                    record.control_path
                    if record
                    else str(control_path.socket_directory(runtime) / name)
                )
                swept = sweep_socket(
                    path,
                    pid=record.pid if record else None,
                    local=not record
                    or Path(path).name == name
                    or control_path.on_local_filesystem(Path(path)),
                    stale_timeout=stale_timeout,
                )
                if swept.state is State.ABSENT and not (
                    record and processes.is_master(record.pid, record.control_path)
                ):
                    records.forget(name)
                if swept.removed or swept.state is not State.ALIVE:
                    yield name, swept
        except LockTimeout:
            continue


def _within(seconds: float, deadline: float) -> float:
    """At most so many seconds, and not beyond the deadline; never nothing at all."""
    return max(0.01, min(seconds, deadline - time.monotonic()))


def _inode(path: str) -> Optional[tuple[int, int]]:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISSOCK(status.st_mode) else None


def _remove_socket(path: str) -> None:
    if _inode(path) is not None:
        with suppress(FileNotFoundError):
            os.unlink(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def can_hold_sockets(directory: Path) -> bool:
    """Whether a socket can be bound and linked here; some network filesystems cannot."""
    unique = secrets.token_hex(6)  # other threads and processes look, too
    first = directory / f".t{unique}"
    second = directory / f".u{unique}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(str(first))
            os.link(first, second)
    except OSError:
        return False
    finally:
        for path in (first, second):
            with suppress(OSError):
                path.unlink()
    return True
