"""Ports that are free and ports that are not; paths for sockets."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from holdfast.errors import ConfigError
from holdfast.openssh import listening
from holdfast.openssh.forwarding import Endpoint


@pytest.mark.parametrize("host", ["", "*", "localhost", "127.0.0.1"])
def test_a_free_port_can_be_bound(host: str) -> None:
    port = listening.free_port(Endpoint(host, 0))
    assert listening.free_port(Endpoint(host, port)) == port
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port))
        sock.listen()
        with pytest.raises(ConfigError, match=f"port {port} .* in use"):
            listening.free_port(Endpoint(host, port))


def test_a_port_that_is_taken_on_one_of_its_addresses_is_taken() -> None:
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        sock.listen()
        with pytest.raises(ConfigError, match="in use"):
            listening.free_port(Endpoint("*", sock.getsockname()[1]))


@pytest.mark.skipif(os.getuid() == 0, reason="root may listen on every port")
def test_a_port_of_roots_is_told() -> None:
    with pytest.raises(ConfigError, match="takes root"):
        listening.free_port(Endpoint("127.0.0.1", 1))


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-name.invalid"])
def test_an_address_of_another_machine_is_told(host: str) -> None:
    with pytest.raises(ConfigError, match=host.replace(".", r"\.")):
        listening.free_port(Endpoint(host, 0))


def test_a_path_must_be_free_and_its_directory_there(short_path: Path) -> None:
    listening.check_path(str(short_path / "s"))
    (short_path / "dangling").symlink_to(short_path / "nothing")
    (short_path / "file").write_text("")
    for name in ("dangling", "file", "."):
        with pytest.raises(ConfigError, match="exists already"):
            listening.check_path(str(short_path / name))
    for name in ("none/s", "file/s"):
        with pytest.raises(ConfigError, match="no socket can be made"):
            listening.check_path(str(short_path / name))


def test_only_sockets_are_removed(short_path: Path) -> None:
    (short_path / "file").write_text("")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(short_path / "s"))
    for name in ("file", "s", "none"):
        listening.remove_socket(str(short_path / name))
    assert [path.name for path in short_path.iterdir()] == ["file"]
