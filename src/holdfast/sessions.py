"""Sessions: a command gets one on the master, waits for one that is free, or logs in by itself."""

from __future__ import annotations

import math
import os
import subprocess
import time
from types import TracebackType
from typing import Any, Optional

from .errors import ConfigError, ConnectionLost, SessionRefused
from .link import Link, log
from .marker import marked, new_nonce
from .mux_process import MuxProcess
from .openssh import command as ssh_command
from .openssh import diagnosis, mux_client, version
from .openssh.control_master import Master
from .openssh.diagnosis import Verdict
from .openssh.mux_client import PROBE_TIMEOUT
from .openssh.mux_session import Session, SessionNotOpened
from .pipes import Pipes, Stream
from .ready import Ready, ready_sessions
from .remote_kill import RemoteSignaller
from .remote_process import RemoteProcess
from .ssh_process import SshProcess

Streams = tuple[Stream, Stream, Stream]
_NOTHING: Streams = (subprocess.DEVNULL, subprocess.DEVNULL, subprocess.DEVNULL)

#: A master that has never given a session is asked so often before its willingness is questioned;
#: another program may hold the only one for a moment. Seconds between the tries.
_FIRST_REFUSALS = (0.1, 0.3, 0.6, 1.0)
_LONGEST_PAUSE = 1.0  # seconds between two tries for a session that others hold
_CROWD = 2  # sessions at once, up to which ready ones pay
_RECONNECTS = 3  # a command that certainly has not started is given so many masters
_OPENING_POLL = 0.001  # seconds between two looks at a client's log; it has no event to wait for


def start(
    link: Link,
    args: Any,
    remote: str,
    streams: Streams,
    *,
    tty: bool = False,
    deadline: Optional[float] = None,
) -> RemoteProcess:
    """A process that has its session; refusals are waited out here.

    Sessions are opened on the control socket directly; a terminal, and a master that speaks another
    version of the protocol, takes an ``ssh -S``.

    :param args: the command as the caller wrote it. :param remote: as the login shell gets it.
    :param deadline: of time.monotonic().
    :raises subprocess.TimeoutExpired: the deadline came first; nothing has started.
    :raises OpeningTimeout: it came while the session was opening; it may have started.
    :raises SessionRefused: no session within ``session_timeout``, or none ever.
    :raises ConnectionFailed: and its kinds. :raises ConnectionLost: nothing has started.
    """
    patience = Patience(link, deadline)
    reconnects = 0
    while True:
        master = link.live_master(deadline)
        if master is None:
            return _plain(link, args, remote, streams, tty, deadline)
        patience.enter()
        try:
            if tty or not link.speaks_mux:
                process: RemoteProcess = _by_client(
                    link, args, remote, streams, master, tty, deadline
                )
            else:
                process = _shared(link, args, remote, streams, master, deadline)
        except SessionNotOpened as error:
            link.forget_master()
            if error.refused:
                link.count(refused=1)
                ready_sessions(link).refused()
                patience.refused(master)
                continue
            if error.foreign:
                log.info("%s: sessions by ssh -S: %s", link.name, error)
                link.speaks_mux = False
                continue
            if error.started is None:
                raise ConnectionLost(
                    f"the connection to {link.name} was lost while a session was opening; "
                    f"whether the command has started is unknown ({error})",
                    started=None,
                ) from None
            if deadline is not None and time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired("ssh", 0.0) from None
            # The master went away before it had read the request. Nothing has started.
            reconnects += 1
            if reconnects > _RECONNECTS:
                raise ConnectionLost(
                    f"the connection to {link.name} is lost as soon as it is made; the command "
                    f"has not started ({error})",
                    started=False,
                ) from None
            continue
        link.note_session(master)
        link.count(commands=1, reuses=0 if master.started else 1)
        return process


class OpeningTimeout(Exception):
    """The deadline came while a session was opening: nobody knows whether the command started."""


