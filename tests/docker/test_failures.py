"""Hosts that cannot be reached: the right error, in time, nothing left behind."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import holdfast
from holdfast.testing import find_clients

if TYPE_CHECKING:
    from tests.docker.conftest import Connect, Docker, Server, StartServer

    from holdfast.openssh.login_ledger import LoginLedger


@contextmanager
def listener(says: bytes = b"", *, closes: bool = False) -> Iterator[int]:
    """A server that accepts connections, says so much, and never more. Yields its port."""
    accepted: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = server.accept()
                connection.sendall(says)
                if closes:
                    connection.close()
                else:
                    accepted.append(connection)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection in accepted:
            connection.close()


@contextmanager
def black_hole() -> Iterator[int]:
    """A port whose SYNs are dropped, as by a firewall: its queue is full. Yields the port."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        crowd = [socket.socket() for _ in range(4)]
        for one in crowd:
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(server.getsockname())
        yield server.getsockname()[1]
        for one in crowd:
            one.close()


def fails(
    server: Server,
    connect: Connect,
    ledger: LoginLedger,
    config: Path,
    *,
    within: float,
    login_timeout: float = 60,
) -> holdfast.HostUnreachable:
    """Connecting raises HostUnreachable in so many seconds, and leaves nothing."""
    before = server.logins()
    begin = time.monotonic()
    with pytest.raises(holdfast.HostUnreachable, match=server.name) as caught:
        connect(server, config_file=config, login_timeout=login_timeout)
    assert time.monotonic() - begin < within
    assert [login.ok for login in ledger.logins()] == [False]
    assert find_clients(config) == []
    assert server.logins() == before
    return caught.value


def test_a_refused_port(server: StartServer, connect: Connect, ledger: LoginLedger) -> None:
    key = server()
    error = fails(key, connect, ledger, key.config_with("Port 1"), within=2)
    assert "Connection refused" in str(error)
    assert "check the network, the port" in str(error)


def test_an_address_where_nobody_is(
    server: StartServer, connect: Connect, ledger: LoginLedger, docker: Docker
) -> None:
    if not docker.direct:
        pytest.skip("the containers' network is not reached from here")
    subnet = json.loads(docker("network", "inspect", "bridge"))[0]["IPAM"]["Config"][0]["Subnet"]
    nobody = list(ipaddress.ip_network(subnet).hosts())[-2] if "/2" in subnet else None
    nobody = nobody or ipaddress.ip_network(subnet).broadcast_address - 2
    key = server()
    config = key.config_with(f"HostName {nobody}", f"HostKeyAlias {key.ip}")
    error = fails(key, connect, ledger, config, within=4, login_timeout=3)
    assert "within 3 s" in str(error) or "No route to host" in str(error)


@pytest.mark.parametrize("seconds", [1, 3])
def test_packets_into_the_void(
    server: StartServer, connect: Connect, ledger: LoginLedger, seconds: int
) -> None:
    key = server()
    with black_hole() as port:
        config = key.config_with("HostName 127.0.0.1", f"Port {port}")
        error = fails(key, connect, ledger, config, within=seconds + 1, login_timeout=seconds)
    assert f"within {seconds} s" in str(error) or "timed out" in str(error)


def test_a_connect_timeout_of_the_users_wins(
    server: StartServer, connect: Connect, ledger: LoginLedger
) -> None:
    key = server()
    with black_hole() as port:
        config = key.config_with("HostName 127.0.0.1", f"Port {port}", "ConnectTimeout 1")
        fails(key, connect, ledger, config, within=2.5, login_timeout=30)


def test_a_name_that_does_not_resolve(
    server: StartServer, connect: Connect, ledger: LoginLedger
) -> None:
    key = server()
    config = key.config_with("HostName nowhere.invalid")
    error = fails(key, connect, ledger, config, within=4, login_timeout=3)
    assert "nowhere.invalid" in str(error)


def test_a_server_that_never_speaks(
    server: StartServer, connect: Connect, ledger: LoginLedger
) -> None:
    key = server()
    with listener() as port:
        config = key.config_with("HostName 127.0.0.1", f"Port {port}")
        fails(key, connect, ledger, config, within=3, login_timeout=2)


def test_a_server_that_stops_after_its_banner(
    server: StartServer, connect: Connect, ledger: LoginLedger
) -> None:
    """ConnectTimeout ends with the banner: here only our own clock helps."""
    key = server()
    with listener(b"SSH-2.0-OpenSSH_9.2\r\n") as port:
        config = key.config_with("HostName 127.0.0.1", f"Port {port}", "ConnectTimeout 10")
        error = fails(key, connect, ledger, config, within=5, login_timeout=2)
    assert "within 2 s" in str(error)
    assert "login_timeout" in str(error)


@pytest.mark.parametrize("words", [b"", b"220 mail ESMTP\r\n", b"HTTP/1.1 400 Bad\r\n\r\n"])
def test_a_server_that_is_none(
    server: StartServer, connect: Connect, ledger: LoginLedger, words: bytes
) -> None:
    key = server()
    with listener(words, closes=True) as port:
        config = key.config_with("HostName 127.0.0.1", f"Port {port}")
        fails(key, connect, ledger, config, within=3)


def test_a_frozen_server_is_told_by_a_deep_look_alone(
    server: StartServer, connect: Connect
) -> None:
    key = server()
    connection = connect(key)
    key.pause()
    assert connection.is_alive()
    begin = time.monotonic()
    assert not connection.is_alive(deep=True, timeout=1)
    with pytest.raises(holdfast.CommandTimeout):
        connection.run("touch /tmp/frozen", timeout=1)
    assert time.monotonic() - begin < 6
    key.unpause()
    assert connection.is_alive(deep=True)


def test_a_dead_link_is_noticed_by_the_keepalive(server: StartServer, connect: Connect) -> None:
    key = server()
    connection = connect(key, keepalive_interval=1, keepalive_count=2)
    process = connection.popen("echo started; cat")
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    key.pause()
    with pytest.raises(holdfast.ConnectionLost) as caught:
        process.wait(timeout=15)
    assert caught.value.started is True
    key.unpause()
    assert connection.run("echo again").stdout == "again\n"
    for stream in (process.stdin, process.stdout, process.stderr):
        assert stream is not None
        stream.close()


def test_a_frozen_master_is_ended_after_its_time(
    server: StartServer, connect: Connect, ledger: LoginLedger
) -> None:
    key = server()
    connection = connect(key, stale_timeout=2)
    master = connection._link.control_master().find()
    assert master is not None
    os.kill(master.pid, signal.SIGSTOP)
    begin = time.monotonic()
    assert connection.run("echo again").stdout == "again\n"
    assert 1.5 < time.monotonic() - begin < 15
    assert ledger.count() == 2


def test_the_server_dies(server: StartServer, connect: Connect) -> None:
    key = server(fresh=True)
    connection = connect(key, login_timeout=3)
    assert connection.run("echo 1").stdout == "1\n"
    key.kill()
    begin = time.monotonic()
    with pytest.raises((holdfast.HostUnreachable, holdfast.ConnectionLost)):
        connection.run("echo 2")
    with pytest.raises(holdfast.HostUnreachable):
        connection.run("echo 3")
    assert time.monotonic() - begin < 10
