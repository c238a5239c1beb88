"""Plain mode: where sharing cannot work every command logs in by itself, counted, with one warning."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import holdfast
from holdfast.openssh import control_path
from holdfast.testing import fake_ssh, find_clients

if TYPE_CHECKING:
    from tests.docker.conftest import Connect, Server, StartServer

    from holdfast.openssh.login_ledger import LoginLedger


@pytest.fixture
def ssh_without_sharing(tmp_path: Path) -> str:
    """An ssh whose build refuses the options of multiplexing."""
    script = 'case "$*" in *ControlMaster=auto*) echo "unsupported option" >&2; exit 255;; esac\n'
    return str(fake_ssh(tmp_path, f'{script}exec ssh "$@"\n'))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def ssh_to_a_master_that_refuses(directory: Path, refusing: Server) -> str:
    """An ssh whose masters refuse every session, as they go to a server with MaxSessions 0.

    Whatever is no master goes to the server that it is meant for.
    """
    options = (
        f"-o HostName={refusing.ip} -o Port={refusing.port} "
        f"-o UserKnownHostsFile={refusing.known_hosts}"
    )
    script = f'for word; do [ "$word" = -M ] && exec ssh {options} "$@"; done\nexec ssh "$@"\n'
    return str(fake_ssh(directory, script))


def test_a_master_that_refuses_what_plain_ssh_gets(
    server: StartServer,
    connect: Connect,
    ledger: LoginLedger,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key, refusing = server(), server(SSHD_OPTS="MaxSessions 0")
    before = key.logins() + refusing.logins()
    connection = connect(key, ssh=ssh_to_a_master_that_refuses(tmp_path, refusing))
    for number in range(3):
        assert connection.run(f"echo {number}").stdout == f"{number}\n"
    assert connection.mode == "plain"
    # The master's, one that found out, and one for each command.
    assert key.logins() + refusing.logins() - before == ledger.count() == 5
    assert connection.stats().logins == 5
    (warning,) = warnings(caplog)
    assert key.name in warning
    assert "refuses every session on a shared connection" in warning


def test_a_master_that_refuses_where_plain_ssh_is_forbidden(
    server: StartServer, connect: Connect, ledger: LoginLedger, tmp_path: Path
) -> None:
    key, refusing = server(), server(SSHD_OPTS="MaxSessions 0")
    before = key.logins() + refusing.logins()
    ssh = ssh_to_a_master_that_refuses(tmp_path, refusing)
    connection = connect(key, ssh=ssh, fallback="never")
    with pytest.raises(holdfast.MultiplexingUnsupported, match="HOLDFAST_SSH_FALLBACK=never"):
        connection.run("touch /tmp/forbidden")
    assert key.exec("find", "/tmp", "-name", "forbidden") == ""
    assert key.logins() + refusing.logins() - before == ledger.count()
    assert connection.mode == "multiplexed"


def test_an_ssh_that_cannot_share(
    server: StartServer,
    connect: Connect,
    ledger: LoginLedger,
    ssh_without_sharing: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    key = server()
    before = key.logins()
    connection = connect(key, ssh=ssh_without_sharing)
    assert connection.mode == "plain"
    assert key.logins() == before, "a login for nothing"
    for number in range(3):
        done = connection.run(f"cat; echo {number} >&2; exit {number}", input="in")
        assert (done.returncode, done.stdout, done.stderr) == (number, "in", f"{number}\n")
    assert key.logins() - before == ledger.count() == 3
    (tmp_path / "file").write_text("data")
    connection.put(tmp_path / "file", "/tmp/plain")
    connection.get("/tmp/plain", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "data"
    assert key.logins() - before == ledger.count() == 5
    stats = connection.stats()
    assert (stats.mode, stats.commands, stats.reuses, stats.logins) == ("plain", 5, 0, 5)
    assert len(warnings(caplog)) == 1
    assert "refuses the options of multiplexing" in warnings(caplog)[0]
    assert find_clients(key.config_file) == []
    assert not connection.is_alive()
    assert connection.is_alive(deep=True)
    assert connection.disconnect() is False


def test_an_ssh_that_cannot_share_where_plain_ssh_is_forbidden(
    server: StartServer, connect: Connect, ledger: LoginLedger, ssh_without_sharing: str
) -> None:
    key = server()
    before = key.logins()
    with pytest.raises(holdfast.MultiplexingUnsupported, match="HOLDFAST_SSH_FALLBACK=never"):
        connect(key, ssh=ssh_without_sharing, fallback="never")
    assert key.logins() == before
    assert ledger.logins() == []


def test_a_directory_that_cannot_hold_sockets(
    server: StartServer,
    connect: Connect,
    ledger: LoginLedger,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(control_path, "can_hold_sockets", lambda directory: False)
    key = server()
    before = key.logins()
    connection = connect(key)
    assert connection.run("id -un").stdout == "alice\n"
    assert connection.mode == "plain"
    assert key.logins() - before == ledger.count() == 1
    (warning,) = warnings(caplog)
    assert "HOLDFAST_RUNTIME_DIR" in warning
    with pytest.raises(holdfast.MultiplexingUnsupported, match="HOLDFAST_RUNTIME_DIR"):
        connect(key, fallback="never")


def test_a_login_that_fails_in_plain_mode(
    server: StartServer,
    connect: Connect,
    ledger: LoginLedger,
    ssh_without_sharing: str,
    tmp_path: Path,
) -> None:
    password = server(AUTH="password", PASSWORD="correct horse")
    before = password.logins()
    connection = connect(password, ssh=ssh_without_sharing)
    with pytest.raises(holdfast.AuthenticationRequired):
        connection.run("true")
    (tmp_path / "file").write_text("data")
    with pytest.raises(holdfast.HoldfastError) as caught:
        connection.put(tmp_path / "file", "/tmp/x")
    assert "Permission denied" in str(caught.value)
    assert [login.ok for login in ledger.logins()] == [False, False]
    assert password.logins() == before


def test_a_timeout_in_plain_mode(
    server: StartServer, connect: Connect, ssh_without_sharing: str
) -> None:
    connection = connect(server(), ssh=ssh_without_sharing)
    with pytest.raises(holdfast.CommandTimeout) as caught:
        connection.run("echo before; sleep 60", timeout=2)
    assert caught.value.output == "before\n"