class Patience:
    """One command's wait for a session: its place at the gate, and the pauses between tries."""

    def __init__(self, link: Link, deadline: Optional[float] = None) -> None:
        self._link = link
        self._deadline = deadline
        self._limit = time.monotonic() + link.settings.session_timeout
        self._tries = 0

    def enter(self) -> None:
        """Take a place. :raises SessionRefused, subprocess.TimeoutExpired: none in time."""
        if not self._link.gate.enter(self._left()):
            self._give_up()

    def refused(self, master: Master) -> None:
        """After a refusal (the place is given back): pause, or find out that it is hopeless."""
        link = self._link
        full = link.has_given_sessions(master) or mux_client.has_clients(master.control_path)
        if full or link.gate.open:
            pause = min(_LONGEST_PAUSE, 0.02 * 1.5 ** min(self._tries, 20))
        elif self._tries < len(_FIRST_REFUSALS):
            pause = _FIRST_REFUSALS[self._tries]
        else:
            _judge_refusals(link)
            return
        self._tries += 1
        link.gate.pause(min(self._left(), pause * _jitter()))
        if self._left() <= 0:  # asked once more now, nobody could tell whether it had started
            self._give_up()

    def _left(self) -> float:
        ends = self._limit if self._deadline is None else min(self._limit, self._deadline)
        return max(0.0, ends - time.monotonic())

    def _give_up(self) -> None:
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise subprocess.TimeoutExpired("ssh", 0.0)
        raise SessionRefused(
            f"{self._link.name} gave no session within {self._link.settings.session_timeout:g} s, as "
            "others hold all of them; the command has not started. End some, or allow more time "
            "(session_timeout)"
        )

    def __enter__(self) -> None:
        self.enter()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._link.gate.leave()


def _jitter() -> float:
    from random import uniform  # 3 ms to import, for what only a refusal needs

    return uniform(0.5, 1.0)  # noqa: S311


def _judge_refusals(link: Link) -> None:
    """The master has never given a session: is it the sharing, or the server?

    One plain ``true``, one counted login, tells; then plain mode is on.

    :raises SessionRefused: the server gives no session at all.
    """
    try:
        _plain(link, "true", "true", _NOTHING, False, None).wait()
    except (SessionRefused, ConnectionLost):
        raise SessionRefused(
            f"{link.name} lets you log in and gives no session at all (MaxSessions 0?); the command "
            "has not started. Ask its administrators"
        ) from None
    link.fall_back("the server refuses every session on a shared connection")


def _shared(
    link: Link,
    args: Any,
    remote: str,
    streams: Streams,
    master: Master,
    deadline: Optional[float],
) -> RemoteProcess:
    """A session on the control socket. The caller's place at the gate is its own now."""
    pipes: Optional[Pipes] = None
    given = _ready_session(link, remote, streams, master)
    try:
        if given is not None:
            session, pipes = given.session, given.pipes
        else:
            pipes, line = _with_marker(link, remote, streams)
            began = time.monotonic()
            session = Session.open(
                master.control_path,
                os.fsencode(line),
                pipes.theirs,
                math.inf if deadline is None else deadline,
                environment=link.session_environment(),
                agent=link.forwards_agent(),
            )
            if link.gate.open == 1:
                link.note_round_trip(time.monotonic() - began)
    except BaseException as error:
        link.gate.leave(refused=isinstance(error, SessionNotOpened) and error.refused)
        if pipes is not None:
            pipes.close_ours()
        if isinstance(error, TimeoutError):
            raise OpeningTimeout from None
        if isinstance(error, ValueError):
            raise ConfigError(f"the command cannot be sent: {error}") from None
        raise
    finally:
        if pipes is not None:
            pipes.close_theirs()
    log.debug("session on %s: %.200s", master.control_path, remote)
    pipes.start_relay()
    pipe, path = pipes.marked, master.control_path
    if session.master_pid != master.pid:  # somebody has started it anew
        link.forget_master()

    def on_end() -> None:
        link.gate.leave()
        link.learn_shell(pipe.found if pipe else None)

    # None for a process with one command only; nor for a crowd, which opens its sessions at once.
    if link.has_run_commands() and link.gate.open + link.gate.waiting <= _CROWD:
        ready_sessions(link).prepare(master)
    return MuxProcess(
        args,
        link.name,
        session,
        pipes,
        RemoteSignaller(link),
        lambda: mux_client.probe(path, PROBE_TIMEOUT).pid == session.master_pid,
        on_end,
        certainly_started=given is None,
    )


def _ready_session(link: Link, remote: str, streams: Streams, master: Master) -> Optional[Ready]:
    """A session opened ahead of time, if there is one and the streams are pipes."""
    stdin, stdout, stderr = streams
    pipe = subprocess.PIPE
    if stdin not in (pipe, subprocess.DEVNULL) or (stdout, stderr) != (pipe, pipe):
        return None
    ready = ready_sessions(link).take(master, remote)
    if ready is not None and stdin == subprocess.DEVNULL:
        ready.pipes.close_stdin()
    return ready


