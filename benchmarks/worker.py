"""A process that holds one client: requests as lines of JSON on stdin, answers on stdout.

One process for each client, so that CPU time, memory and threads of one are not counted for
another. :class:`Worker` is the other end.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Optional

from clients import CLIENTS, Client


class Failed(Exception):
    """A worker could not do what it was asked; with its own words."""


class Worker:
    """:param directory: a private one for the client's sockets."""

    def __init__(self, name: str, arguments: Mapping[str, Any], directory: Path) -> None:
        self.name = name
        home = directory / "home"
        home.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment.update(HOME=str(home), HOLDFAST_RUNTIME_DIR=str(directory / "r"))
        self._process = subprocess.Popen(
            [
                sys.executable,
                __file__,
                name,
                json.dumps({**arguments, "directory": str(directory)}),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._answer()

    def ask(self, request: str, **arguments: Any) -> Any:
        """:raises Failed: with the client's error."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([request, arguments]) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise Failed(f"{self.name}: its process ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(f"{self.name}: {answer['error']}")
        return answer["value"]

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


# --- in the process --------------------------------------------------------------------------


def cpu_seconds() -> float:
    """Of this process and of those that it has started and waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def cpu_seconds_of(pid: Optional[int]) -> float:
    """Of another process, 0 where the system does not tell (it is Linux's schedstat)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def peak_memory() -> int:
    """Bytes. Not ru_maxrss where it can be helped: that includes the process that forked us."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    except OSError:
        found = None
    if found:
        return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Requests:
    """What a worker can be asked."""

    def __init__(self, client: Client) -> None:
        self._client: Any = client

    def one_by_one(self, command: str, count: int) -> dict[str, Any]:
        client = self._client
        pid = client.master_pid()
        cpu, master = cpu_seconds(), cpu_seconds_of(pid)
        seconds = client.one_by_one(command, count)
        return {
            "seconds": seconds,
            "cpu": (cpu_seconds() - cpu) / count,
            "master_cpu": (cpu_seconds_of(pid) - master) / count,
        }

    def at_once(self, command: str, count: int, limit: int) -> dict[str, Any]:
        seconds, failures = self._client.at_once(command, count, limit)
        if failures:  # what it has left may be no connection any more
            with contextlib.suppress(Exception):
                self._client.close()
            self._client.open()
            self._client.run(command)
        done = count - len(failures)
        return {"rate": done / seconds, "share": done / count, "failures": failures}

    def alive(self, count: int) -> list[float]:
        seconds: list[float] = self._client.alive(count)
        return seconds

    def shell(self, command: str, count: int) -> list[float]:
        seconds: list[float] = self._client.shell(command, count)
        return seconds

    def receive(self, size: int, streamed: bool) -> dict[str, Any]:
        command = f"head -c {size} /dev/zero"
        return self._moved(size, lambda: self._client.receive(command, streamed))

    def send(self, size: int) -> dict[str, Any]:
        data = b"x" * size  # not zeros, which the system would not even keep in memory
        # The count comes back as an exit status: everything has arrived, or it is 1.
        command = f"test $(wc -c) -eq {size}"
        return self._moved(size, lambda: size if self._client.send(command, data) == 0 else -1)

    def _moved(self, size: int, call: Callable[[], int]) -> dict[str, Any]:
        before = peak_memory()
        begin = time.perf_counter()
        moved = call()
        seconds = time.perf_counter() - begin
        if moved != size:
            raise RuntimeError(f"{moved} bytes of {size}")
        return {"rate": size / seconds, "memory": peak_memory() - before, "peak": peak_memory()}


def main() -> None:
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer of ours
    client = CLIENTS[name](**arguments)

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")
        answers.flush()

    try:
        client.open()
        client.run("true")
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
        return
    answer(value=None)
    requests = Requests(client)
    try:
        for line in sys.stdin:
            request, parameters = json.loads(line)
            gc.collect()
            try:
                answer(value=getattr(requests, request)(**parameters))
            except Exception as error:
                answer(error=f"{type(error).__name__}: {error}")
    finally:
        client.close()


if __name__ == "__main__":
    main()
