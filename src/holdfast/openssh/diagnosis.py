"""What became of an ssh process: exit status, stderr and log in, a verdict out. No I/O.

The words looked for are OpenSSH's own, from ssh.c, sshconnect.c, sshconnect2.c, mux.c, packet.c and
clientloop.c between 7.4 and 10; none of them is translated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Optional

from .errors import (
    AuthenticationRequired,
    ConfigError,
    ConnectionFailed,
    HoldfastError,
    HostKeyRejected,
    HostUnreachable,
    MultiplexingUnsupported,
    SessionRefused,
)


class Kind(Enum):
    """Why there is no connection or no session."""

    AUTHENTICATION = "authentication"
    HOST_KEY_CHANGED = "host key changed"
    HOST_KEY_UNKNOWN = "host key unknown"
    UNKNOWN_HOST = "unknown host"
    UNREACHABLE = "unreachable"
    CONFIGURATION = "configuration"
    SOCKET = "control socket"
    SOCKET_TAKEN = "control socket taken"
    SESSION_REFUSED = "session refused"
    LOST = "lost"
    OTHER = "other"


#: These mean that nobody was logged in.
NO_LOGIN = frozenset(
    {
        Kind.AUTHENTICATION,
        Kind.HOST_KEY_CHANGED,
        Kind.HOST_KEY_UNKNOWN,
        Kind.UNKNOWN_HOST,
        Kind.UNREACHABLE,
    }
)

_TABLE: tuple[tuple[Kind, str], ...] = (
    (Kind.HOST_KEY_CHANGED, r"REMOTE HOST IDENTIFICATION HAS CHANGED|REVOKED HOST KEY"),
    (Kind.HOST_KEY_CHANGED, r"^Host key .* revoked by file"),
    (Kind.HOST_KEY_CHANGED, r"WARNING: POSSIBLE DNS SPOOFING"),
    (Kind.HOST_KEY_UNKNOWN, r"Host key verification failed|No .* host key is known for"),
    (
        Kind.CONFIGURATION,
        r"Bad configuration option|Bad owner or permissions on |terminating, \d+ bad",
    ),
    (
        Kind.CONFIGURATION,
        r"Can't open user config file|unsupported option|line \d+: .*(?:argument|[Bb]ad)",
    ),
    (Kind.CONFIGURATION, r"Unable to negotiate with|no matching .* found"),
    (Kind.SOCKET_TAKEN, r"ControlSocket .* already exists, disabling multiplexing"),
    (Kind.SOCKET, r"unix_listener: |muxserver_listen|ControlPath too long|link mux listener"),
    (Kind.SOCKET, r"getsockname failed: Not a socket|getpeereid failed"),
    (
        Kind.AUTHENTICATION,
        r"Permission denied \(|Too many authentication failures|No more authentication methods",
    ),
    (Kind.AUTHENTICATION, r"^.*: Permission denied, please try again"),
    # A jump host that cannot reach the next one: its reason, or at least its failure.
    (Kind.UNREACHABLE, r"^channel \d+: open failed: .*(?=\s+stdio forwarding failed)"),
    (Kind.UNREACHABLE, r"[Ss]tdio forwarding (?:request )?failed"),
    (
        Kind.SESSION_REFUSED,
        r"Session open refused by peer|channel \d+: open failed: |session request failed",
    ),
    (
        Kind.UNKNOWN_HOST,
        r"Could not resolve hostname|Name or service not known|nodename nor servname",
    ),
    (
        Kind.UNREACHABLE,
        r"Connection refused|Connection timed out|Operation timed out|No route to host|"
        r"Network is unreachable|Host is down|timed out during banner exchange|"
        r"port \d+ timed out",
    ),
    (
        Kind.LOST,
        r"Connection (?:to .* )?closed|Connection reset|Broken pipe|kex_exchange_identification|"
        r"ssh_exchange_identification|Timeout, server .* not responding|ssh_dispatch_run_fatal|"
        r"client_loop: send disconnect|Received disconnect|banner line|[Bb]anner exchange",
    ),
)
_COMPILED = tuple((kind, re.compile(pattern, re.MULTILINE)) for kind, pattern in _TABLE)


def classify(log: str) -> tuple[Kind, str]:
    """The first kind of the table whose words stand in the log, and the line that holds them.

    The table has causes before their effects: a refused jump host also ends in a closed
    connection.
    """
    for kind, pattern in _COMPILED:
        found = pattern.search(log)
        if found:
            start = log.rfind("\n", 0, found.start()) + 1
            end = log.find("\n", found.end())
            return kind, log[start : end if end >= 0 else len(log)].strip()
    return Kind.OTHER, log.splitlines()[-1] if log else "ssh said nothing"


def without_debug(log: str) -> str:
    """What ssh would have shown a human: the log without its debug lines."""
    lines = log.replace("\r", "").splitlines()
    return "\n".join(line for line in lines if line.strip() and not _DEBUG.match(line))


_DEBUG = re.compile(r"debug\d: |OpenSSH_\d|Authenticated to |Transferred: |Bytes per second: ")


def connection_error(
    log: str, destination: str, *, config_file: Optional[str] = None
) -> HoldfastError:
    """The error to raise when a login has failed.

    :param log: all that ssh wrote. :param destination: as the user wrote it.
    :param config_file: what the command to type needs to name.
    """
    words = without_debug(log)
    kind, last = classify(words)
    option = f"--config-file {config_file} " if config_file else ""
    open_command = f"holdfast open {option}{destination}"
    if kind is Kind.AUTHENTICATION:
        return AuthenticationRequired(
            f"{destination} wants a login that only you can give ({last}); type: {open_command}",
            destination=destination,
            detail=words,
        )
    if kind is Kind.HOST_KEY_CHANGED:
        return HostKeyRejected(
            f"the host key of {destination} is not the one you know; somebody may be listening in. "
            f"Ask its administrators, and only then remove the old key. ssh says:\n{words}",
            destination=destination,
            detail=words,
        )
    if kind is Kind.HOST_KEY_UNKNOWN:
        return HostKeyRejected(
            f"the host key of {destination} is not known yet, and only you may accept it; "
            f"type: {open_command}",
            destination=destination,
            detail=words,
        )
    if kind is Kind.UNKNOWN_HOST:
        return HostUnreachable(
            f"{destination}: {last}; check the name, or its HostName in ssh_config",
            destination=destination,
            detail=words,
        )
    if kind in (Kind.UNREACHABLE, Kind.LOST):
        return HostUnreachable(
            f"no SSH server answered for {destination}: {last}; "
            "check the network, the port and the jump hosts",
            destination=destination,
            detail=words,
        )
    if kind is Kind.CONFIGURATION:
        return ConfigError(f"ssh cannot connect to {destination} as it is configured:\n{words}")
    if kind is Kind.SOCKET:
        return MultiplexingUnsupported(f"ssh cannot listen on a control socket here: {last}")
    if kind is Kind.SESSION_REFUSED:
        return SessionRefused(f"{destination} refused to open a session: {last}")
    return ConnectionFailed(
        f"the login to {destination} failed: {words or last}", destination=destination, detail=words
    )


@dataclass(frozen=True)
class Verdict:
    """What became of one remote command.

    :ivar returncode: the remote exit status, None if there was none.
    :ivar by_signal: the remote process ended without an exit status although the connection
        stands: it was killed, or could not be executed.
    :ivar lost: the connection went away before the end was known.
    :ivar refused: no session was given; nothing started.
    :ivar started: True, False, or None where nobody knows.
    """

    returncode: Optional[int] = None
    by_signal: bool = False
    lost: bool = False
    refused: bool = False
    started: Optional[bool] = True
    words: str = ""


def of_shared_session(returncode: int, log: str, *, master_alive: bool) -> Verdict:
    """Read the log (DEBUG3) of a mux client that has ended.

    The client's own status says 255 for four different things; its log tells them apart.

    :param master_alive: whether the same master still answers, asked after the client ended.
    """
    words = without_debug(log)
    status = re.search(r"^debug2: Received exit status from master (\d+)", log, re.MULTILINE)
    if status:
        return Verdict(returncode=int(status[1]) & 0xFF)
    if 0 <= returncode < 255:  # not a status of ssh's own; the log could not be written
        return Verdict(returncode=returncode)
    if re.search(r"Session open refused by peer|Master refused session request", log):
        return Verdict(refused=True, started=False, words=words)
    opened = session_opened(log)
    sent = "session request sent" in log
    if opened and master_alive and "Control master terminated unexpectedly" in log:
        return Verdict(by_signal=True)
    return Verdict(lost=True, started=True if opened else None if sent else False, words=words)


def of_plain_session(returncode: int, log: str) -> Verdict:
    """Read the log (DEBUG1) of an ssh that logged in for one command."""
    words = without_debug(log)
    if _ended(log, "exit-status") or 0 <= returncode < 255:
        return Verdict(returncode=returncode)
    if _ended(log, "exit-signal"):
        return Verdict(by_signal=True)
    sent = command_sent(log)
    if not sent and re.search(r"^channel \d+: open failed: ", log, re.MULTILINE):
        return Verdict(refused=True, started=False, words=words)
    if not sent:
        return Verdict(lost=True, started=False, words=words)
    # The request was written, perhaps never read: the server may have run it or not.
    return Verdict(lost=True, started=None, words=words)


def _ended(log: str, request: str) -> bool:
    # From the start of the line: the log also holds the command, which may say anything.
    pattern = rf"^debug1: client_input_channel_req: channel \d+ rtype {request} "
    return bool(re.search(pattern, log, re.MULTILINE))


def authenticated(log: str) -> bool:
    """Whether a login has succeeded, by a log of DEBUG1 or VERBOSE."""
    return bool(re.search(r"^(?:debug1: )?Authenticat(?:ed to |ion succeeded)", log, re.MULTILINE))


def session_opened(log: str, *, tells_id: bool = True) -> bool:
    """Whether a mux client (DEBUG3) has been given its session.

    :param tells_id: its version logs the session's number (see :class:`version.Feature`); others
        log nothing between their request and their end, so the request must do.
    """
    return ("master session id: " if tells_id else "session request sent") in log


def command_sent(log: str) -> bool:
    """Whether an ssh that logs in for one command (DEBUG1) has sent it."""
    return bool(re.search(r"^debug1: Sending (?:command|subsystem): ", log, re.MULTILINE))
