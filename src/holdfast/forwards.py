"""Forwards: ports and unix sockets of one machine that lead to the other's side."""

from __future__ import annotations

import atexit
import hashlib
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Optional, Protocol

from . import aside
from .errors import ConfigError, ConnectionLost, SessionRefused
from .link import Link, log
from .openssh import command, diagnosis, listening, processes
from .openssh.control_master import Master
from .openssh.file_lock import FileLock, LockTimeout
from .openssh.forwarding import Endpoint, Forwarding
from .openssh.mux_client import Forwarder, ForwardNotOpened, MuxError
from .openssh.mux_session import SessionNotOpened
from .openssh.quoting import remote_command
from .openssh.records import read

_PATIENCE = 15.0  # seconds for the far side to open a port; a round trip, on a link that may stall
_CLOSE_PATIENCE = 5.0  # seconds for the master to close one, which is local
_RECONNECTS = 3  # masters that a forward is given which certainly is not open
_FREE_PORTS = 5  # ports tried where any will do, as another program may be faster
_SLICE = 0.5  # seconds; a wait looks so often whether the forward was closed meanwhile
_POLL = 0.01  # seconds between two looks at the log of an ssh; it has no event to wait for


class Carrier(Protocol):
    """What holds a forward open: a control master, or an ssh process."""

    port: Optional[int]  # that the server has chosen

    def ended(self, timeout: float) -> bool:
        """Whether it is gone. :param timeout: seconds to wait for that."""

    def close(self) -> None:
        """End the forward; raises nothing."""

    def abandon(self) -> None:
        """In a forked child: the forward is its parent's."""


class Forward:
    """A forward that is open; :meth:`Connection.forward_local` and its kin make it.

    It lasts until :meth:`close`, the end of its ``with`` block, of its connection
    (``Connection.close``) or of this process; not through a kill -9, after which it ends with the
    master. If the master ends or the connection is lost it is gone for good: a new master
    does not have it, and nobody opens it again but you.

    :ivar kind: "local", "remote" or "dynamic". :ivar destination: the host on the other side.
    :ivar port: where it listens, also if any free one was asked for; None for a unix socket.
    :ivar listen: where it listens, as text: ``127.0.0.1:8888``, or the path of a unix socket.
    :ivar target: where it leads, as text; "SOCKS" for a dynamic one.
    """

    def __init__(self, link: Link, forwarding: Forwarding, carrier: Carrier) -> None:
        listen = forwarding.listen
        if carrier.port is not None:
            listen = replace(listen, port=carrier.port)
        self.kind = forwarding.kind
        self.destination = link.name
        self.port = listen.port
        self.listen = str(listen)
        self.target = "SOCKS" if forwarding.connect is None else str(forwarding.connect)
        self.closed = False
        self._link = link
        self._carrier = carrier
        self._lock = threading.Lock()
        with _open_lock:
            _open.append(self)

    def __repr__(self) -> str:
        state = "open" if self.is_open() else "gone"
        return (
            f"<holdfast.Forward {self.kind} {self.listen} -> {self.target} "
            f"{self.destination!r} {state}>"
        )

    def is_open(self) -> bool:
        """Whether it stands, as far as this machine knows. Local, below a millisecond.

        False after :meth:`close` and when the master has ended. A network that has just gone is
        noticed by the master first (``keepalive_interval`` times ``keepalive_count``).
        """
        return not self.closed and not self._carrier.ended(0)

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait until it is gone. :param timeout: seconds. :returns: False if it stands still."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.closed:
            left = _SLICE if deadline is None else min(_SLICE, deadline - time.monotonic())
            if self._carrier.ended(max(0.0, left)):
                return True
            if left <= 0:
                return False
        return True

    def close(self) -> None:
        """Stop listening; again and again if you like. Raises nothing.

        Connections through it go on while the master lives; in plain mode they end.
        """
        with self._lock:
            if self.closed:
                return
            self.closed = True
        with _open_lock:
            _open.remove(self)
        self._carrier.close()

    def __enter__(self) -> Forward:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()


_open: list[Forward] = []
_open_lock = threading.Lock()


def close_all(link: Optional[Link] = None) -> None:
    """Close the forwards of one connection, or of the process."""
    with _open_lock:
        found = [forward for forward in _open if link is None or forward._link is link]
    for forward in found:
        forward.close()


