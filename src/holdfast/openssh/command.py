"""ssh, scp and sftp command lines: pure functions, each returning the whole list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from .destination import Destination
from .forwarding import Forwarding
from .options import GUARD, PLAIN, Options

NOTHING = Options()

# The level at which a client's log tells what became of its session: "session request sent" is
# debug3 in mux.c. The option is used and not -v, which a ProxyJump would hand on to a second ssh
# that writes to the command's stderr.
_LOG_OF_CLIENT = Options.of(LogLevel="DEBUG3")
_LOG_OF_PLAIN = Options.of(LogLevel="DEBUG1")

# Not -q, which keeps ssh from saying that its session is refused; a banner is no warning.
_WARNINGS_OF_SCP = Options.of(LogLevel="ERROR")


def print_config(
    ssh: str,
    destination: Destination,
    *,
    config_file: Optional[str] = None,
    options: Options = NOTHING,
) -> list[str]:
    """``ssh -G``: prints the configuration; ``-v`` names the files that it read."""
    return _ssh(ssh, destination, config_file, options, ["-v", "-G"])


def start_master(
    ssh: str,
    destination: Destination,
    *,
    control_path: str,
    persist: int,
    log: Optional[str],
    config_file: Optional[str] = None,
    options: Options = NOTHING,
    interactive: bool = False,
    talkative: bool = False,
) -> list[str]:
    """A control master that goes to the background once it is authenticated.

    :param control_path: where it listens.
    :param persist: seconds it stays without a client; 0 for ever.
    :param log: the file for what ssh has to say, None for its stderr.
    :param interactive: let ssh ask its questions on the terminal.
    :param talkative: log at DEBUG1 (``-v``). Otherwise what the ssh of a jump host says is lost:
        ssh_proxy_connect() in sshconnect.c gives it /dev/null, where a master is to persist.
    """
    ours = Options.of(ControlPersist=persist if persist else "yes")
    # A pool of sessions needs no terminal, no forwarded display and no forwards of the user's
    # configuration, which would fail the moment plain ssh has bound the same port.
    ours += Options.of(ClearAllForwardings=True)
    if not interactive:
        ours += Options.of(BatchMode=True)
    flags = ["-M", "-N", "-f", "-T", "-S", control_path]
    if log is not None:
        flags += ["-E", log]
    if talkative:
        flags.append("-v")
    return _ssh(ssh, destination, config_file, ours + options, flags)


def run_over_master(
    ssh: str,
    destination: Destination,
    remote: Optional[str],
    *,
    control_path: str,
    log: Optional[str],
    config_file: Optional[str] = None,
    options: Options = NOTHING,
    tty: bool = False,
) -> list[str]:
    """One session over a live master; fails rather than log in (see :data:`options.GUARD`).

    The forwards of the configuration stay out: a client would have the master open them, fail if
    one of their ports is taken, and leave them behind.

    :param remote: the string for the login shell; None for the shell itself.
    :param log: the file that tells afterwards what became of the session.
    """
    flags = ["-S", control_path, "-tt" if tty else "-T"]
    ours = GUARD + Options.of(ClearAllForwardings=True)
    if log is not None:
        flags += ["-E", log]
        ours += _LOG_OF_CLIENT
    line = _ssh(ssh, destination, config_file, ours + options, flags)
    return line if remote is None else [*line, remote]


def run_plain(
    ssh: str,
    destination: Destination,
    remote: Optional[str],
    *,
    log: Optional[str],
    config_file: Optional[str] = None,
    options: Options = NOTHING,
    tty: bool = False,
    interactive: bool = False,
) -> list[str]:
    """One command over a login of its own.

    :param remote: the string for the login shell; None for the shell itself.
    :param interactive: let ssh ask its questions on the terminal.
    """
    flags = ["-tt" if tty else "-T"]
    ours = Options.of(ControlMaster=False, ControlPath="none") if interactive else PLAIN
    if log is not None:
        flags += ["-E", log]
        ours += _LOG_OF_PLAIN
    line = _ssh(ssh, destination, config_file, ours + options, flags)
    return line if remote is None else [*line, remote]


def forward_plain(
    ssh: str,
    destination: Destination,
    forwarding: Forwarding,
    *,
    log: str,
    config_file: Optional[str] = None,
    options: Options = NOTHING,
) -> list[str]:
    """A forward over a login of its own, for as long as the process lives."""
    flags = ["-N", "-T", forwarding.flag, str(forwarding), "-E", log]
    ours = PLAIN + Options.of(ExitOnForwardFailure=True) + _LOG_OF_PLAIN
    return _ssh(ssh, destination, config_file, ours + options, flags)


def control(
    ssh: str,
    destination: Destination,
    operation: str,
    *,
    control_path: str,
    config_file: Optional[str] = None,
) -> list[str]:
    """``ssh -O check|stop|exit``: the command that a human would type."""
    return _ssh(ssh, destination, config_file, NOTHING, ["-S", control_path, "-O", operation])


def scp(
    program: str,
    sources: Sequence[str],
    target: str,
    *,
    ssh: str,
    control_path: Optional[str],
    port: Optional[int] = None,
    config_file: Optional[str] = None,
    options: Options = NOTHING,
    recursive: bool = False,
    preserve: bool = False,
    legacy: bool = False,
    flags: Sequence[str] = (),
) -> list[str]:
    """Copy files over a live master, or over a login of its own.

    :param sources: operands, see :func:`quoting.scp_operand` and :func:`remote_operand`.
    :param control_path: the master's socket; None logs in.
    :param legacy: the rcp protocol (``-O``), for servers without sftp.
    """
    sharing = GUARD + Options.of(ControlPath=control_path) if control_path else PLAIN
    line = [
        program,
        "-S",
        ssh,
        *_config(config_file),
        *(sharing + _WARNINGS_OF_SCP + options).arguments(),
        *flags,
    ]
    if port is not None:
        line += ["-P", str(port)]
    if recursive:
        line.append("-r")
    if preserve:
        line.append("-p")
    if legacy:
        line.append("-O")
    return [*line, "--", *sources, target]


def sftp(
    program: str,
    destination: Destination,
    *,
    ssh: str,
    control_path: Optional[str],
    config_file: Optional[str] = None,
    options: Options = NOTHING,
    batch_file: str = "-",
) -> list[str]:
    """A batch of sftp(1) commands over a live master, or over a login of its own."""
    sharing = GUARD + Options.of(ControlPath=control_path) if control_path else PLAIN
    line = [program, "-S", ssh, *_config(config_file), *(sharing + options).arguments()]
    line += ["-q", "-b", batch_file]
    if destination.port is not None:
        line += ["-P", str(destination.port)]
    return [*line, "--", account_at_host(destination)]


def account_at_host(destination: Destination, *, brackets: bool = True) -> str:
    """``[user@]host`` without the port; scp and sftp want an IPv6 address in brackets."""
    host = destination.host
    if brackets and ":" in host:
        host = f"[{host}]"
    return f"{destination.user}@{host}" if destination.user else host


def remote_operand(destination: Destination, path: str) -> str:
    """``[user@]host:path`` as scp and rsync write it."""
    return f"{account_at_host(destination)}:{path}"


def _config(config_file: Optional[str]) -> list[str]:
    return ["-F", config_file] if config_file else []


def _ssh(
    ssh: str,
    destination: Destination,
    config_file: Optional[str],
    options: Options,
    flags: Sequence[str],
) -> list[str]:
    line = [ssh, *_config(config_file), *flags, *options.arguments()]
    if destination.port is not None:
        line += ["-p", str(destination.port)]
    return [*line, "--", account_at_host(destination, brackets=False)]
