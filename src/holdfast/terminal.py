"""The user's terminal on a remote command, and pexpect children: through ``ssh -S -tt``."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Optional

from .errors import ConnectionLost
from .link import Link, log
from .openssh import command, diagnosis, mux_client, version
from .openssh.control_master import Master
from .openssh.diagnosis import Verdict
from .openssh.mux_client import PROBE_TIMEOUT
from .openssh.records import read
from .ready import ready_sessions
from .remote_process import UNKNOWN_SIGNAL
from .sessions import Patience

if TYPE_CHECKING:
    import pexpect

#: What one ``ssh -S`` came to: the command line and its log in, the verdict out.
Attempt = Callable[[list[str], Path, Master], Verdict]

_RECONNECTS = 3  # masters that a command is given which certainly has not started
_POLL = 0.002  # seconds between two looks at the log of an ssh; it has no event to wait for
_END = 2.0  # seconds for an ssh to put the terminal right after a TERM
_SSH_FAILED = 255  # ssh(1): also the status of a command that said so


def interact(link: Link, remote: Optional[str]) -> int:
    """See :meth:`connection.Connection.interact`. :param remote: None for the login shell."""

    def attempt(argv: list[str], logfile: Path, master: Master) -> Verdict:
        return _judged(_run(argv), logfile, master)

    with terminal_kept():
        verdict = _over_master(link, remote, attempt)
        if verdict is None:
            return _plain(link, remote)
    if verdict.lost:
        raise _lost(link, verdict)
    return UNKNOWN_SIGNAL if verdict.returncode is None else verdict.returncode


def spawn(link: Link, remote: Optional[str], arguments: dict[str, Any]) -> pexpect.spawn[Any]:
    """See :meth:`connection.Connection.spawn`. :param arguments: of ``pexpect.spawn``."""
    import pexpect

    tells = version.Feature.LOGS_SESSION_ID.in_version(version.installed_version(link.ssh))
    child: Optional[pexpect.spawn[Any]] = None

    def begin(argv: list[str], logfile: Path, opened: Callable[[str], bool]) -> bool:
        """Whether it is on its way; False if the ssh has ended."""
        nonlocal child
        log.debug("spawning %s", argv)
        child = pexpect.spawn(argv[0], argv[1:], **arguments)
        limit = time.monotonic() + link.settings.login_timeout
        try:
            while child.isalive():
                if opened(read(logfile)):
                    return True
                if time.monotonic() >= limit:
                    # What it says, as of a login: the only thing that can take so long.
                    words = f"{read(logfile)}\nConnection timed out"
                    raise diagnosis.connection_error(words, link.name, config_file=link.config_file)
                time.sleep(_POLL)
        except BaseException:
            child.close(force=True)
            raise
        return False

    def attempt(argv: list[str], logfile: Path, master: Master) -> Verdict:
        if begin(argv, logfile, lambda said: diagnosis.session_opened(said, tells_id=tells)):
            return Verdict()
        assert child is not None
        status = -(child.signalstatus or 0) if child.exitstatus is None else child.exitstatus
        verdict = _judged(status, logfile, master)
        if verdict.lost or verdict.refused:
            child.close()
        return verdict

    verdict = _over_master(link, remote, attempt)
    if verdict is None:
        _spawn_plain(link, remote, begin)
    elif verdict.lost:
        raise _lost(link, verdict)
    assert child is not None
    return child


@contextmanager
def terminal_kept() -> Iterator[None]:
    """Put the terminal of stdin back as it was: a killed ``ssh -tt`` leaves it raw.

    And stdin, stdout and stderr blocking: masters before OpenSSH 8.7 leave them otherwise.
    """
    blocking = {}
    for descriptor in (0, 1, 2):
        with suppress(OSError):
            blocking[descriptor] = os.get_blocking(descriptor)
    modes: Optional[list[Any]] = None
    if os.name == "posix" and os.isatty(0):
        import termios

        modes = termios.tcgetattr(0)
    try:
        yield
    finally:
        if modes is not None:
            with suppress(termios.error):
                termios.tcsetattr(0, termios.TCSADRAIN, modes)
        for descriptor, was in blocking.items():
            with suppress(OSError):
                os.set_blocking(descriptor, was)


def _over_master(link: Link, remote: Optional[str], attempt: Attempt) -> Optional[Verdict]:
    """The verdict on the attempt that had its session; None in plain mode.

    Refusals are waited out, and what certainly has not started is tried again.

    :raises SessionRefused: :raises ConnectionLost: :raises ConnectionFailed:
    """
    patience = Patience(link)
    reconnects = 0
    while True:
        link.forget_master()  # an ssh -S does not ask it first, as a session does
        master = link.live_master(None)
        if master is None:
            return None
        logfile = link.new_log()
        argv = command.run_over_master(
            link.ssh,
            link.destination,
            remote,
            control_path=master.control_path,
            log=str(logfile),
            config_file=link.config_file,
            options=link.session_options(),
            tty=True,
        )
        log.debug("running %s", argv)
        try:
            with patience:
                verdict = attempt(argv, logfile, master)
        finally:
            logfile.unlink(missing_ok=True)
        if verdict.refused:
            link.count(refused=1)
            ready_sessions(link).refused()
            patience.refused(master)
        elif verdict.lost and verdict.started is False:
            reconnects += 1
            if reconnects > _RECONNECTS:
                raise _lost(link, verdict)
        else:
            link.note_session(master)
            link.count(commands=1, reuses=0 if master.started else 1)
            return verdict


def _judged(status: int, logfile: Path, master: Master) -> Verdict:
    alive = mux_client.probe(master.control_path, PROBE_TIMEOUT).pid == master.pid
    return diagnosis.of_shared_session(status, read(logfile), master_alive=alive)


def _lost(link: Link, verdict: Verdict) -> ConnectionLost:
    fate = {
        True: "the command had started and may run on",
        False: "the command has not started",
        None: "whether the command has started is unknown",
    }[verdict.started]
    words = verdict.words.splitlines()
    said = f" (ssh: {words[-1]})" if words else ""
    return ConnectionLost(
        f"the connection to {link.name} was lost; {fate}{said}", started=verdict.started
    )


def _run(argv: list[str]) -> int:
    """An ssh on this process's own streams, to its end."""
    # Its own, and not opened anew: ssh and its master must mean the same terminal as the shell that
    # started this process.
    process = subprocess.Popen(argv)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        try:
            process.wait(_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        raise


def _plain(link: Link, remote: Optional[str]) -> int:
    """A login of its own, on the terminal if there is one."""
    argv = command.run_plain(
        link.ssh,
        link.destination,
        remote,
        log=None,
        config_file=link.config_file,
        options=link.login_options() + link.session_options(),
        tty=True,
        interactive=os.isatty(0),
    )
    log.debug("running %s", argv)
    link.count(commands=1)
    with link.ledger.login(link.name, link.key, "plain") as entry:
        status = _run(argv)
        if status != _SSH_FAILED:
            entry.succeeded()
    return status


def _spawn_plain(
    link: Link,
    remote: Optional[str],
    begin: Callable[[list[str], Path, Callable[[str], bool]], bool],
) -> None:
    logfile = link.new_log()
    argv = command.run_plain(
        link.ssh,
        link.destination,
        remote,
        log=str(logfile),
        config_file=link.config_file,
        options=link.login_options() + link.session_options(),
        tty=True,
    )
    link.count(commands=1)
    try:
        with link.ledger.login(link.name, link.key, "plain") as entry:
            begin(argv, logfile, diagnosis.authenticated)
            said = read(logfile)
            if diagnosis.authenticated(said):
                entry.succeeded()
                return
            entry.failed(diagnosis.classify(diagnosis.without_debug(said))[0].value)
    finally:
        logfile.unlink(missing_ok=True)
    raise diagnosis.connection_error(said, link.name, config_file=link.config_file)
