"""``holdfast bench`` and the machinery of ``benchmarks/``, each against a real sshd."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.cli.verbs import bench
from holdfast.connection import Connection
from holdfast.errors import ConnectionLost
from holdfast.link import Link
from holdfast.testing import LocalSshd

pytestmark = pytest.mark.sshd

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(server: LocalSshd, *words: str) -> subprocess.CompletedProcess[str]:
    argv = ["bench", "--config-file", server.config_file, server.host, "--commands", "30", *words]
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *argv], capture_output=True, text=True, timeout=120
    )


def test_it_measures_every_way_with_one_login(local_sshd: LocalSshd) -> None:
    done = run(local_sshd, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document: Any = json.loads(done.stdout)
    assert document["skipped"] == {}
    assert set(document["ways"]) == {"run", "ssh", "shell", "is_alive"}
    assert all(0 < way["min"] <= way["median"] <= way["p90"] for way in document["ways"].values())
    assert document["at_once"]["per_second"] > 0
    assert 30 <= document["commands"] <= 40
    assert (document["logins"], local_sshd.logins()) == (1, 1)


def test_a_second_one_needs_no_login(local_sshd: LocalSshd) -> None:
    assert "1 login, " in run(local_sshd).stdout
    done = run(local_sshd)
    assert "no login (it was open)" in done.stdout
    assert "holdfast run " in done.stdout
    assert local_sshd.logins() == 1


def test_a_server_that_gives_one_session_is_measured(
    local_sshd_factory: Any,
) -> None:
    server = local_sshd_factory(sshd_config=["MaxSessions 1"])
    done = run(server, "--json")
    assert done.returncode == 0, done.stderr
    assert "run" in json.loads(done.stdout)["ways"]
    assert server.logins() == 1


def test_it_stops_when_the_connection_ends_and_does_not_log_in_again(
    local_sshd: LocalSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    conn = Connection(local_sshd.host, config_file=local_sshd.config_file)
    ours = Link(local_sshd.host, "main", local_sshd.config_file, {}, None)
    one_ssh = bench._ssh

    def last(argv: Any) -> int:
        status = one_ssh(argv)
        conn.disconnect(drain=False)
        return status

    monkeypatch.setattr(bench, "_ssh", last)
    with pytest.raises(ConnectionLost, match="ended meanwhile"):
        bench.measure(conn, ours, 60)
    assert local_sshd.logins() == 1


@pytest.mark.slow
@pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="only in the work tree")
def test_the_benchmarks_still_run() -> None:
    script = """
import json, sys
sys.path.insert(0, sys.argv[1])
from results import Results
from server import server
from suite import Plan, Suite
import suite
suite.CLIENTS = {name: suite.CLIENTS[name] for name in ("holdfast", "ssh-S", "login")}
suite.LIMITS, suite.ROUND_TRIPS = (5,), (0, 50)
results = Results()
plan = Plan(rounds=2, commands=3, logins=1, together=10, together_rounds=1, size=1000000)
with server((0, 50)) as running:
    for group in ("latency", "rtt", "concurrency", "process", "data"):
        getattr(Suite(running, plan, results, lambda words: None), group)()
print(json.dumps({"rounds": results.rounds, "notes": results.notes}))
"""
    if not Path(sys.executable).with_name("holdfast").exists():
        pytest.skip("the command is not installed next to this Python")
    done = subprocess.run(
        [sys.executable, "-c", script, str(BENCHMARKS)],
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stderr
    found: Any = json.loads(done.stdout)
    assert found["notes"] == []
    rounds = found["rounds"]
    assert len(rounds["latency.0"]["login"]) == 2
    assert min(rounds["latency.50"]["holdfast"]) > 0.05  # seconds: no command beats a round trip
    assert {"cpu", "alive", "shell.builtin.0", "rate.5.0", "rate.50.50", "process"} <= set(rounds)
    assert {"data.output", "memory.streamed", "data.input"} <= set(rounds)
