"""What can go wrong between this machine and a command's start on the other one.

Defined here, below everything else, so that :mod:`holdfast.openssh` needs nothing outside
itself; :mod:`holdfast.errors` draws the whole tree and adds the errors of the layers above.
Every message says what failed, on which destination, and what to do next.
"""

from __future__ import annotations

from typing import Optional


class HoldfastError(Exception):
    """Base of every error that holdfast raises on purpose."""


class ConfigError(HoldfastError, ValueError):
    """The request cannot be right: a destination, an option, a setting, a file or a directory.

    Raised before anything is started or changed.
    """


class ConnectionFailed(HoldfastError):
    """No connection to the destination could be made; no command was started.

    :ivar destination: the destination as the user wrote it.
    :ivar detail: ssh's own words, possibly several lines, possibly empty.
    """

    def __init__(self, message: str, *, destination: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.destination = destination
        self.detail = detail


class AuthenticationRequired(ConnectionFailed):
    """The server wants something that only a human can give (password, code, passphrase)."""


class HostKeyRejected(ConnectionFailed):
    """The host key is unknown, changed or revoked, and nobody may decide that but a human."""


class HostUnreachable(ConnectionFailed):
    """The name does not resolve, or nothing answers as an SSH server there."""


class LoginThrottled(ConnectionFailed):
    """holdfast itself refuses another login for now.

    :ivar retry_after: seconds until the next login is allowed, None if only ``holdfast open``
        lifts it.
    """

    def __init__(
        self,
        message: str,
        *,
        destination: str = "",
        detail: str = "",
        retry_after: Optional[float] = None,
    ) -> None:
        super().__init__(message, destination=destination, detail=detail)
        self.retry_after = retry_after


class MultiplexingUnsupported(HoldfastError):
    """Connections cannot be shared here, and falling back to plain ssh is forbidden."""


class SessionRefused(HoldfastError):
    """The server refused to open a session on a live connection; the command did not start."""


class ConnectionLost(HoldfastError):
    """The connection went away under a command.

    :ivar started: True if the command certainly started, False if it certainly did not
        (a retry is safe), None if nobody can know.
    """

    def __init__(self, message: str, *, started: Optional[bool] = None) -> None:
        super().__init__(message)
        self.started = started
