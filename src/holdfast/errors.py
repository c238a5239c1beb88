"""Every error that holdfast raises on purpose.

::

    HoldfastError
     ├── ConfigError (ValueError)       the request cannot be right; nothing was started
     ├── ConnectionFailed               no connection; no command was started
     │    ├── AuthenticationRequired    a human must log in: holdfast open DESTINATION
     │    ├── HostKeyRejected           the host key is unknown or changed
     │    ├── HostUnreachable           no such name, or nothing answers there
     │    └── LoginThrottled            holdfast refuses another login for now (.retry_after)
     ├── MultiplexingUnsupported        connections cannot be shared, plain ssh is forbidden
     ├── SessionRefused                 the server refuses a session; the command did not start
     ├── ConnectionLost                 it went away under a command (.started)
     ├── CommandFailed                  exit status not 0, or a signal (CalledProcessError)
     ├── CommandTimeout                 (.remote_ended) (subprocess.TimeoutExpired)
     ├── TransferFailed                 a file did not arrive whole
     └── SchedulerError                 the batch system said no, or said nothing
"""

from __future__ import annotations

import subprocess
from typing import Any, Optional

from holdfast.openssh.errors import (
    AuthenticationRequired,
    ConfigError,
    ConnectionFailed,
    ConnectionLost,
    HoldfastError,
    HostKeyRejected,
    HostUnreachable,
    LoginThrottled,
    MultiplexingUnsupported,
    SessionRefused,
)

__all__ = [
    "AuthenticationRequired",
    "CommandFailed",
    "CommandTimeout",
    "ConfigError",
    "ConnectionFailed",
    "ConnectionLost",
    "HoldfastError",
    "HostKeyRejected",
    "HostUnreachable",
    "LoginThrottled",
    "MultiplexingUnsupported",
    "SchedulerError",
    "SessionRefused",
    "TransferFailed",
]


class CommandFailed(HoldfastError, subprocess.CalledProcessError):
    """The remote command ran and ended with a status other than 0, or by a signal.

    :ivar returncode, cmd, stdout, stderr: as in :class:`subprocess.CalledProcessError`.
    :ivar signal: None, or the name of the signal, or "unknown" (see ``Completed.signal``).
    :ivar destination: where it ran.
    """

    def __init__(
        self,
        returncode: int,
        cmd: Any,
        output: Any = None,
        stderr: Any = None,
        *,
        signal: Optional[str] = None,
        destination: str = "",
    ) -> None:
        subprocess.CalledProcessError.__init__(self, returncode, cmd, output, stderr)
        self.signal = signal
        self.destination = destination

    def __str__(self) -> str:
        how = (
            f"was ended by a signal ({self.signal})"
            if self.signal
            else f"returned exit status {self.returncode}"
        )
        text = f"command {self.cmd!r} on {self.destination} {how}"
        stderr = self.stderr
        if isinstance(stderr, bytes):
            stderr = stderr.decode("utf-8", "replace")
        last = stderr.strip().splitlines()[-3:] if stderr else []
        return "\n  ".join([text, *last])


class CommandTimeout(HoldfastError, subprocess.TimeoutExpired):
    """The command did not end in time.

    :ivar timeout: seconds. :ivar output, stderr: what had arrived until then.
    :ivar remote_ended: True if the remote process is known to be gone, False if it is known to
        run on, None if nobody can know.
    :ivar destination: where it ran.
    """

    def __init__(
        self,
        cmd: Any,
        timeout: float,
        output: Any = None,
        stderr: Any = None,
        *,
        remote_ended: Optional[bool] = None,
        destination: str = "",
    ) -> None:
        subprocess.TimeoutExpired.__init__(self, cmd, timeout, output, stderr)
        self.remote_ended = remote_ended
        self.destination = destination

    def __str__(self) -> str:
        fate = {
            True: "the remote process was ended",
            False: "the remote process runs on",
            None: "whether the remote process still runs is unknown",
        }[self.remote_ended]
        return (
            f"command {self.cmd!r} on {self.destination} timed out after {self.timeout:g} s; {fate}"
        )


class TransferFailed(HoldfastError):
    """A file or directory did not arrive whole. :ivar detail: the tool's own words."""

    def __init__(self, message: str, *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


class SchedulerError(HoldfastError):
    """The batch system refused, failed, or gave no usable answer."""
