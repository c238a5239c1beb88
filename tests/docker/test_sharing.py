"""Masters on the user's own ControlPath: joined where one lives, shared with plain ssh where not."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.docker.conftest import Connect, Server, StartServer

    from holdfast.openssh.login_ledger import LoginLedger


@pytest.fixture
def directory(runtime_dir: Path) -> Path:
    """A private directory for control paths; masters in it end with the test."""
    made = runtime_dir.parent / "cm"
    made.mkdir(mode=0o700)
    return made


def start_master(server: Server, config: Path, *options: str) -> None:
    """As ``ssh -fN`` by the user, whose configuration says ControlMaster and ControlPath."""
    done = server.ssh("-f", "-N", *options, server.name, config_file=config)
    assert done.returncode == 0, done.stderr


def has_master(server: Server, config: Path) -> bool:
    return server.ssh("-O", "check", server.name, config_file=config).returncode == 0


def sockets(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_socket()]


def await_no_sockets(directory: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while sockets(directory):
        assert time.monotonic() < deadline, sockets(directory)
        time.sleep(0.02)


def test_a_live_master_of_the_user_is_joined_and_never_ended(
    server: StartServer, connect: Connect, ledger: LoginLedger, directory: Path, runtime_dir: Path
) -> None:
    key = server()
    config = key.config_with(
        "ControlMaster auto", f"ControlPath {directory}/%C", "ControlPersist 60"
    )
    start_master(key, config)
    before = key.logins()
    connection = connect(key, config_file=config)
    assert connection.run("id -un").stdout == "alice\n"
    (directory / "file").write_text("data")
    connection.put(directory / "file", "/tmp/joined")
    assert connection.run("cat /tmp/joined").stdout == "data"
    assert key.logins() == before
    assert ledger.logins() == []
    assert sockets(runtime_dir) == []
    assert connection.disconnect() is False
    assert connection.disconnect(drain=False) is False
    assert has_master(key, config)
    assert connection.run("echo still").stdout == "still\n"
    assert key.logins() == before


def test_plain_ssh_shares_the_master_that_we_start(
    server: StartServer, connect: Connect, ledger: LoginLedger, directory: Path, tmp_path: Path
) -> None:
    key = server()
    before = key.logins()
    config = key.config_with(
        "ControlMaster auto", f"ControlPath {directory}/%C", "ControlPersist 60"
    )
    connection = connect(key, config_file=config)
    assert len(sockets(directory)) == 1
    assert key.ssh(key.name, "id -un", config_file=config).stdout == "alice\n"
    (tmp_path / "file").write_text("data")
    for tool in (["scp"], ["rsync", "-e", f"ssh -F {config}"]):
        options = ["-F", str(config)] if tool == ["scp"] else []
        argv = [*tool, *options, str(tmp_path / "file"), f"{key.name}:/tmp/shared"]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=20)
    assert connection.run("cat /tmp/shared").stdout == "data"
    assert key.logins() - before == ledger.count() == 1
    assert connection.disconnect() is True
    await_no_sockets(directory, 5)
    assert not has_master(key, config)


@pytest.mark.parametrize("drain", [True, False], ids=["drain", "at once"])
def test_a_session_of_plain_ssh_on_our_master(
    server: StartServer, connect: Connect, directory: Path, drain: bool
) -> None:
    """Draining lets it finish."""
    key = server()
    config = key.config_with(f"ControlPath {directory}/%C")
    connection = connect(key, config_file=config)
    argv = ["ssh", "-F", str(config), key.name, "echo ready; cat"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as session:
        assert session.stdout is not None
        assert session.stdout.readline() == b"ready\n"
        assert connection.disconnect(drain=drain) is True
        output, _ = session.communicate(b"the end" if drain else None, timeout=10)
    assert (session.returncode, output) == ((0, b"the end") if drain else (255, b""))
    await_no_sockets(directory, 5)


def test_the_users_control_persist_wins(
    server: StartServer, connect: Connect, directory: Path
) -> None:
    key = server()
    config = key.config_with(f"ControlPath {directory}/%C", "ControlPersist 1")
    connect(key, config_file=config).run("true", check=True)
    assert len(sockets(directory)) == 1
    await_no_sockets(directory, 6)


def test_a_control_persist_that_is_asked_for_wins_over_the_users(
    server: StartServer, connect: Connect, directory: Path
) -> None:
    key = server()
    config = key.config_with(f"ControlPath {directory}/%C", "ControlPersist 60")
    connect(key, config_file=config, control_persist=1).run("true", check=True)
    await_no_sockets(directory, 6)


def test_without_a_control_persist_the_master_outlives_its_command(
    server: StartServer, connect: Connect, directory: Path
) -> None:
    """Plain ssh would end it with its first session (ControlPersist no)."""
    key = server()
    config = key.config_with("ControlMaster auto", f"ControlPath {directory}/%C")
    connection = connect(key, config_file=config)
    connection.run("true", check=True)
    time.sleep(1.2)  # nothing may happen
    assert has_master(key, config)


@pytest.mark.parametrize(
    "unusable", ["writable by others", "too long", "no directory", "not absolute", "a link", "none"]
)
def test_an_unusable_control_path_is_replaced_by_our_own(
    server: StartServer,
    connect: Connect,
    ledger: LoginLedger,
    directory: Path,
    runtime_dir: Path,
    unusable: str,
) -> None:
    path = {
        "too long": f"{directory}/{'x' * 50}-%C",
        "no directory": f"{directory}/missing/%C",
        "not absolute": "holdfast-test-%C",
        "a link": f"{directory}/link/%C",
        "none": "none",
    }.get(unusable, f"{directory}/%C")
    if unusable == "writable by others":
        directory.chmod(0o777)
    if unusable == "a link":
        (directory / "real").mkdir(mode=0o700)
        (directory / "link").symlink_to(directory / "real")
    key = server()
    before = key.logins()
    config = key.config_with("ControlMaster auto", f"ControlPath {path}")
    connection = connect(key, config_file=config)
    assert connection.run("id -un").stdout == "alice\n"
    assert len(sockets(runtime_dir)) == 1
    assert sockets(directory) == []
    assert key.logins() - before == ledger.count() == 1
    assert connection.mode == "multiplexed"


@pytest.mark.parametrize("order", [("", "alice@", "bob@"), ("bob@", "alice@", "")])
def test_a_control_path_that_two_accounts_share_is_never_the_wrong_account(
    server: StartServer,
    connect: Connect,
    ledger: LoginLedger,
    directory: Path,
    order: tuple[str, ...],
) -> None:
    key = server()
    before = key.logins()
    config = key.config_with(f"ControlPath {directory}/%h-%p")
    for _ in range(2):
        for account in order:
            connection = connect(key, f"{account}{key.name}", config_file=config)
            user = account.rstrip("@") or "alice"
            assert connection.run("id -un").stdout == f"{user}\n"
    assert key.ssh(key.name, "id -un", config_file=config).stdout == "alice\n"
    assert key.logins() - before == ledger.count() == 2


def test_purposes_have_masters_of_their_own(
    server: StartServer, ledger: LoginLedger, directory: Path, runtime_dir: Path
) -> None:
    import holdfast

    key = server()
    config = key.config_with(f"ControlPath {directory}/%C")
    main = holdfast.connect(key.name, config_file=config)
    watcher = holdfast.connect(key.name, config_file=config, purpose="watcher")
    assert (len(sockets(directory)), len(sockets(runtime_dir))) == (1, 1)
    assert main.run("echo 1").stdout + watcher.run("echo 2").stdout == "1\n2\n"
    assert ledger.count() == 2
    main.close()
    watcher.close()


def test_a_dead_socket_on_the_users_path_is_swept(
    server: StartServer, connect: Connect, ledger: LoginLedger, directory: Path
) -> None:
    import os
    import signal

    key = server()
    config = key.config_with(f"ControlPath {directory}/%C")
    connection = connect(key, config_file=config)
    master = connection._link.control_master().find()
    assert master is not None
    os.kill(master.pid, signal.SIGKILL)
    assert connection.run("echo again").stdout == "again\n"
    assert [str(path) for path in sockets(directory)] == [master.control_path]
    assert ledger.count() == 2
