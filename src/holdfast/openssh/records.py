"""What is kept of the masters that we started on this machine, in the runtime directory.

All is named by :func:`control_path.socket_name`: ``NAME`` is the socket (or the master listens on
the user's own ControlPath), ``NAME.json`` the record, ``NAME.lock`` the lock around probe, sweep
and start, ``NAME.log`` what the master had to say, ``NAME.used`` the pid of a master that has
given a session.
"""

from __future__ import annotations

import logging
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Optional

from . import control_path

log = logging.getLogger("holdfast")


@dataclass(frozen=True)
class Record:
    """What is kept of a master that we started.

    :ivar pid: as the master itself has told; it can be ended by it when its socket is gone.
    :ivar started: seconds since the epoch.
    """

    destination: str
    control_path: str
    pid: int
    purpose: str
    key: str
    started: float
    ssh: str
    config_file: Optional[str] = None


#: Logs of clients are called ``client-<host tag>-<pid>-<number>.log``.
CLIENT_LOG = "client-"


class Records:
    """The records of the masters that we started on this machine."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime

    def read(self, name: str) -> Optional[Record]:
        import json  # 4 ms to import, and not on every path

        try:
            return Record(**json.loads((self._runtime / f"{name}.json").read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, name: str, record: Record) -> None:
        path = self._runtime / f"{name}.json"
        import json

        fresh = path.with_suffix(f".json.{os.urandom(6).hex()}")
        try:
            fresh.write_text(json.dumps(asdict(record)), encoding="utf-8")
            fresh.replace(path)
        except OSError as error:
            # Without a record the master works all the same; it counts as found, not as ours.
            log.warning("%s cannot be written: %s", path, error.strerror)
            fresh.unlink(missing_ok=True)

    def note_session(self, name: str, pid: int) -> None:
        with suppress(OSError):
            (self._runtime / f"{name}.used").write_text(str(pid), "ascii")

    def has_given_sessions(self, name: str, pid: int) -> bool:
        return read(self._runtime / f"{name}.used") == str(pid)

    def shorten_log(self, name: str, longest: int) -> None:
        """Empty the master's log if it has more bytes; the master appends and does not mind."""
        path = self._runtime / f"{name}.log"
        with suppress(OSError):
            if path.stat().st_size > longest:
                os.truncate(path, 0)

    def forget(self, name: str) -> None:
        for suffix in (".json", ".log", ".used", ".lock"):
            (self._runtime / f"{name}{suffix}").unlink(missing_ok=True)

    def names(self) -> list[str]:
        """All masters of this machine that have left a trace, sorted."""
        found = {
            entry.name.rsplit(".", 1)[0]
            for entry in self._runtime.iterdir()
            if entry.suffix in (".json", ".lock", ".log", ".used")
        }
        for entry in control_path.socket_directory(self._runtime).iterdir():
            with suppress(FileNotFoundError):  # another process removes it in this moment
                if stat.S_ISSOCK(entry.lstat().st_mode) and len(entry.suffix) > 1:
                    found.add(entry.name)
        return sorted(name for name in found if control_path.of_this_host(name))


def read(path: Path) -> str:
    """The text of a file; nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
