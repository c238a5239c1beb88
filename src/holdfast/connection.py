"""One destination: commands and files over its control master, or over plain ssh where no master
can be had."""

from __future__ import annotations

import codecs
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

# What not every command needs (forwards, terminals, files, shells) is imported by the methods that
# do: a `holdfast run` is mostly the start of Python.
from . import sessions
from .errors import CommandTimeout, ConfigError, HoldfastError, MultiplexingUnsupported
from .exchange import exchange
from .link import Link
from .openssh.options import Value
from .openssh.quoting import Word, remote_command
from .pipes import Stream
from .ready import ready_sessions
from .remote_process import Completed, RemoteProcess
from .settings import Settings

if TYPE_CHECKING:
    import pexpect

    from .forwards import Forward
    from .shell import Shell

#: Seconds after a timeout or ^C until the caller goes on, whatever the network does.
_END_PATIENCE = 0.9

# ssh's own last line for a session on a terminal (mux.c, ssh.c); nothing the command has said.
_GOODBYE = re.compile(rb"(?:Shared connection|Connection) to [^\n]* closed\.\r?\n\Z")

Command = Union[str, Sequence[Word]]
Chunk = Callable[[Any], object]


@dataclass(frozen=True)
class Stats:
    """Numbers of one connection.

    :ivar logins: successful logins of all processes to this destination, as the ledger has them.
    :ivar login_failures: those that failed.
    :ivar commands: commands and transfers of this object. :ivar reuses: those that needed no login.
    :ivar sessions_open: sessions of this object under way. :ivar waiting: for a session.
    :ivar refused: sessions that the server has refused (and that were tried again).
    :ivar ready_hits, ready_misses: commands that found a session opened ahead of time, or did not.
    :ivar bytes_sent, bytes_received: of the streams of ``run``.
    """

    destination: str
    mode: str
    logins: int = 0
    login_failures: int = 0
    commands: int = 0
    reuses: int = 0
    sessions_open: int = 0
    waiting: int = 0
    refused: int = 0
    ready_hits: int = 0
    ready_misses: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