def open_forward(link: Link, forwarding: Forwarding) -> Forward:
    """Open it over the live master, or over a login of its own in plain mode.

    :raises ConfigError: the port or path is taken, on this machine.
    :raises SessionRefused: the server, or the owner of the master, said no.
    :raises ConnectionLost: the master went away meanwhile, or does not answer.
    :raises ConnectionFailed: and its kinds.
    """
    for _ in range(_FREE_PORTS):
        chosen = forwarding
        if forwarding.kind != "remote":
            chosen = replace(forwarding, listen=_checked(link, forwarding))
        try:
            return Forward(link, chosen, _carrier(link, chosen))
        except ForwardNotOpened as error:
            if forwarding.kind == "remote":
                raise SessionRefused(_refusal(link, forwarding, str(error))) from None
            refused = error
            if forwarding.listen.port != 0:
                break
    raise ConfigError(
        f"ssh could not listen on {forwarding.listen} of this machine ({refused}); "
        "another program may have taken it in this very moment"
    )


def _refusal(link: Link, forwarding: Forwarding, words: str) -> str:
    forbidden = f"{link.name} forbids remote forwards (AllowTcpForwarding, GatewayPorts)"
    if forwarding.listen.port == 0:
        return f"{forbidden}: {words}. Ask its administrators"
    if forwarding.listen.port is None:
        return (
            f"{link.name} does not listen on {forwarding.listen}: {words}. There is a file of that "
            "name, or no such directory, or AllowStreamLocalForwarding is no"
        )
    return (
        f"{link.name} does not listen on port {forwarding.listen.port}: {words}. It is taken there "
        f"(port 0 gives a free one), or {forbidden}"
    )


def _carrier(link: Link, forwarding: Forwarding) -> Carrier:
    """:raises ForwardNotOpened: with ``refused``."""
    for _ in range(1 + _RECONNECTS):
        link.forget_master()
        master = link.live_master(None)
        if master is None:
            return _Plain(link, forwarding)
        try:
            return _Shared(link, forwarding, master)
        except TimeoutError:
            raise ConnectionLost(
                f"the connection to {link.name} did not open the forward {forwarding} within "
                f"{_PATIENCE:g} s; whether it is open is unknown",
                started=None,
            ) from None
        except ForwardNotOpened as error:
            if error.refused:
                raise
    raise ConnectionLost(
        f"the connection to {link.name} is lost as soon as it is made; the forward {forwarding} "
        "is not open",
        started=False,
    )


class _Shared:
    """A forward of a master.

    Two alike are one to a master, and the first to be closed would close both: so each is this
    process's alone, by a lock. A lock that nobody holds and whose file is there was left by a
    process that was killed, and its forward may be there, too.
    """

    def __init__(self, link: Link, forwarding: Forwarding, master: Master) -> None:
        self._link = link
        self._master = master
        self._forwarding = forwarding
        self._lock = FileLock(_lock_file(link, forwarding, master), 0)
        try:
            self._lock.__enter__()
        except LockTimeout:
            raise ConfigError(
                f"the forward {forwarding} to {link.name} is open already; close it first, or use "
                "another port"
            ) from None
        try:
            self._forwarder = Forwarder(master.control_path, forwarding, _PATIENCE)
            try:
                self.port = self._forwarder.open(_PATIENCE)
            except BaseException:
                self._forwarder.let_go()
                raise
        except BaseException:
            self._unlock()
            raise

    def ended(self, timeout: float) -> bool:
        return self._forwarder.ended(timeout)

    def close(self) -> None:
        stands = not self.ended(0)
        try:
            if stands:
                self._forwarder.close(_CLOSE_PATIENCE)
        except ForwardNotOpened as error:
            if not error.refused:
                stands = False  # with the master; else somebody has closed it with ssh -O cancel
        except TimeoutError as error:
            stands = False
            log.warning("the forward %s may be open still: %s", self._forwarding, error)
        finally:
            self._forwarder.let_go()
            self._unlock()
        _remove_socket(self._forwarding)
        listen = self._forwarding.listen
        if stands and self._forwarding.kind == "remote" and listen.port is None:
            _remove_remote_socket(self._link, self._master, listen.host)

    def abandon(self) -> None:
        self._forwarder.let_go()

    def _unlock(self) -> None:
        with suppress(OSError):
            self._lock.remove()
        self._lock.__exit__(None, None, None)


def _lock_file(link: Link, forwarding: Forwarding, master: Master) -> Path:
    words = f"{master.control_path} {master.pid} {forwarding.kind} {forwarding}"
    return link.runtime / f"forward-{hashlib.sha256(words.encode()).hexdigest()[:16]}.lock"


