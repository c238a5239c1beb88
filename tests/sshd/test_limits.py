"""Limits that hold: many sessions at once, descriptors, and a master that nobody can freeze."""

from __future__ import annotations

import gc
import os
import random
import resource
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

import holdfast
from holdfast.testing import LocalSshd

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("HOLDFAST_TEST_KILLS", "300"))

IMPATIENT = """
import sys, holdfast
conn = holdfast.connect(sys.argv[1], config_file=sys.argv[2],
    settings=holdfast.Settings.load(ready_sessions=sys.argv[3]))
print("up", flush=True)
while True:
    conn.run("echo x; cat", input="y" * 1000)
"""


def test_two_hundred_sessions_at_once(local_sshd_factory: Any) -> None:
    server = local_sshd_factory(sshd_config=["MaxSessions 500"])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        conn = holdfast.connect(server.host, config_file=server.config_file)
        processes = [
            conn.popen(f"read line; echo out {n} $line; echo err {n} >&2; exit {n}")
            for n in range(200)
        ]
        assert conn.stats().sessions_open == 200
        for number, process in enumerate(processes):
            # Each waits for its input: all of them are there at once.
            assert process.poll() is None
            out, err = process.communicate(b"hello\n", timeout=60)
            assert (out, err) == (f"out {number} hello\n".encode(), f"err {number}\n".encode())
            assert process.returncode == number
        assert conn.stats().sessions_open == 0
        assert server.logins() == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_commands_return_all_descriptors(conn: holdfast.Connection) -> None:
    conn.run("true")
    gc.collect()  # what other tests have left
    before = sorted(os.listdir("/proc/self/fd"))
    master = conn._link.control_master().find()
    assert master is not None
    held = len(os.listdir(f"/proc/{master.pid}/fd"))
    for number in range(1000):
        assert conn.run(f"exit {number % 256}").returncode == number % 256
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert len(os.listdir(f"/proc/{master.pid}/fd")) <= held + 1
    assert threading.active_count() <= 2


def test_a_client_killed_at_any_point_freezes_nobody(
    conn: holdfast.Connection, local_sshd: LocalSshd
) -> None:
    """Some hundred kill -9 of another client, while this one runs commands that all are right."""
    moment = random.Random(20261121)
    stop = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                done = conn.run(f"echo {number}; exit {number % 200}", timeout=30)
                assert (done.returncode, done.stdout) == (number % 200, f"{number}\n")
            except BaseException as error:
                errors.append(error)
                return

    worker = threading.Thread(target=work)
    worker.start()
    try:
        kills = 0
        while kills < KILLS and not errors:
            mode = "on" if kills % 2 else "off"
            # A few at once: a start of Python takes longer than what it is started for.
            argv = [sys.executable, "-c", IMPATIENT, local_sshd.host, local_sshd.config_file, mode]
            victims = [subprocess.Popen(argv, stdout=subprocess.PIPE) for _ in range(4)]
            for victim in victims:
                assert victim.stdout is not None
                assert victim.stdout.readline() == b"up\n"
                stop.wait(moment.uniform(0, 0.02))
                victim.send_signal(signal.SIGKILL)
                kills += 1
            for victim in victims:
                victim.wait()
                assert victim.stdout is not None
                victim.stdout.close()
    finally:
        stop.set()
        worker.join(60)
    assert errors == []
    assert conn.is_alive(deep=True)
    assert local_sshd.logins() == 1
