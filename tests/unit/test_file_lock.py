from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from holdfast.openssh.file_lock import FileLock, LockTimeout

HOLDER = """
import sys, time
from pathlib import Path
from holdfast.openssh.file_lock import FileLock
with FileLock(Path(sys.argv[1]), 10):
    print("held", flush=True)
    time.sleep(60)
"""

COUNTER = """
import sys
from pathlib import Path
from holdfast.openssh.file_lock import FileLock
number = Path(sys.argv[2])
for _ in range(50):
    with FileLock(Path(sys.argv[1]), 30):
        number.write_text(str(int(number.read_text()) + 1))
"""


def test_one_thread_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(20):
            with FileLock(tmp_path / "lock", 30):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(most) == 80


def test_one_process_at_a_time(tmp_path: Path) -> None:
    number = tmp_path / "number"
    number.write_text("0")
    arguments = [sys.executable, "-c", COUNTER, str(tmp_path / "lock"), str(number)]
    processes = [subprocess.Popen(arguments) for _ in range(4)]
    assert [process.wait(50) for process in processes] == [0, 0, 0, 0]
    assert number.read_text() == "200"


def test_waiting_has_an_end(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock", 1):
        begin = time.monotonic()
        with pytest.raises(LockTimeout, match="held by another process"):
            FileLock(tmp_path / "lock", 0.2).__enter__()
        assert 0.15 < time.monotonic() - begin < 2


def test_no_time_at_all_still_tries_once(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock", 0):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LockTimeout):
            FileLock(path, 0.1).__enter__()
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with FileLock(path, 5):
        pass


def test_the_holder_may_remove_the_file_while_others_wait(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    inside: list[str] = []
    most: list[int] = []

    def work(name: str) -> None:
        for _ in range(30):
            lock = FileLock(path, 30)
            with lock:
                inside.append(name)
                most.append(len(inside))
                lock.remove()
                # Whoever comes now makes a new file; the waiters on the old one must follow.
                inside.remove(name)

    threads = [threading.Thread(target=work, args=(f"{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 120
    assert not path.exists()


def test_an_error_inside_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(KeyError), FileLock(tmp_path / "lock", 1):
        raise KeyError
    with FileLock(tmp_path / "lock", 0):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    with FileLock(tmp_path / "lock", 1):
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    try:
        with FileLock(tmp_path / "lock", 0.5):
            pass
    finally:
        os.close(writer)
        os.close(reader)
        os.waitpid(child, 0)


def test_the_file_is_private_and_not_inherited(tmp_path: Path) -> None:
    with FileLock(tmp_path / "lock", 1):
        assert (tmp_path / "lock").stat().st_mode & 0o777 == 0o600
        script = "import os; print(len(os.listdir('/dev/fd')))"
        counts = [
            subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
        ]
    counts.append(
        subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
    )
    assert counts[0] == counts[1]