class Connection:
    """A handle to one destination; safe for threads. :func:`holdfast.connect` makes and keeps them.

    :param destination: ``[user@]host[:port]``, an alias of ssh_config, or an ``ssh://`` URI.
    :param purpose: connections of different purposes have masters of their own.
    :param config_file: instead of ``~/.ssh/config``, as ``ssh -F``.
    :param options: ssh_config(5) options for this connection alone.
    :param settings: default: :meth:`Settings.load`.
    :raises ConfigError: any of them cannot be right, or ssh cannot read its configuration.
    """

    def __init__(
        self,
        destination: str,
        *,
        purpose: str = "main",
        config_file: Optional[Union[str, os.PathLike[str]]] = None,
        options: Optional[Mapping[str, Value]] = None,
        settings: Optional[Settings] = None,
    ) -> None:
        self._link = Link(destination, purpose, config_file, options, settings)
        self._closed = False

    @property
    def destination(self) -> str:
        """As it was given."""
        return self._link.name

    @property
    def purpose(self) -> str:
        return self._link.purpose

    @property
    def settings(self) -> Settings:
        return self._link.settings

    def __repr__(self) -> str:
        return f"<holdfast.Connection {self.destination!r} purpose={self.purpose!r}>"

    # --- life -----------------------------------------------------------------------------

    @property
    def mode(self) -> str:
        """ "multiplexed", or "plain" where every command logs in by itself."""
        return self._link.mode

    @property
    def closed(self) -> bool:
        return self._closed

    def open(self) -> Connection:
        """Make sure of a live master: found, or started with one login.

        :raises ConnectionFailed: and its kinds. :raises MultiplexingUnsupported: see ``fallback``.
        """
        self._require_open()
        self._link.live_master(None)
        return self

    def open_interactively(self) -> bool:
        """Log in with a human at this terminal, unless a master lives. True if that took a login.

        ssh itself asks for passwords, codes and unknown host keys.

        :raises ConnectionFailed: it did not succeed; ssh has said why on the terminal.
        :raises MultiplexingUnsupported: a login cannot be kept open here.
        """
        self._require_open()
        reason = self._link.why_no_sharing()
        if reason:
            raise MultiplexingUnsupported(
                f"a login to {self.destination} cannot be kept open: {reason}"
            )
        return self._link.control_master().open().started

    def is_alive(self, deep: bool = False, timeout: float = 10.0) -> bool:
        """Whether a master answers, which is local and says nothing of the network.

        In plain mode there is none: False, unless ``deep`` succeeds (with a login).

        :param deep: also run ``true`` on the far side. :param timeout: seconds for that.
        """
        shared = self._link.why_no_sharing() is None
        alive = shared and self._link.control_master().answers()
        if not deep or (shared and not alive):
            return alive
        try:
            return self.run("true", timeout=timeout).returncode == 0
        except HoldfastError:
            return False

    def stats(self) -> Stats:
        """The numbers of this connection; see :class:`Stats`."""
        link = self._link
        logins = link.ledger.logins(link.key)
        return Stats(
            destination=self.destination,
            mode=self.mode,
            logins=sum(1 for login in logins if login.ok),
            login_failures=sum(1 for login in logins if login.ok is False),
            sessions_open=link.gate.open,
            waiting=link.gate.waiting,
            ready_hits=ready_sessions(link).hits,
            ready_misses=ready_sessions(link).misses,
            **asdict(link.counts),
        )

    def close(self) -> None:
        """This process is done with the connection; the master lives on for others.

        Its forwards are closed.
        """
        self._closed = True
        forwards = sys.modules.get(f"{__package__}.forwards")
        if forwards is not None:  # else nobody has asked for one
            forwards.close_all(self._link)
        ready_sessions(self._link).drop()

    def disconnect(self, drain: bool = True) -> bool:
        """End the master. True if there was one of ours to end.

        A master that was found on the user's own ControlPath is never ended: False.

        :param drain: let running sessions finish, and forwards until they are closed; False ends
            them, too.
        """
        ready_sessions(self._link).drop()
        master = self._link.control_master()
        return master.stop() if drain else master.exit()

    def __enter__(self) -> Connection:
        return self.open()

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- commands -------------------------------------------------------------------------

    def run(
        self,
        command: Command,
        *,
        cwd: Optional[Word] = None,
        env: Optional[Mapping[str, str]] = None,
        input: Union[str, bytes, None] = None,
        stdin: Stream = None,
        timeout: Optional[float] = None,
        check: bool = False,
        text: bool = True,
        pty: bool = False,
        on_stdout: Optional[Chunk] = None,
        on_stderr: Optional[Chunk] = None,
    ) -> Completed:
        """Run a command and wait for it, as :func:`subprocess.run` with captured output.

        :param command: a string for the account's login shell, or a sequence of words, which
            arrive as they are whatever that shell is.
        :param cwd: the remote directory; relative to the home, or with ``~``.
        :param env: variables to add. They stand in remote arguments: no place for secrets.
        :param input: sent to the command's stdin; else stdin is empty.
        :param stdin: a file to read from instead of ``input``.
        :param timeout: seconds for everything: login, waiting for a session, the command.
        :param check: raise CommandFailed for a status other than 0.
        :param text: streams are str (UTF-8, other bytes kept by surrogateescape), else bytes.
        :param pty: give it a terminal; stdout and stderr arrive as one on stdout.
        :param on_stdout, on_stderr: called with each piece as it comes; nothing of that
            stream is kept then. An error in one ends the command.
        :raises CommandFailed: only with ``check``.
        :raises CommandTimeout: :raises ConnectionLost: under the command, see ``started``.
        :raises ConnectionFailed: and its kinds; nothing has started.
        :raises SessionRefused: the server gave no session within ``session_timeout``.
        """
        begin = time.monotonic()
        deadline = None if timeout is None else begin + timeout
        data = input.encode("utf-8", "surrogateescape") if isinstance(input, str) else input
        if data is not None:
            source: Stream = subprocess.PIPE
        else:
            source = subprocess.DEVNULL if stdin is None else stdin
        remote = remote_command(command, cwd=cwd, env=env)
        process: Optional[RemoteProcess] = None
        try:
            self._require_open()
            process = sessions.start(
                self._link,
                command,
                remote,
                (source, subprocess.PIPE, subprocess.PIPE),
                tty=pty,
                deadline=deadline,
            )
            kept = exchange(
                process, data, deadline, _decoding(on_stdout, text), _decoding(on_stderr, text)
            )
        except BaseException as error:
            ended = None if process is None else process.end(_END_PATIENCE)
            if not isinstance(error, (subprocess.TimeoutExpired, sessions.OpeningTimeout)):
                raise
            if process is None and isinstance(error, subprocess.TimeoutExpired):
                ended = True  # before it has a session, nothing has started
            raise CommandTimeout(
                command,
                timeout or 0.0,
                _decoded(getattr(error, "output", b"") or b"", text),
                _decoded(getattr(error, "stderr", b"") or b"", text),
                remote_ended=ended,
                destination=self.destination,
            ) from None
        self._link.count(bytes_sent=len(data or b""), bytes_received=len(kept[0]) + len(kept[1]))
        assert process.returncode is not None
        stderr = _GOODBYE.sub(b"", kept[1]) if pty else kept[1]
        done = Completed(
            command,
            process.returncode,
            _decoded(kept[0], text),
            _decoded(stderr, text),
            process.signal,
            time.monotonic() - begin,
            self.destination,
        )
        if check:
            done.check_returncode()
        return done

    def popen(
        self,
        command: Command,
        *,
        cwd: Optional[Word] = None,
        env: Optional[Mapping[str, str]] = None,
        stdin: Stream = subprocess.PIPE,
        stdout: Stream = subprocess.PIPE,
        stderr: Stream = subprocess.PIPE,
        pty: bool = False,
    ) -> RemoteProcess:
        """Start a command; returns once it has its session. As :class:`subprocess.Popen`.

        :param stdin, stdout, stderr: PIPE, DEVNULL, a file, or None for this process's own. The
            streams carry bytes.
        :raises: as :meth:`run`, but for CommandFailed and CommandTimeout.
        """
        remote = remote_command(command, cwd=cwd, env=env)
        self._require_open()
        return sessions.start(self._link, command, remote, (stdin, stdout, stderr), tty=pty)

    def shell(self) -> Shell:
        """One session kept open as a worker, for polling and for many small commands.

        >>> with conn.shell() as shell:        # doctest: +SKIP
        ...     shell.run("squeue --me")

        A command in it costs one round trip. It needs a session of the server for as long as it is
        open. Raises as :meth:`run`.
        """
        self._require_open()
        from .shell import Shell

        return Shell(self._link)

    # --- terminals ------------------------------------------------------------------------

    def interact(self, command: Optional[Command] = None) -> int:
        """Put this process's terminal on a remote command, as ``ssh -t`` does, until it ends.

        Keys, ^C and the size of the window go to the far side; the terminal is put back as it was.
        In plain mode ssh logs in on the terminal, and may ask what it has to ask.

        :param command: as for :meth:`run`; None for the login shell.
        :returns: the exit status; -1 if a signal or a hangup ended it (plain mode: 255).
        :raises ConnectionLost: :raises ConnectionFailed: and its kinds.
        :raises SessionRefused: the server gave no session within ``session_timeout``.
        """
        self._require_open()
        from . import terminal

        return terminal.interact(self._link, None if command is None else remote_command(command))

    def spawn(self, command: Optional[Command] = None, **arguments: Any) -> pexpect.spawn[Any]:
        """A pexpect child whose terminal is that of a remote command; it has its session.

        What to expect and to send is pexpect's; ``child.exitstatus`` is the remote one, 255 also
        after a signal or a lost connection. At the end ssh itself says that the (shared)
        connection is closed. ``child.close()`` hangs up.

        :param command: as for :meth:`run`; None for the login shell.
        :param arguments: for ``pexpect.spawn``: ``encoding``, ``timeout`` (seconds),
            ``dimensions`` (rows, columns), ... ``cwd`` and ``env`` are those of ssh, on this side.
        :raises: as :meth:`interact`. In plain mode, one login without a human.
        """
        self._require_open()
        remote = None if command is None else remote_command(command)
        from . import terminal

        return terminal.spawn(self._link, remote, arguments)

    # --- forwards -------------------------------------------------------------------------

    def forward_local(
        self,
        local_port: Union[int, str],
        remote_host: str,
        remote_port: Optional[int] = None,
        *,
        bind: str = "127.0.0.1",
    ) -> Forward:
        """Listen here, and lead connections to a host that the far side reaches, as ``ssh -L``.

        Every user of this machine can connect to a port; a unix socket is yours alone. Whether the
        server permits it (AllowTcpForwarding) shows on use only: connections are closed at once.

        :param local_port: 0 for any free one, which is the ``port`` of the result; or the path of
            a unix socket, which must not exist.
        :param remote_host: as the far side knows it; or the path of a unix socket there.
        :param remote_port: with a host. :param bind: the address to listen on; "*" for every one.
        :raises ConfigError: a port, host or path cannot be right, or is in use on this machine.
        :raises ConnectionFailed: and its kinds. :raises ConnectionLost: it does not answer.
        """
        from . import forwards
        from .openssh import forwarding

        wanted = forwarding.local(local_port, remote_host, remote_port, bind)
        self._require_open()
        return forwards.open_forward(self._link, wanted)

    def forward_remote(
        self,
        remote_port: Union[int, str],
        local_host: str,
        local_port: Optional[int] = None,
        *,
        bind: str = "",
    ) -> Forward:
        """Listen there, and lead connections to a host that this side reaches, as ``ssh -R``.

        :param remote_port: 0 lets the server choose, see the ``port`` of the result; or the
            absolute path of a unix socket there, which must not exist.
        :param local_host: or the path of a unix socket here. :param local_port: with a host.
        :param bind: the address to listen on; the server decides (GatewayPorts), and it is
            loopback by default.
        :raises SessionRefused: the server does not listen there: the port is taken, or it forbids
            forwards. :raises: else as :meth:`forward_local`.
        """
        from . import forwards
        from .openssh import forwarding

        wanted = forwarding.remote(remote_port, local_host, local_port, bind)
        self._require_open()
        return forwards.open_forward(self._link, wanted)

    def forward_dynamic(self, port: int, *, bind: str = "127.0.0.1") -> Forward:
        """A SOCKS proxy here, whose connections are made from the far side, as ``ssh -D``.

        :param port: 0 for any free one. :param bind: the address to listen on.
        :raises: as :meth:`forward_local`.
        """
        from . import forwards
        from .openssh import forwarding

        wanted = forwarding.dynamic(port, bind)
        self._require_open()
        return forwards.open_forward(self._link, wanted)

    # --- files ----------------------------------------------------------------------------

    def put(self, local: Word, remote: Word, *, preserve: bool = False) -> None:
        """Copy a file or directory there, with scp, as ``cp -r`` would.

        :param local: an existing file or directory; symbolic links are followed.
        :param remote: its new path, or an existing directory to put it into. Relative to the home.
        :param preserve: keep modes and times.
        :raises TransferFailed: it did not arrive whole; with scp's own words.
        """
        self._require_open()
        from . import transfer

        transfer.put(self._link, local, remote, preserve=preserve)

    def get(self, remote: Word, local: Word, *, preserve: bool = False) -> None:
        """Copy a file or directory here; see :meth:`put`. The remote path is taken literally."""
        self._require_open()
        from . import transfer

        transfer.get(self._link, remote, local, preserve=preserve)

    def _require_open(self) -> None:
        if self._closed:
            raise ConfigError(
                f"this connection to {self.destination} is closed; call connect again"
            )


def _decoded(data: bytes, text: bool) -> Union[str, bytes]:
    return data.decode("utf-8", "surrogateescape") if text else data


def _decoding(callback: Optional[Chunk], text: bool) -> Optional[Callable[[bytes], object]]:
    """The callback for bytes; characters that a chunk cuts in two are put together again."""
    if callback is None or not text:
        return callback
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    call = callback

    def feed(chunk: bytes) -> None:
        piece = decoder.decode(chunk)
        if piece:
            call(piece)

    return feed
