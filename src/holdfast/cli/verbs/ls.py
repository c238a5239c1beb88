"""``holdfast ls``: the connections of this machine."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Optional

from holdfast.openssh import control_path, mux_client, processes
from holdfast.openssh.login_ledger import Login, LoginLedger
from holdfast.openssh.mux_client import PROBE_TIMEOUT, State
from holdfast.openssh.records import Record, Records
from holdfast.settings import Settings

from ..arguments import add_json
from ..output import duration, moment, plural, print_json, table

DESCRIPTION = "List the connections that holdfast has opened on this machine, and their logins."
EPILOG = """\
states:
  alive      commands get through to the master
  draining   takes nothing new, ends after its last command
  stuck      runs and does not answer; holdfast ends it when it needs it, or holdfast clean does
  dead       has left its socket behind; holdfast clean removes it

LOGINS and FAILED count what it took to keep the connection open, as far back as the ledger goes.

examples:
  holdfast ls
  holdfast ls -v          with the control paths
  holdfast ls --json

exit status: 0.
"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    runtime = control_path.runtime_directory(Settings.load().runtime_dir)
    logins = LoginLedger(runtime).logins()
    masters = [row for row in _masters(runtime, logins) if row is not None]
    for master in masters:
        theirs = [login for login in logins if login.key == master["key"]]
        master.update(_counts(login for login in theirs if login.kind != "plain"))
    plain = _plain_logins(logins)
    if args.json:
        print_json({"runtime_dir": str(runtime), "connections": masters, "plain_logins": plain})
        return 0
    print(_table(masters, args.verbose > 0) if masters else "no connections are open")
    for row in plain:
        failed = f", {row['login_failures']} failed" if row["login_failures"] else ""
        print(
            f"{row['destination']}: {plural(row['logins'], 'login')} by plain ssh, "
            f"not shared{failed}; the last {moment(row['last'])}"
        )
    return 0


def _masters(runtime: Path, logins: list[Login]) -> Iterator[Optional[dict[str, Any]]]:
    records = Records(runtime)
    for name in records.names():
        record = records.read(name)
        yield _with_record(record) if record else _without_record(runtime, name, logins)


def _with_record(record: Record) -> Optional[dict[str, Any]]:
    """What is to be told of one; None if it ended and left nothing."""
    probe = mux_client.probe(record.control_path, PROBE_TIMEOUT)
    state = probe.state.value
    if probe.state is State.ABSENT or probe.pid not in (None, record.pid):
        # Nothing there, or somebody else's master by now.
        if not processes.is_master(record.pid, record.control_path):
            return None
        state = "draining"
    elif probe.state is State.FOREIGN:
        return None
    return {
        "destination": record.destination,
        "purpose": record.purpose,
        "state": state,
        "pid": record.pid,
        "since": record.started,
        "control_path": record.control_path,
        "key": record.key,
    }


def _without_record(runtime: Path, name: str, logins: list[Login]) -> Optional[dict[str, Any]]:
    """A socket whose record could not be written, or was lost: the ledger still knows it."""
    path = str(control_path.socket_directory(runtime) / name)
    probe = mux_client.probe(path, PROBE_TIMEOUT)
    if probe.state in (State.ABSENT, State.FOREIGN):
        return None
    key = name.partition("-")[2].rpartition(".")[0]
    last = next((login for login in reversed(logins) if login.key == key), None)
    return {
        "destination": last.destination if last else "unknown",
        "purpose": "unknown",
        "state": probe.state.value,
        "pid": probe.pid,
        "since": last.time if last else os.stat(path).st_mtime,
        "control_path": path,
        "key": key,
    }


def _counts(logins: Iterable[Login]) -> dict[str, int]:
    outcomes = [login.ok for login in logins]
    return {"logins": outcomes.count(True), "login_failures": outcomes.count(False)}


def _plain_logins(logins: list[Login]) -> list[dict[str, Any]]:
    found: dict[str, list[Login]] = {}
    for login in logins:
        if login.kind == "plain":
            found.setdefault(login.destination, []).append(login)
    return [
        {"destination": name, **_counts(theirs), "last": theirs[-1].time}
        for name, theirs in sorted(found.items())
    ]


def _table(masters: list[dict[str, Any]], paths: bool) -> str:
    header = ["DESTINATION", "PURPOSE", "STATE", "PID", "SINCE", "AGE", "LOGINS", "FAILED"]
    rows = [
        [
            row["destination"],
            row["purpose"],
            row["state"],
            row["pid"] or "-",
            moment(row["since"]),
            duration(time.time() - row["since"]),
            row["logins"],
            row["login_failures"],
            *([row["control_path"]] if paths else []),
        ]
        for row in sorted(masters, key=lambda row: (row["destination"], row["purpose"]))
    ]
    return table([*header, *(["CONTROL PATH"] if paths else [])], rows)
