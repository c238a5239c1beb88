"""Small commands of our own beside the caller's: on a master that is there, never with a login."""

from __future__ import annotations

import os
import subprocess

from .openssh.control_master import Master
from .openssh.mux_session import Session
from .pipes import Pipes


def output(master: Master, command: str, deadline: float) -> bytes:
    """The stdout of a command, read to its end.

    :param deadline: of time.monotonic(), for the session to open.
    :raises SessionNotOpened: nothing has started. :raises TimeoutError: it may have.
    """
    pipes = Pipes(subprocess.DEVNULL, subprocess.PIPE, subprocess.DEVNULL)
    try:
        session = Session.open(master.control_path, os.fsencode(command), pipes.theirs, deadline)
        pipes.close_theirs()
        stdout = pipes.ours[1]
        assert stdout is not None
        said = stdout.read()
        session.close()
        return said
    finally:
        pipes.close_theirs()
        pipes.close_ours()
