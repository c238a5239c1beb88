from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from holdfast.openssh import login_ledger
from holdfast.openssh.login_ledger import LoginLedger

WORKER = """
import sys
from pathlib import Path
from holdfast.openssh.login_ledger import LoginLedger
ledger = LoginLedger(Path(sys.argv[1]))
for number in range(50):
    with ledger.login("cluster1", "key", "master") as entry:
        entry.succeeded()
"""


@pytest.fixture
def ledger(tmp_path: Path) -> LoginLedger:
    return LoginLedger(tmp_path)


def _login(ledger: LoginLedger, key: str = "key", ok: bool = True) -> None:
    with ledger.login("alice@cluster1", key, "master") as entry:
        if ok:
            entry.succeeded()
        else:
            entry.failed("authentication")


def test_nothing_is_known_of_a_fresh_directory(ledger: LoginLedger) -> None:
    assert ledger.logins() == []
    assert ledger.count() == 0


def test_a_login_is_kept_with_all_that_is_known(ledger: LoginLedger) -> None:
    _login(ledger)
    (login,) = ledger.logins()
    assert (login.destination, login.key, login.kind) == ("alice@cluster1", "key", "master")
    assert (login.pid, login.ok, login.reason) == (os.getpid(), True, "")


def test_failures_are_kept_and_not_counted(ledger: LoginLedger) -> None:
    _login(ledger, ok=False)
    _login(ledger)
    assert [(login.ok, login.reason) for login in ledger.logins()] == [
        (False, "authentication"),
        (True, ""),
    ]
    assert ledger.count() == 1


def test_connections_are_counted_apart(ledger: LoginLedger) -> None:
    _login(ledger, "a")
    _login(ledger, "b")
    _login(ledger, "b")
    assert (ledger.count("a"), ledger.count("b"), ledger.count("c"), ledger.count()) == (1, 2, 0, 3)


def test_an_attempt_is_on_disk_before_it_is_made(ledger: LoginLedger) -> None:
    with ledger.login("h", "key", "open"):
        (login,) = ledger.logins()
        assert login.ok is None
        assert ledger.count() == 0


def test_an_attempt_that_was_cut_short_stays_an_attempt(ledger: LoginLedger) -> None:
    with pytest.raises(KeyboardInterrupt), ledger.login("h", "key", "master"):
        raise KeyboardInterrupt
    assert [login.ok for login in ledger.logins()] == [None]


def test_eight_processes_lose_no_login(tmp_path: Path, ledger: LoginLedger) -> None:
    arguments = [sys.executable, "-c", WORKER, str(tmp_path)]
    processes = [subprocess.Popen(arguments) for _ in range(8)]
    assert [process.wait(50) for process in processes] == [0] * 8
    assert len(ledger.logins()) == ledger.count() == 400
    assert len({login.pid for login in ledger.logins()}) == 8


def test_threads_lose_no_login(ledger: LoginLedger) -> None:
    def work() -> None:
        for _ in range(10):
            _login(ledger)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.count() == 40


def test_a_reader_meanwhile_sees_whole_lines(ledger: LoginLedger) -> None:
    done = threading.Event()

    def work() -> None:
        for _ in range(50):
            _login(ledger)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    seen = 0
    while not done.is_set():
        count = ledger.count()
        assert count >= seen
        seen = count
    thread.join()
    assert ledger.count() == 50


@pytest.mark.parametrize(
    "torn",
    [
        b'{"id":"abc","destin',
        b"{",
        b"\xff\xfe\n",
        b"\n\n\n",
        b"null\n",
        b"[1]\n",
        b'"text"\n',
        b"\0\0\0\0",
        b'{"id":"x"}\n',
        b'{"destination":"h"}\n',
        b'{"id":"y","destination":"h","of":"another version"}\n',
    ],
)
def test_a_torn_line_costs_no_other(tmp_path: Path, ledger: LoginLedger, torn: bytes) -> None:
    _login(ledger)
    with (tmp_path / login_ledger.FILE_NAME).open("ab") as file:
        file.write(torn)
    _login(ledger)
    _login(ledger, ok=False)
    assert [login.ok for login in ledger.logins("key")] == [True, True, False]


def test_the_file_stays_small_and_keeps_the_newest(
    tmp_path: Path, ledger: LoginLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(login_ledger, "_MAX_SIZE", 4096)
    for number in range(100):
        _login(ledger, str(number))
        assert (tmp_path / login_ledger.FILE_NAME).stat().st_size < 4096 + 512
        assert ledger.count(str(number)) == 1
    keys = [login.key for login in ledger.logins()]
    assert keys == [str(number) for number in range(100 - len(keys), 100)]
    assert (tmp_path / login_ledger.FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("*.new"))


def test_a_ledger_that_cannot_be_written_takes_no_login_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = LoginLedger(tmp_path / "vanished")
    _login(ledger)
    assert "could not be counted" in caplog.text
    assert ledger.logins() == []


def test_the_file_is_private_and_one_json_object_a_line(
    tmp_path: Path, ledger: LoginLedger
) -> None:
    _login(ledger)
    path = tmp_path / login_ledger.FILE_NAME
    assert path.stat().st_mode & 0o777 == 0o600
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [sorted(event) for event in events][1] == ["id", "ok", "reason"]


def test_names_with_odd_characters_travel(ledger: LoginLedger) -> None:
    with ledger.login("a\nb\u2028\udcff", "k\u0085", "plain") as entry:
        entry.failed("x\ny")
    (login,) = ledger.logins()
    assert (login.destination, login.key, login.reason) == ("a\nb\u2028\udcff", "k\u0085", "x\ny")
