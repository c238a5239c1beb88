"""A host behind a bastion: one login on each, and the bastion's words when it is the one to fail."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import holdfast

if TYPE_CHECKING:
    from tests.docker.conftest import Connect, Server

    from holdfast.openssh.login_ledger import LoginLedger


def test_twenty_commands_and_files_are_one_login_on_each(
    bastion: Server, inner: Server, connect: Connect, ledger: LoginLedger, tmp_path: Path
) -> None:
    before = bastion.logins(), inner.logins()
    connection = connect(inner)
    for number in range(20):
        done = connection.run(f"echo {number} $(hostname)", check=True)
        assert (done.stdout, done.stderr) == (f"{number} inner\n", "")
    (tmp_path / "file").write_bytes(bytes(range(256)) * 1000)
    connection.put(tmp_path / "file", "/tmp/jumped")
    connection.get("/tmp/jumped", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "file").read_bytes()
    assert (bastion.logins(), inner.logins()) == (before[0] + 1, before[1] + 1)
    assert ledger.count() == 1
    assert connection.stats().reuses == 22


def test_the_jump_goes_over_a_live_master_of_the_bastion(
    bastion: Server, inner: Server, connect: Connect, ledger: LoginLedger, runtime_dir: Path
) -> None:
    directory = runtime_dir.parent / "cm"
    directory.mkdir(mode=0o700)
    config = inner.config_with("ServerAliveInterval 5")
    config.write_text(f"ControlPath {directory}/%C\n{config.read_text()}")
    before = bastion.logins(), inner.logins()
    connect(bastion, config_file=config)  # it allows no commands, only connections onward
    assert connect(inner, config_file=config).run("hostname").stdout == "inner\n"
    assert (bastion.logins(), inner.logins()) == (before[0] + 1, before[1] + 1)
    assert ledger.count() == 2
    listed = [path for path in directory.iterdir() if path.is_socket()]
    assert len(listed) == 2, "plain ssh finds both"


def test_jump_hosts_given_as_an_option(bastion: Server, inner: Server, ledger: LoginLedger) -> None:
    text = inner.config_file.read_text()
    config = inner.config_with()
    config.write_text(re.sub(r"  ProxyJump bastion\n", "", text))
    with holdfast.connect(
        "inner", config_file=config, options={"ProxyJump": "bastion"}
    ) as connection:
        assert connection.run("hostname").stdout == "inner\n"
    assert ledger.count() == 1


def test_a_bastion_that_refuses_us_is_named(
    bastion: Server, inner: Server, connect: Connect, ledger: LoginLedger, tmp_path: Path
) -> None:
    other = tmp_path / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    before = bastion.logins(), inner.logins()
    config = tmp_path / "config"
    text = re.sub(r"IdentityFile .*", f"IdentityFile {other}", inner.config_file.read_text())
    config.write_text(text)
    with pytest.raises(holdfast.AuthenticationRequired, match="holdfast open") as caught:
        connect(inner, config_file=config)
    assert f"alice@{bastion.ip}: Permission denied" in caught.value.detail
    assert (bastion.logins(), inner.logins()) == before
    assert ledger.count() == 0


def test_a_bastion_that_refuses_connections_is_named(
    bastion: Server, inner: Server, connect: Connect, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(re.sub(r"  Port \d+", "  Port 1", inner.config_file.read_text()))
    with pytest.raises(holdfast.HostUnreachable) as caught:
        connect(inner, config_file=config)
    assert f"connect to host {bastion.ip} port 1: Connection refused" in str(caught.value)


def test_a_name_that_the_bastion_does_not_know(
    bastion: Server, inner: Server, connect: Connect
) -> None:
    config = inner.config_with("HostName nowhere.invalid")
    with pytest.raises(holdfast.HostUnreachable) as caught:
        connect(inner, config_file=config)
    assert "open failed" in caught.value.detail or "administratively" in caught.value.detail


def test_a_changed_host_key_of_the_bastion(
    bastion: Server, inner: Server, connect: Connect, tmp_path: Path
) -> None:
    known = tmp_path / "known_hosts"
    known.write_text(bastion.known_hosts.read_text().replace(bastion.host_key, inner.host_key))
    config = tmp_path / "config"
    config.write_text(f"UserKnownHostsFile {known}\n{inner.config_file.read_text()}")
    with pytest.raises(holdfast.HostKeyRejected):
        connect(inner, config_file=config)


def test_the_bastion_drops_us_under_a_command(
    bastion: Server, inner: Server, connect: Connect, ledger: LoginLedger
) -> None:
    connection = connect(inner)
    with pytest.raises(holdfast.ConnectionLost) as caught:  # noqa: SIM117
        with connection.popen("echo started; sleep 60") as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            bastion.drop_connections()
            process.wait(timeout=20)
    assert caught.value.started is True
    assert connection.run("hostname").stdout == "inner\n"
    assert ledger.count() == 2


def test_the_bastion_dies(bastion: Server, inner: Server, connect: Connect) -> None:
    connection = connect(inner, login_timeout=5)
    process = connection.popen("echo started; sleep 60")
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    bastion.kill()
    with pytest.raises(holdfast.ConnectionLost) as lost:
        process.wait(timeout=20)
    assert lost.value.started is True
    begin = time.monotonic()
    with pytest.raises(holdfast.HostUnreachable) as caught:
        connection.run("true")
    assert time.monotonic() - begin < 7
    assert "jump hosts" in str(caught.value)
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        stream.close()
