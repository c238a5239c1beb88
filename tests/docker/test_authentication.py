"""Logins that only a human can make, and host keys that only a human may accept."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

import holdfast
from holdfast.testing import find_clients

if TYPE_CHECKING:
    from tests.docker.conftest import Connect, Server, StartServer, Totp

    from holdfast.openssh.login_ledger import LoginLedger

COMMAND = [sys.executable, "-m", "holdfast"]


def sockets(runtime_dir: Path) -> list[Path]:
    return [path for path in runtime_dir.iterdir() if path.is_socket()]


def open_on_a_terminal(
    server: Server, answers: list[tuple[str, str]], timeout: float = 20
) -> tuple[int, str]:
    """``holdfast open`` by a human who gives these answers; its exit status and what it showed."""
    arguments = ["open", "--config-file", str(server.config_file), server.name]
    with pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], *arguments], timeout=timeout, encoding="utf-8"
    ) as child:
        shown = ""
        for prompt, answer in answers:
            child.expect_exact(prompt)
            shown += child.before or ""
            child.sendline(answer)
        child.expect(pexpect.EOF)
        shown += child.before or ""
        return child.wait(), shown


def run_by_a_new_process(server: Server, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "run", "--config-file", str(server.config_file), server.name, "--", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    "variant",
    [
        {"AUTH": "password", "PASSWORD": "correct horse"},
        {"AUTH": "password", "PASSWORD": "correct horse", "SERVER": "dropbear"},
        {"AUTH": "key+totp"},
        {"AUTH": "password+totp", "PASSWORD": "secret"},
    ],
    ids=["password", "password of dropbear", "key+code", "password+code"],
)
def test_what_only_a_human_can_give_is_asked_for_by_naming_the_command(
    server: StartServer, connect: Connect, ledger: LoginLedger, variant: dict[str, str]
) -> None:
    asking = server(fresh=False, **variant)
    before = asking.logins()
    begin = time.monotonic()
    with pytest.raises(holdfast.AuthenticationRequired) as caught:
        connect(asking)
    assert time.monotonic() - begin < 10
    command = f"holdfast open --config-file {asking.config_file} {asking.name}"
    assert str(caught.value).endswith(command)
    assert "Permission denied" in caught.value.detail
    assert [(login.ok, login.reason) for login in ledger.logins()] == [(False, "authentication")]
    assert asking.logins() == before
    assert find_clients(asking.config_file) == []


def test_opened_by_a_human_once_then_used_by_three_processes(
    server: StartServer, totp: Totp, ledger: LoginLedger, runtime_dir: Path
) -> None:
    both = server(AUTH="key+totp", TOTP_REUSE="no", fresh=True)
    status, shown = open_on_a_terminal(both, [("Verification code: ", totp())])
    assert status == 0, shown
    assert len(sockets(runtime_dir)) == 1
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: run_by_a_new_process(both, "id -un; exit 7"), range(3)))
    assert [(done.returncode, done.stdout) for done in results] == [(7, "alice\n")] * 3
    assert [done.stderr for done in results] == [""] * 3
    with holdfast.connect(both.name, config_file=both.config_file) as connection:
        assert connection.run("echo here").stdout == "here\n"
    assert both.logins() == ledger.count() == 1

    status, shown = open_on_a_terminal(both, [])
    assert (status, both.logins()) == (0, 1), "it was open already"

    connection = holdfast.connect(both.name, config_file=both.config_file)
    assert connection.disconnect()
    deadline = time.monotonic() + 5
    while connection.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(holdfast.AuthenticationRequired):
        connection.run("true")
    connection.close()


def test_password_and_code_are_asked_for_in_turn(
    server: StartServer, totp: Totp, ledger: LoginLedger
) -> None:
    both = server(AUTH="password+totp", PASSWORD="secret")
    before = both.logins()
    status, shown = open_on_a_terminal(
        both, [("Password: ", "secret"), ("Verification code: ", totp())]
    )
    assert status == 0, shown
    assert run_by_a_new_process(both, "id -un").stdout == "alice\n"
    assert both.logins() - before == ledger.count() == 1


def test_a_wrong_code_fails_and_leaves_nothing(
    server: StartServer, ledger: LoginLedger, runtime_dir: Path
) -> None:
    both = server(AUTH="key+totp")
    before = both.logins()
    status, shown = open_on_a_terminal(both, [("Verification code: ", "000000")] * 3)
    assert status == 255, shown
    assert "Permission denied" in shown
    assert "Traceback" not in shown
    assert both.logins() == before
    assert [login.ok for login in ledger.logins()] == [False]
    assert sockets(runtime_dir) == []
    assert find_clients(both.config_file) == []


def test_a_human_who_gives_up_leaves_nothing(
    server: StartServer, ledger: LoginLedger, runtime_dir: Path
) -> None:
    both = server(AUTH="key+totp")
    arguments = ["open", "--config-file", str(both.config_file), both.name]
    with pexpect.spawn(COMMAND[0], [*COMMAND[1:], *arguments], timeout=20) as child:
        child.expect_exact("Verification code: ")
        child.sendintr()
        child.expect(pexpect.EOF)
        assert child.wait() not in (0, None)
        assert b"Traceback" not in (child.before or b"")
    deadline = time.monotonic() + 5
    while find_clients(both.config_file):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert sockets(runtime_dir) == []
    assert ledger.count() == 0


# --- host keys


@pytest.mark.parametrize("checking", ["yes", "ask"])
def test_a_changed_host_key_is_rejected(
    server: StartServer, connect: Connect, ledger: LoginLedger, tmp_path: Path, checking: str
) -> None:
    changed = server()
    known = tmp_path / "known_hosts"
    other = server(BANNER="x").host_key
    known.write_text(changed.known_hosts.read_text().replace(changed.host_key, other))
    before = known.read_bytes(), changed.logins()
    config = changed.config_with(f"UserKnownHostsFile {known}", f"StrictHostKeyChecking {checking}")
    written = config.read_bytes()
    with pytest.raises(holdfast.HostKeyRejected) as caught:
        connect(changed, config_file=config)
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in caught.value.detail
    message = str(caught.value)
    assert "Ask its administrators, and only then remove the old key" in message
    assert "holdfast open" not in message
    assert (known.read_bytes(), changed.logins()) == before
    assert config.read_bytes() == written
    assert [(login.ok, login.reason) for login in ledger.logins()] == [(False, "host key changed")]


@pytest.mark.parametrize("checking", ["yes", "ask"])
def test_an_unknown_host_key_is_a_humans_to_accept(
    server: StartServer, connect: Connect, ledger: LoginLedger, tmp_path: Path, checking: str
) -> None:
    unknown = server()
    known = tmp_path / "known_hosts"
    known.write_text("# nobody yet\n")
    before = unknown.logins()
    config = unknown.config_with(f"UserKnownHostsFile {known}", f"StrictHostKeyChecking {checking}")
    with pytest.raises(holdfast.HostKeyRejected) as caught:
        connect(unknown, config_file=config)
    command = f"holdfast open --config-file {config} {unknown.name}"
    assert str(caught.value).endswith(command)
    assert known.read_text() == "# nobody yet\n"
    assert unknown.logins() == before
    assert [login.reason for login in ledger.logins()] == ["host key unknown"]


def test_an_unknown_host_key_is_asked_about_on_the_terminal(
    server: StartServer, ledger: LoginLedger, tmp_path: Path
) -> None:
    unknown = server()
    known = tmp_path / "known_hosts"
    config = unknown.config_with(f"UserKnownHostsFile {known}", "StrictHostKeyChecking ask")
    arguments = ["open", "--json", "--config-file", str(config), unknown.name]
    with pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], *arguments], timeout=20, encoding="utf-8"
    ) as child:
        child.expect_exact("Are you sure you want to continue connecting")
        assert not known.exists()
        child.sendline("yes")
        child.expect(pexpect.EOF)
        assert child.wait() == 0
    assert unknown.host_key in known.read_text()
    assert ledger.count() == 1


def test_a_key_that_the_server_does_not_know(
    server: StartServer, connect: Connect, tmp_path: Path
) -> None:
    other = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    key = server()
    config = tmp_path / "config"
    config.write_text(
        re.sub(r"IdentityFile .*", f"IdentityFile {other}", key.config_file.read_text())
    )
    with pytest.raises(holdfast.AuthenticationRequired, match="holdfast open"):
        connect(key, config_file=config)


def test_json_of_open_tells_where_it_listens(server: StartServer, runtime_dir: Path) -> None:
    key = server()
    done = subprocess.run(
        [*COMMAND, "open", "--json", "--config-file", str(key.config_file), key.name],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert Path(told["control_path"]).parent == runtime_dir
    assert (told["ours"], told["logged_in"]) == (True, True)
