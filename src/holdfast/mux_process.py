"""A remote command carried by a control connection of our own: no process on this machine."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Optional

from .openssh.diagnosis import Verdict
from .openssh.mux_session import Session
from .pipes import Pipes
from .remote_process import RemoteProcess, Signaller


class MuxProcess(RemoteProcess):
    """:param session: has started. :param pipes: its streams.
    :param master_lives: whether the session's own master still answers.
    :param on_end: called once, when the session has ended.
    :param certainly_started: False for a ready session: its shell may not have read the command.
    """

    def __init__(
        self,
        args: Any,
        destination: str,
        session: Session,
        pipes: Pipes,
        signaller: Signaller,
        master_lives: Callable[[], bool],
        on_end: Callable[[], None],
        *,
        certainly_started: bool = True,
    ) -> None:
        super().__init__(args, destination, pipes, signaller)
        self._session = session
        self._master_lives = master_lives
        # Called once, at the end or when nobody holds the process any more.
        self._on_end = weakref.finalize(self, on_end)
        self._let_go = False
        self._certainly_started = certainly_started

    def carrier_ended(self, timeout: Optional[float] = 0) -> bool:
        return self._session.read(timeout)

    def carrier_fileno(self) -> Optional[int]:
        return self._session.fileno()

    def let_go(self) -> None:
        self._let_go = not self._session.ended
        self._session.close()

    def _judge(self) -> Verdict:
        self._on_end()
        if self._session.status is not None:
            return Verdict(returncode=self._session.status)
        # A death by a signal and a dying master look the same from here; so ask the master.
        if not self._let_go and self._master_lives():
            return Verdict(by_signal=True)
        return Verdict(lost=True, started=True if self._certainly_started else None)