def _with_marker(link: Link, remote: str, streams: Streams) -> tuple[Pipes, str]:
    """The pipes of a command, and the command with a line in front that names its process."""
    if not link.settings.track_processes or os.name != "posix":
        return Pipes(*streams), remote
    nonce = new_nonce()
    pipes = Pipes(*streams, nonce)
    line = marked(remote, nonce, shell=link.shell, to_stderr=pipes.marker_to_stderr)
    return pipes, line


def _by_client(
    link: Link,
    args: Any,
    remote: str,
    streams: Streams,
    master: Master,
    tty: bool,
    deadline: Optional[float],
) -> RemoteProcess:
    """An ``ssh -S``. The caller's place at the gate is its own now, given back at its end."""
    logfile = link.new_log()
    pipes, line = (Pipes(*streams), remote) if tty else _with_marker(link, remote, streams)

    def judge(status: int, said: str) -> Verdict:
        alive = mux_client.probe(master.control_path, PROBE_TIMEOUT).pid == master.pid
        return diagnosis.of_shared_session(status, said, master_alive=alive)

    def ended(verdict: Verdict) -> None:
        link.gate.leave(refused=verdict.refused)
        link.learn_shell(pipes.marked.found if pipes.marked else None)

    try:
        argv = ssh_command.run_over_master(
            link.ssh,
            link.destination,
            line,
            control_path=master.control_path,
            log=str(logfile),
            config_file=link.config_file,
            options=link.session_options(),
            tty=tty,
        )
        client = _start_client(argv, pipes)
    except BaseException:
        link.gate.leave()
        raise
    process = SshProcess(
        args,
        link.name,
        client,
        pipes,
        RemoteSignaller(link),
        logfile,
        judge,
        ended,
    )
    tells = version.Feature.LOGS_SESSION_ID.in_version(version.installed_version(link.ssh))
    while not process.carrier_ended():
        if diagnosis.session_opened(process.log_so_far(), tells_id=tells):
            return process
        if deadline is not None and time.monotonic() >= deadline:
            process.discard()
            raise OpeningTimeout
        time.sleep(_OPENING_POLL)
    verdict = process.verdict()
    if verdict.started is False:
        process.discard()
        raise SessionNotOpened(verdict.words, refused=verdict.refused, started=False)
    return process


def _plain(
    link: Link, args: Any, remote: str, streams: Streams, tty: bool, deadline: Optional[float]
) -> RemoteProcess:
    """A login for one command, counted; returns once the command is sent."""
    logfile = link.new_log()
    pipes, line = (Pipes(*streams), remote) if tty else _with_marker(link, remote, streams)
    argv = ssh_command.run_plain(
        link.ssh,
        link.destination,
        line,
        log=str(logfile),
        config_file=link.config_file,
        options=link.login_options() + link.session_options(),
        tty=tty,
    )
    link.count(commands=1)
    with link.ledger.login(link.name, link.key, "plain") as entry:
        process = SshProcess(
            args,
            link.name,
            _start_client(argv, pipes),
            pipes,
            RemoteSignaller(link),
            logfile,
            diagnosis.of_plain_session,
        )
        limit = time.monotonic() + link.settings.login_timeout
        ends = limit if deadline is None else min(limit, deadline)
        while True:
            ended = process.carrier_ended()
            said = process.log_so_far()
            if ended or diagnosis.command_sent(said):
                break
            if time.monotonic() >= ends:
                process.discard()
                entry.failed("timeout")
                if ends < limit:
                    raise subprocess.TimeoutExpired("ssh", 0.0)
                patience = link.settings.login_timeout
                said += f"\nno login within {patience:g} s: Connection timed out"
                raise diagnosis.connection_error(said, link.name, config_file=link.config_file)
            time.sleep(_OPENING_POLL)
        if diagnosis.authenticated(said):
            entry.succeeded()
        else:
            entry.failed(diagnosis.classify(diagnosis.without_debug(said))[0].value)
    if ended:
        verdict = process.verdict()
        if verdict.started is False:
            process.discard()
        if verdict.refused:
            raise SessionRefused(f"{link.name} refused to open a session: {verdict.words}")
        if verdict.lost and verdict.started is False:
            raise diagnosis.connection_error(said, link.name, config_file=link.config_file)
    return process


def _start_client(argv: list[str], pipes: Pipes) -> subprocess.Popen[bytes]:
    log.debug("running %s", argv)
    stdin, stdout, stderr = pipes.theirs
    try:
        client = subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr)
    except BaseException:
        pipes.close_ours()
        raise
    finally:
        pipes.close_theirs()
    pipes.start_relay()
    return client
