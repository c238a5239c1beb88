"""``holdfast close``: ends masters that holdfast started."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from holdfast.errors import ConfigError
from holdfast.openssh import control_path, mux_client, processes
from holdfast.openssh.mux_client import PROBE_TIMEOUT, MuxError, State
from holdfast.openssh.records import Record, Records

from ..arguments import add_connection_options, add_json, link
from ..output import print_json

DESCRIPTION = """\
End the connection to HOST. Commands that run over it may finish first; nothing new gets in.

A connection that your own ssh has opened (ControlMaster in ssh_config) is left alone.
"""
EPILOG = """\
examples:
  holdfast close cluster1
  holdfast close cluster1 --now      end the commands that run over it, too
  holdfast close --all               every connection that holdfast has opened on this machine

exit status: 0, also if nothing was open; 255 if a connection could not be ended.
"""

# Seconds in which an idle master that was asked to end is gone, so that we can say so.
_PATIENCE = 2.0


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", nargs="?", help="the connection to end")
    add_connection_options(parser)
    parser.add_argument("--all", action="store_true", help="all of this machine's connections")
    parser.add_argument("--now", action="store_true", help="do not wait for running commands")
    add_json(parser)


def main(args: argparse.Namespace) -> int:
    if (args.host is not None) == args.all:
        raise ConfigError("name one HOST, or say --all")
    outcomes = list(_close_all(args.now)) if args.all else [_close_one(args)]
    if args.json:
        print_json(outcomes)
    elif not outcomes:
        print("no connections are open")
    else:
        for outcome in outcomes:
            print(f"{outcome['destination']}: {_words(outcome)}")
    return 255 if any(outcome["outcome"] == "failed" for outcome in outcomes) else 0


def _close_one(args: argparse.Namespace) -> dict[str, Any]:
    master = link(args).control_master()
    found = master.find()
    outcome = {"destination": args.host, "pid": found.pid if found else None, "detail": ""}
    if found is not None and not found.ours:
        return {**outcome, "outcome": "not ours", "detail": found.control_path}
    record = Records(master.spec.runtime).read(master.spec.name)
    if record is None:
        return {**outcome, "outcome": "was not open"}
    return {**outcome, **_end(record, args.now)}


def _close_all(now: bool) -> Iterator[dict[str, Any]]:
    for record in records():
        ended = _end(record, now)
        if ended["outcome"] != "was not open":
            yield {"destination": record.destination, "pid": record.pid, "detail": "", **ended}


def records() -> list[Record]:
    """Of the masters that holdfast has started on this machine, dead or alive."""
    from holdfast.settings import Settings

    runtime: Path = control_path.runtime_directory(Settings.load().runtime_dir)
    found = Records(runtime)
    return [record for name in found.names() if (record := found.read(name)) is not None]


def _end(record: Record, now: bool) -> dict[str, Any]:
    """Drain or end one master; what became of it."""
    probe = mux_client.probe(record.control_path, PROBE_TIMEOUT)
    if probe.state is State.ALIVE and probe.pid == record.pid:
        request = mux_client.terminate if now else mux_client.stop_listening
        try:
            request(record.control_path, _PATIENCE)
        except MuxError as error:
            return {"outcome": "failed", "detail": str(error)}
    elif not _runs(record):
        return {"outcome": "was not open"}
    elif now:
        # It was drained before, its socket was removed, or it answers nothing: its pid is left.
        return {"outcome": "closed" if processes.end(record.pid) else "failed"}
    elif probe.state is State.STUCK:
        return {"outcome": "failed", "detail": "it does not answer; --now ends it"}
    return {"outcome": "closed" if _has_ended(record) else "draining"}


def _runs(record: Record) -> bool:
    return processes.is_master(record.pid, record.control_path)


def _has_ended(record: Record) -> bool:
    deadline = time.monotonic() + _PATIENCE
    while _runs(record):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def _words(outcome: dict[str, Any]) -> str:
    kind, detail = outcome["outcome"], outcome["detail"]
    if kind == "not ours":
        return f"left alone, as your own ssh has opened it (on {detail}); end it with ssh -O exit"
    if kind == "draining":
        return "closes when its running commands have ended (--now ends them)"
    if kind == "failed":
        return f"could not be closed: {detail or 'its process does not end'}"
    return str(kind)