class _Plain:
    """A forward of an ssh process with a login of its own."""

    def __init__(self, link: Link, forwarding: Forwarding) -> None:
        self.port: Optional[int] = None
        self._forwarding = forwarding
        self._logfile = link.new_log()
        argv = command.forward_plain(
            link.ssh,
            link.destination,
            forwarding,
            log=str(self._logfile),
            config_file=link.config_file,
            options=link.login_options() + link.session_options(),
        )
        log.debug("running %s", argv)
        with link.ledger.login(link.name, link.key, "plain") as entry:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # ^C is for this process, which then closes it
            )
            try:
                said = self._await(link, forwarding)
            except BaseException:
                self.close()
                entry.failed("timeout")
                raise
            if diagnosis.authenticated(said):
                entry.succeeded()
            else:
                entry.failed(diagnosis.classify(diagnosis.without_debug(said))[0].value)
        if self._process.poll() is not None:
            self.close()
            if diagnosis.authenticated(said):
                raise ForwardNotOpened(_last_words(said), refused=True)
            raise diagnosis.connection_error(said, link.name, config_file=link.config_file)
        allocated = re.search(r"^Allocated port (\d+) for remote forward", said, re.MULTILINE)
        if allocated and forwarding.listen.port == 0:
            self.port = int(allocated[1])

    def _await(self, link: Link, forwarding: Forwarding) -> str:
        """The log, once the forward is open or ssh has ended."""
        # Of ssh.c; nothing else tells that it listens.
        done = (
            r"^debug1: remote forward success for: "
            if forwarding.kind == "remote"
            else r"^debug1: Entering interactive session"
        )
        limit = time.monotonic() + link.settings.login_timeout
        while True:
            ended = self._process.poll() is not None
            said = read(self._logfile)
            if ended or re.search(done, said, re.MULTILINE):
                return said
            if time.monotonic() >= limit:
                said += f"\nno login within {link.settings.login_timeout:g} s: Connection timed out"
                raise diagnosis.connection_error(said, link.name, config_file=link.config_file)
            time.sleep(_POLL)

    def ended(self, timeout: float) -> bool:
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:
        if self._process.poll() is None:
            processes.end_group(self._process)
        self._logfile.unlink(missing_ok=True)
        _remove_socket(self._forwarding)

    def abandon(self) -> None:
        self._process.returncode = 0  # not this process's child: nothing to wait for


def _last_words(said: str) -> str:
    return (diagnosis.without_debug(said).splitlines() or ["ssh said nothing"])[-1]


# --- what was there before, and what is left -----------------------------------------------------


def _checked(link: Link, forwarding: Forwarding) -> Endpoint:
    """Where to listen: the port is free, or chosen so. :raises ConfigError: it is taken.

    ssh itself takes a port of which one address is free, and says OK to a forward that is there.
    """
    listen = forwarding.listen
    master = None if link.why_no_sharing() else link.control_master().find()
    if master is not None and _lock_file(link, forwarding, master).exists():
        _close_leftover(link, forwarding, master)
    if listen.port is None:
        listening.check_path(listen.host)
        return listen
    return replace(listen, port=listening.free_port(listen))


def _close_leftover(link: Link, forwarding: Forwarding, master: Master) -> None:
    """What a process of ours has left that was killed; nothing if its owner lives."""
    lock = FileLock(_lock_file(link, forwarding, master), 0)
    with suppress(LockTimeout, MuxError, TimeoutError), lock:
        forwarder = Forwarder(master.control_path, forwarding, _CLOSE_PATIENCE)
        try:
            forwarder.close(_CLOSE_PATIENCE)
        finally:
            forwarder.let_go()
            _remove_socket(forwarding)
            lock.remove()


def _remove_socket(forwarding: Forwarding) -> None:
    if forwarding.kind == "local" and forwarding.listen.port is None:
        listening.remove_socket(forwarding.listen.host)


def _remove_remote_socket(link: Link, master: Master, path: str) -> None:
    words = ["sh", "-c", 'test -S "$1" && rm -f -- "$1"', "sh", path]
    try:
        aside.output(master, remote_command(words), time.monotonic() + _CLOSE_PATIENCE)
    except (SessionNotOpened, OSError) as error:
        log.warning("%s on %s may be left behind: %s", path, link.name, error)


# --- the end of this process --------------------------------------------------------------------


def _after_fork() -> None:
    """Forwards are the parent's; and a copy of its control connections would hide its death."""
    global _open_lock
    _open_lock = threading.Lock()
    for forward in _open:
        forward.closed = True
        forward._carrier.abandon()
    _open.clear()


atexit.register(close_all)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
