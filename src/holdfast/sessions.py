"""Sessions: a command gets one on the master, waits for one that is free, or logs in by itself."""

from __future__ import annotations

import random
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Optional

from .errors import ConnectionLost, SessionRefused
from .link import Link, log
from .openssh import command as ssh_command
from .openssh import diagnosis, mux_client
from .openssh.control_master import Master
from .openssh.diagnosis import Verdict
from .openssh.sweep import PROBE_TIMEOUT
from .remote_process import RemoteProcess, Stream

Streams = tuple[Stream, Stream, Stream]
_NOTHING: Streams = (subprocess.DEVNULL, subprocess.DEVNULL, subprocess.DEVNULL)

#: A master that has never given a session is asked so often before its willingness is questioned;
#: another program may hold the only one for a moment. Seconds between the tries.
_FIRST_REFUSALS = (0.1, 0.3, 0.6, 1.0)
_LONGEST_PAUSE = 1.0  # seconds between two tries for a session that others hold
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
    """A process that has its session (or has ended already); refusals are waited out here.

    :param args: the command as the caller wrote it. :param remote: as the login shell gets it.
    :param deadline: of time.monotonic().
    :raises subprocess.TimeoutExpired: the deadline came first; nothing has started.
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
        process = _shared(link, args, remote, streams, tty, master)
        ended = _until_opened(process, deadline)
        if ended is None or ended.started is not False:
            if ended is None or not ended.lost:
                link.note_session(master)
            link.count(commands=1, reuses=0 if master.started else 1)
            return process
        process.discard()
        if ended.refused:
            patience.refused(master)
            continue
        # The master went away before it had read the request. Nothing has started.
        reconnects += 1
        if reconnects > _RECONNECTS:
            raise ConnectionLost(
                f"the connection to {link.name} is lost as soon as it is made; the command has "
                f"not started. ssh says: {ended.words or 'nothing'}",
                started=False,
            )


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
        if link.has_given_sessions(master) or link.gate.open:
            pause = min(_LONGEST_PAUSE, 0.02 * 1.5 ** min(self._tries, 20))
        elif self._tries < len(_FIRST_REFUSALS):
            pause = _FIRST_REFUSALS[self._tries]
        else:
            _judge_refusals(link)
            return
        self._tries += 1
        left = self._left()
        if left <= 0:
            self._give_up()
        link.gate.pause(min(left, pause * random.uniform(0.5, 1.0)))  # noqa: S311

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
    link: Link, args: Any, remote: str, streams: Streams, tty: bool, master: Master
) -> RemoteProcess:
    """An ``ssh -S``. The caller's place at the gate is its own now, given back at its end."""
    logfile = link.new_log()

    def judge(status: int) -> Verdict:
        alive = mux_client.probe(master.control_path, PROBE_TIMEOUT).pid == master.pid
        return diagnosis.of_shared_session(status, _take(logfile), master_alive=alive)

    def on_end(verdict: Verdict) -> None:
        link.gate.leave(refused=verdict.refused)
        link.count(refused=1 if verdict.refused else 0)

    try:
        argv = ssh_command.run_over_master(
            link.ssh,
            link.destination,
            remote,
            control_path=master.control_path,
            log=str(logfile),
            config_file=link.config_file,
            options=link.session_options(),
            tty=tty,
        )
        client = _start_client(argv, streams)
    except BaseException:
        link.gate.leave()
        raise
    return RemoteProcess(args, link.name, client, logfile, judge, on_end)


def _until_opened(process: RemoteProcess, deadline: Optional[float]) -> Optional[Verdict]:
    """Until the client has its session (None) or has ended (what became of it)."""
    while not process.client_has_ended():
        if diagnosis.session_opened(read_log(process.logfile)):
            return None
        if deadline is not None and time.monotonic() >= deadline:
            process.discard()
            raise subprocess.TimeoutExpired("ssh", 0.0)
        time.sleep(_OPENING_POLL)
    return process.verdict()


def _plain(
    link: Link, args: Any, remote: str, streams: Streams, tty: bool, deadline: Optional[float]
) -> RemoteProcess:
    """A login for one command, counted; returns once the command is sent."""
    logfile = link.new_log()
    argv = ssh_command.run_plain(
        link.ssh,
        link.destination,
        remote,
        log=str(logfile),
        config_file=link.config_file,
        options=link.login_options() + link.session_options(),
        tty=tty,
    )
    link.count(commands=1)
    with link.ledger.login(link.name, link.key, "plain") as entry:
        process = RemoteProcess(
            args,
            link.name,
            _start_client(argv, streams),
            logfile,
            lambda status: diagnosis.of_plain_session(status, _take(logfile)),
        )
        limit = time.monotonic() + link.settings.login_timeout
        ends = limit if deadline is None else min(limit, deadline)
        while True:
            ended = process.client_has_ended()
            said = read_log(logfile)
            if ended or diagnosis.command_sent(said):
                break
            if time.monotonic() >= ends:
                process.discard()
                entry.failed("timeout")
                if ends < limit:
                    raise subprocess.TimeoutExpired("ssh", 0.0)
                said += f"\nno login within {limit:g} s: Connection timed out"
                raise diagnosis.connection_error(said, link.name, config_file=link.config_file)
            time.sleep(_OPENING_POLL)
        if diagnosis.authenticated(said):
            entry.succeeded()
        else:
            entry.failed(diagnosis.classify(diagnosis.without_debug(said))[0].value)
    if ended:
        verdict = process.verdict()
        if verdict.refused:
            raise SessionRefused(f"{link.name} refused to open a session: {verdict.words}")
        if verdict.lost and verdict.started is False:
            raise diagnosis.connection_error(said, link.name, config_file=link.config_file)
    return process


def _start_client(argv: list[str], streams: Streams) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = streams
    log.debug("running %s", argv)
    return subprocess.Popen(argv, stdin=stdin, stdout=stdout, stderr=stderr)


def read_log(path: Path) -> str:
    """What a client has said so far; nothing if there is no log."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _take(path: Path) -> str:
    text = read_log(path)
    with suppress(OSError):
        path.unlink()
    return text
