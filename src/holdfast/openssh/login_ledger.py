"""Every login, counted: one file in the runtime directory that all processes of the user share.

A line is a JSON object: an attempt when ssh is started, and its outcome when ssh has told. An
attempt without an outcome was cut short (its process was killed) and counts as an attempt only.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from .file_lock import FileLock, LockTimeout

log = logging.getLogger("holdfast")

FILE_NAME = "logins.jsonl"
# Half of the lines go when the file has grown to this many bytes: some 3,000 logins.
_MAX_SIZE = 512 * 1024
_LOCK_TIMEOUT = 10.0  # seconds; the lock is held for one write


@dataclass(frozen=True)
class Login:
    """One authentication, or the try of one.

    :ivar destination: as the user wrote it. :ivar key: see :func:`control_path.connection_key`.
    :ivar kind: "master", "plain" (a command's own login) or "open" (a human at a terminal).
    :ivar time: seconds since the epoch. :ivar pid: of the process that asked for it.
    :ivar ok: True, False, or None while it is under way or if nobody knows.
    :ivar reason: why it failed, a word of :class:`diagnosis.Kind`.
    """

    id: str
    destination: str
    key: str
    kind: str
    time: float
    pid: int
    ok: Optional[bool] = None
    reason: str = ""


class LoginLedger:
    """The ledger of one runtime directory; safe for threads and processes."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    @contextmanager
    def login(self, destination: str, key: str, kind: str) -> Iterator[Entry]:
        """Count a login that is about to be made; its outcome is written at the end.

        Use ``entry.succeeded()`` or ``entry.failed(reason)`` inside. The attempt is on disk
        before ssh is started, so that a crash cannot hide it.
        """
        entry = Entry()
        login = Login(os.urandom(6).hex(), destination, key, kind, time.time(), os.getpid())
        self._append(vars(login))
        try:
            yield entry
        finally:
            self._append({"id": login.id, "ok": entry.ok, "reason": entry.reason})

    def logins(self, key: Optional[str] = None) -> list[Login]:
        """All that is known, oldest first. :param key: of one connection, None for all."""
        found: dict[str, Login] = {}
        for event in self._events():
            login_id = str(event.get("id", ""))
            known = found.get(login_id)
            if known is not None:
                found[login_id] = replace(
                    known, ok=event.get("ok"), reason=str(event.get("reason", ""))
                )
            elif "destination" in event:
                with suppress(TypeError):  # a line of another version of holdfast
                    found[login_id] = Login(**event)
        return [login for login in found.values() if key is None or login.key == key]

    def count(self, key: Optional[str] = None) -> int:
        """Logins that a server has seen succeed."""
        return sum(1 for login in self.logins(key) if login.ok)

    def _events(self) -> Iterator[dict[str, Any]]:
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        import json  # 4 ms to import, and not on every path

        for line in text.splitlines():
            with suppress(ValueError):  # the torn last line of a full disk
                event = json.loads(line)
                if isinstance(event, dict):
                    yield event

    def _append(self, event: dict[str, Any]) -> None:
        import json

        line = json.dumps(event, separators=(",", ":")) + "\n"
        try:
            with FileLock(self._path.with_suffix(".lock"), _LOCK_TIMEOUT):
                self._write(line.encode())
        except (OSError, LockTimeout) as error:
            # A full disk must not take the connection away; the count is short of one then.
            log.warning("a login could not be counted in %s: %s", self._path, error)

    def _write(self, line: bytes) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size > 0 and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # the last line is torn: by a full disk, say
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
        if size > _MAX_SIZE:
            self._forget_half()

    def _forget_half(self) -> None:
        lines = self._path.read_bytes().splitlines(keepends=True)
        shorter = self._path.with_suffix(".new")
        shorter.write_bytes(b"".join(lines[len(lines) // 2 :]))
        shorter.chmod(0o600)
        shorter.replace(self._path)


@dataclass
class Entry:
    """The outcome of the login under way."""

    ok: Optional[bool] = None
    reason: str = ""

    def succeeded(self) -> None:
        self.ok = True

    def failed(self, reason: str) -> None:
        self.ok, self.reason = False, reason
