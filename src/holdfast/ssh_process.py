"""A remote command carried by an ssh process: for terminals, and for plain mode."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from .openssh.diagnosis import Verdict
from .openssh.records import read
from .pipes import Pipes
from .remote_process import RemoteProcess, Signaller


class SshProcess(RemoteProcess):
    """:param client: the ssh. :param logfile: what it logs (``-E``); removed at its end.
    :param judge: what its exit status and its log mean. :param on_end: called with the verdict.
    """

    def __init__(
        self,
        args: Any,
        destination: str,
        client: subprocess.Popen[bytes],
        pipes: Pipes,
        signaller: Signaller,
        logfile: Path,
        judge: Callable[[int, str], Verdict],
        on_end: Callable[[Verdict], None] = lambda verdict: None,
    ) -> None:
        super().__init__(args, destination, pipes, signaller)
        self._client = client
        self._logfile = logfile
        self._judge_log = judge
        self._on_end = on_end

    def log_so_far(self) -> str:
        """What the ssh has logged until now."""
        return read(self._logfile)

    def carrier_ended(self, timeout: Optional[float] = 0) -> bool:
        try:
            self._client.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def carrier_fileno(self) -> Optional[int]:
        return None

    def let_go(self) -> None:
        self._client.kill()

    def _judge(self) -> Verdict:
        verdict = self._judge_log(self._client.returncode, read(self._logfile))
        self._logfile.unlink(missing_ok=True)
        self._on_end(verdict)
        return verdict
