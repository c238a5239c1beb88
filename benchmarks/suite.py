"""What is measured, round by round: A B C, A B C, ..., so that whatever else the machine does
falls on all of them."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clients import CLIENTS
from results import Results
from server import Server
from worker import Failed, Worker

ROUND_TRIPS = (0, 20, 50)  # ms
LIMITS = (1, 10, 50, 200)  # commands at once

_PATIENT = ("fabric", "paramiko", "parallel-ssh")  # 47 ms a command: fewer of them, one at a time
_PACKAGES = ("holdfast", "fabric", "paramiko", "asyncssh")
_IMPORTS = ("holdfast", "holdfast.connection", "fabric", "paramiko", "asyncssh")
_WORKED = 0.95  # of the commands of a round must have worked for its rate to count
_SIZE = 100 * 1000 * 1000  # bytes
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Plan:
    """How much of it. :ivar rounds: of everything. :ivar commands: of a client in a round."""

    rounds: int = 9
    commands: int = 20
    logins: int = 3
    together: int = 200
    together_rounds: int = 5
    size: int = _SIZE

    @classmethod
    def quick(cls) -> Plan:
        return cls(rounds=3, commands=10, logins=1, together=100, together_rounds=2)


class Suite:
    """:param say: is told what is under way."""

    def __init__(
        self, server: Server, plan: Plan, results: Results, say: Callable[[str], None]
    ) -> None:
        self._server = server
        self._plan = plan
        self._results = results
        self._say = say
        self._started = 0

    # --- the groups of --only -----------------------------------------------------------

    def latency(self) -> None:
        """One command after the other: time, and the client's CPU time."""
        plan, results = self._plan, self._results
        with self._workers(CLIENTS, 0) as workers:
            for worker in self._in_turn(workers, plan.rounds):
                answer = self._one_by_one(worker, "latency.0")
                results.add("cpu", worker.name, [answer["cpu"]])
                results.add("cpu+master", worker.name, [answer["cpu"] + answer["master_cpu"]])
                if worker.name == "holdfast":
                    for measure, command in (("builtin", ":"), ("/bin/true", "/bin/true")):
                        self._shell(worker, f"shell.{measure}.0", command)
                if worker.name in ("holdfast", "ssh-S"):
                    count = 200 if worker.name == "holdfast" else plan.commands
                    results.add("alive", worker.name, worker.ask("alive", count=count))

    def rtt(self) -> None:
        """The same, farther away."""
        for rtt in ROUND_TRIPS[1:]:
            with self._workers(CLIENTS, rtt) as workers:
                for worker in self._in_turn(workers, max(2, self._plan.rounds // 2)):
                    self._one_by_one(worker, f"latency.{rtt}")
                    if worker.name == "holdfast":
                        self._shell(worker, f"shell.builtin.{rtt}", ":")

    def concurrency(self) -> None:
        """Many commands over one login, so many at a time."""
        names = [name for name, client in CLIENTS.items() if not client.logs_in]
        for rtt, limits in ((0, LIMITS), (50, (50,))):
            with self._workers(names, rtt) as workers:
                for limit in limits:
                    for worker in self._in_turn(workers, self._plan.together_rounds):
                        self._at_once(worker, limit, f"rate.{limit}.{rtt}")

    def imports(self) -> None:
        """``import X``, over a Python that does nothing."""
        python = [sys.executable, "-I", "-c"]
        for _ in range(self._plan.rounds):
            bare = _seconds([*python, "pass"], 3)
            self._results.add("python", "python", bare)
            for name in _IMPORTS:
                over = min(bare)
                taken = _seconds([*python, f"import {name}"], 3)
                self._results.add("import", name, [seconds - over for seconds in taken])

    def process(self) -> None:
        """``holdfast run HOST true`` as a whole, over a live master."""
        server, directory = self._server, self._server.directory / "process"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment["HOLDFAST_RUNTIME_DIR"] = str(directory)
        environment["HOME"] = str(server.directory / "home")
        config = str(server.config_file)
        holdfast = str(Path(sys.executable).with_name("holdfast"))
        socket = str(server.directory / "process.sock")
        ssh = ["ssh", "-F", config, "-S", socket]
        ways = {
            "python": [sys.executable, "-I", "-c", "pass"],
            "holdfast": [holdfast, "run", "--config-file", config, "rtt0", "true"],
            "ssh-S": [*ssh, "rtt0", "true"],
        }
        _seconds([holdfast, "open", "--config-file", config, "rtt0"], 1, environment)
        _seconds([*ssh, "-M", "-N", "-f", "rtt0"], 1, environment)
        try:
            for _ in range(self._plan.rounds):
                for name, argv in ways.items():
                    self._results.add("process", name, _seconds(argv, 5, environment))
        finally:
            _seconds([holdfast, "close", "--config-file", config, "rtt0"], 1, environment)
            _seconds([*ssh, "-O", "exit", "rtt0"], 1, environment)

    def data(self) -> None:
        """Much output and input; a fresh process each time, for the memory."""
        size = self._plan.size
        requests: dict[str, dict[str, Any]] = {
            "output": {"request": "receive", "streamed": False},
            "streamed": {"request": "receive", "streamed": True},
            "input": {"request": "send"},
        }
        for _ in range(self._plan.together_rounds):
            for measure, arguments in requests.items():
                for name in ("holdfast", "ssh-S"):
                    with self._workers([name], 0) as workers:
                        for worker in workers:
                            answer = worker.ask(size=size, **arguments)
                            self._results.add(f"data.{measure}", name, [answer["rate"]])
                            self._results.add(f"memory.{measure}", name, [answer["memory"]])

    def install(self) -> None:
        """What ``pip install X`` puts on the disk."""
        for name in _PACKAGES:
            with tempfile.TemporaryDirectory() as target:
                wanted = str(_ROOT) if name == "holdfast" else name
                pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
                done = subprocess.run(
                    [*pip, "--target", target, wanted], capture_output=True, text=True
                )
                if done.returncode != 0:
                    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                    self._results.note(f"install size of {name}: {last}")
                    continue
                files = [path for path in Path(target).rglob("*") if path.is_file()]
                self._results.add(
                    "distributions", name, [len(list(Path(target).glob("*.dist-info")))]
                )
                self._results.add("size", name, [sum(path.stat().st_size for path in files)])

    # --- with the workers ---------------------------------------------------------------

    @contextlib.contextmanager
    def _workers(self, names: Sequence[str] | dict[str, Any], rtt: int) -> Iterator[list[Worker]]:
        """A process for each client, logged in. One that cannot is left out with a note."""
        server = self._server
        with contextlib.ExitStack() as stack:
            workers = []
            for name in names:
                self._started += 1
                arguments = {
                    "config_file": str(server.config_file),
                    "alias": f"rtt{rtt}",
                    "port": server.ports[rtt],
                    "user": server.user,
                    "key": str(server.identity_file),
                }
                try:
                    worker = Worker(name, arguments, server.directory / f"w{self._started}")
                except Failed as error:
                    self._results.note(str(error))
                else:
                    workers.append(stack.enter_context(worker))
            yield workers

    def _in_turn(self, workers: list[Worker], rounds: int) -> Iterator[Worker]:
        """Each one in each round, another one first each time. One that fails is out."""
        standing = list(workers)
        for number in range(rounds):
            self._say(f"round {number + 1} of {rounds}")
            for worker in standing[number % len(standing) :] + standing[: number % len(standing)]:
                self._failed = False
                yield worker
                if self._failed:
                    standing.remove(worker)
                    if not standing:
                        return

    def _one_by_one(self, worker: Worker, measure: str) -> dict[str, Any]:
        logs_in = CLIENTS[worker.name].logs_in
        count = self._plan.logins if logs_in else self._plan.commands
        answer: dict[str, Any] = worker.ask("one_by_one", command="true", count=count)
        self._results.add(measure, worker.name, answer["seconds"])
        return answer

    def _shell(self, worker: Worker, measure: str, command: str) -> None:
        try:
            seconds = worker.ask("shell", command=command, count=self._plan.commands)
        except Failed as error:
            self._results.note(f"left out: {measure}: {error}")
        else:
            self._results.add(measure, "holdfast", seconds)

    def _at_once(self, worker: Worker, limit: int, measure: str) -> None:
        count = self._plan.together
        if limit == 1 and worker.name in _PATIENT:
            count //= 5
        try:
            answer = worker.ask("at_once", command="true", count=count, limit=limit)
        except Failed as error:
            self._results.note(str(error))
            self._failed = True
            return
        worked = answer["share"] >= _WORKED
        self._results.add(measure, worker.name, [answer["rate"] if worked else math.nan])
        if answer["failures"]:
            self._results.count_failures(
                f"{CLIENTS[worker.name].title}, {limit} at once"
                + (f", {measure.split('.')[2]} ms away" if not measure.endswith(".0") else ""),
                answer["failures"],
                left_out=not worked,
            )


GROUPS = ("latency", "rtt", "concurrency", "imports", "process", "data", "install")


def _seconds(
    argv: Sequence[str], count: int, environment: dict[str, str] | None = None
) -> list[float]:
    """Of whole processes, which must succeed."""
    found = []
    for _ in range(count):
        begin = time.perf_counter()
        done = subprocess.run(argv, stdin=-3, capture_output=True, text=True, env=environment)
        found.append(time.perf_counter() - begin)
        if done.returncode != 0:
            raise Failed(f"{argv[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return found
