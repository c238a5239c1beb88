"""How files travel: scp(1), over the live master."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

from . import aside, sessions
from .errors import TransferFailed
from .link import Link, log
from .openssh import command, diagnosis, version
from .openssh.mux_session import SessionNotOpened
from .openssh.quoting import Word, local_operand, remote_command, scp_operand

_OTHER = diagnosis.Kind.OTHER
_ASIDE = 30.0  # seconds for a small command that finds out what went wrong


@dataclass(frozen=True)
class _Outcome:
    """What one scp has said. :ivar words: its stderr, and that of its ssh."""

    returncode: int
    words: str

    @property
    def refused(self) -> bool:
        return self.returncode != 0 and "Session open refused by peer" in self.words

    @property
    def no_sftp(self) -> bool:
        """The far side has no sftp server: it refused the subsystem, or could not start it."""
        # Where the subsystem names a program that is not there, scp only sees its session close;
        # but that is also its last word after a failed login or a lost connection.
        before, closed, after = self.words.strip().rpartition("scp: Connection closed")
        return self.returncode != 0 and (
            "subsystem request failed" in self.words
            or ("sftp-server" in self.words and "not found" in self.words)
            or (bool(closed) and not after and diagnosis.classify(before)[0] is _OTHER)
        )


def put(link: Link, local: Word, remote: Word, *, preserve: bool) -> None:
    """See :meth:`connection.Connection.put`."""
    source = os.fsdecode(local)
    if not os.path.exists(source):
        raise TransferFailed(f"{source!r} does not exist on this machine; nothing was sent")
    _copy(link, source, os.fsdecode(remote), fetch=False, preserve=preserve)


def get(link: Link, remote: Word, local: Word, *, preserve: bool) -> None:
    """See :meth:`connection.Connection.get`."""
    _copy(link, os.fsdecode(remote), os.fsdecode(local), fetch=True, preserve=preserve)


def _copy(link: Link, source: str, target: str, *, fetch: bool, preserve: bool) -> None:
    outcome = _Outcome(1, "subsystem request failed")
    ssh_version = version.installed_version(link.ssh)
    can_choose = version.Feature.SCP_OVER_SFTP.in_version(ssh_version)
    if can_choose and not link.without_sftp:
        outcome = _attempt(link, source, target, fetch=fetch, preserve=preserve, legacy=False)
    if outcome.no_sftp or not can_choose:
        if can_choose and not link.without_sftp:
            log.info("%s has no sftp server; copying with scp's old protocol", link.name)
            link.without_sftp = True
        _refuse_newlines(link, source, target, fetch)
        outcome = _attempt(link, source, target, fetch=fetch, preserve=preserve, legacy=can_choose)
    if outcome.returncode == 0:
        return
    what = f"copying {source!r} {'from' if fetch else 'to'} {link.name} failed: "
    noise = _noise(link)
    if noise:
        raise TransferFailed(
            f"{what}the rc files of the account (.bashrc, .cshrc, ...) print on stdout, which no "
            f"transfer survives: {noise[:100]!r}. Let them print in interactive shells only",
            detail=outcome.words,
        )
    raise TransferFailed(
        f"{what}{outcome.words or f'scp ended with {outcome.returncode} and said nothing'}",
        detail=outcome.words,
    )


def _attempt(
    link: Link, source: str, target: str, *, fetch: bool, preserve: bool, legacy: bool
) -> _Outcome:
    """One scp that got its session, or a login of its own in plain mode."""
    patience = sessions.Patience(link)
    remote_shell = legacy or not version.Feature.SCP_OVER_SFTP.in_version(
        version.installed_version(link.ssh)
    )

    def scp(control_path: Optional[str]) -> _Outcome:
        far = command.remote_operand(
            link.destination,
            scp_operand(source if fetch else target, remote_shell=remote_shell, fetch=fetch),
        )
        near = local_operand(target if fetch else source)
        argv = command.scp(
            version.find_program("scp"),
            [far if fetch else near],
            near if fetch else far,
            ssh=link.ssh,
            control_path=control_path,
            port=link.destination.port,
            config_file=link.config_file,
            options=link.options if control_path else link.login_options(),
            recursive=fetch or os.path.isdir(source),
            preserve=preserve,
            legacy=legacy,
        )
        log.debug("running %s", argv)
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        return _Outcome(done.returncode, done.stderr.decode("utf-8", "replace").strip())

    while True:
        master = link.live_master(None)
        if master is None:
            return _with_login(link, scp)
        with patience:
            outcome = scp(master.control_path)
        if not outcome.refused:
            link.count(commands=1, reuses=0 if master.started else 1)
            return outcome
        link.count(refused=1)
        patience.refused(master)


def _with_login(link: Link, scp: Callable[[Optional[str]], _Outcome]) -> _Outcome:
    with link.ledger.login(link.name, link.key, "plain") as entry:
        outcome = scp(None)
        kind = diagnosis.classify(diagnosis.without_debug(outcome.words))[0]
        # scp does not tell whether it logged in; what it says when it could not is known.
        if outcome.returncode == 0 or kind is diagnosis.Kind.OTHER:
            entry.succeeded()
        else:
            entry.failed(kind.value)
    link.count(commands=1)
    if entry.ok is False and kind in diagnosis.NO_LOGIN:
        raise diagnosis.connection_error(outcome.words, link.name, config_file=link.config_file)
    return outcome


def _noise(link: Link) -> str:
    """What the account prints for a command that prints nothing."""
    return _output(link, ["true"])


def _output(link: Link, words: list[str]) -> str:
    """The stdout of a small command on a master that is there; nothing if there is none."""
    master = None if link.why_no_sharing() else link.control_master().find()
    if master is None:
        return ""
    try:
        said = aside.output(master, remote_command(words), time.monotonic() + _ASIDE)
    except (SessionNotOpened, TimeoutError):
        return ""
    return said.decode("utf-8", "replace").strip()


def _refuse_newlines(link: Link, source: str, target: str, fetch: bool) -> None:
    """scp's old protocol writes a newline in a name as ``\\^J``: better no copy than another name."""
    if fetch:
        names = [source, _output(link, ["find", source, "-name", "*\n*"])]
    else:
        names = [
            source,
            target,
            *(name for _, dirs, files in os.walk(source) for name in dirs + files),
        ]
    for name in names:
        if "\n" in name:
            raise TransferFailed(
                f"{name!r} holds a newline, which a server without sftp cannot be sent; "
                "nothing was copied"
            )
