"""Forwards over a real sshd: what goes in comes out, and nothing is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Union

import pytest

import holdfast
from holdfast.openssh import mux_client
from holdfast.testing import LocalSshd

Factory = Callable[..., LocalSshd]
Address = Union[int, str]


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while True:
            try:
                data = self.request.recv(65536)
            except OSError:
                return
            if not data:
                return
            self.request.sendall(data)


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Server(("127.0.0.1", 0), _Echo) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


@pytest.fixture(params=["multiplexed", "plain"])
def either(request: pytest.FixtureRequest, local_sshd: LocalSshd) -> Iterator[holdfast.Connection]:
    """A connection of each mode."""
    conn = holdfast.connect(local_sshd.host, config_file=local_sshd.config_file)
    if request.param == "plain":
        conn.disconnect()
        conn._link.fall_back("the test says so")
    assert conn.mode == request.param
    yield conn
    holdfast.close_all_connections()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def connected(address: Address) -> socket.socket:
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(address)
        except OSError:
            sock.close()
            raise
    else:
        sock = socket.create_connection(("127.0.0.1", address), 10)
    sock.settimeout(20)
    return sock


def round_trip(address: Address, data: bytes = b"there and back") -> bytes:
    """What comes back through an echo server."""
    with connected(address) as sock:
        return exchanged(sock, data)


def exchanged(sock: socket.socket, data: bytes) -> bytes:
    def send() -> None:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    pieces = []
    while piece := sock.recv(65536):
        pieces.append(piece)
    thread.join()
    return b"".join(pieces)


def listens(address: Address) -> bool:
    try:
        with connected(address):
            return True
    except OSError:
        return False


def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def master_pid(conn: holdfast.Connection) -> int:
    master = conn._link.control_master().find()
    assert master is not None
    return master.pid


def lock_files(runtime: Path) -> list[str]:
    return sorted(path.name for path in runtime.glob("forward-*"))


# --- local --------------------------------------------------------------------------------------


def test_a_local_forward_carries_bytes_both_ways(either: holdfast.Connection, echo: int) -> None:
    data = os.urandom(5_000_000)
    port = free_port()
    with either.forward_local(port, "127.0.0.1", echo) as forward:
        assert (forward.kind, forward.port, forward.is_open()) == ("local", port, True)
        assert (forward.listen, forward.target) == (f"127.0.0.1:{port}", f"127.0.0.1:{echo}")
        back = round_trip(port, data)
        assert hashlib.sha256(back).digest() == hashlib.sha256(data).digest()
    assert not forward.is_open()
    assert not listens(port)
    either.forward_local(port, "127.0.0.1", echo).close()  # it is free again


def test_many_connections_go_through_at_once(
    conn: holdfast.Connection, local_sshd: LocalSshd, echo: int
) -> None:
    with conn.forward_local(0, "localhost", echo) as forward, ThreadPoolExecutor(20) as pool:
        assert forward.port
        sent = [os.urandom(20_000) for _ in range(20)]
        assert list(pool.map(lambda data: round_trip(forward.port or 0, data), sent)) == sent
    assert local_sshd.logins() == 1


def test_forwards_need_no_session(local_sshd_factory: Factory, echo: int) -> None:
    server = local_sshd_factory(sshd_config=["MaxSessions 0"])
    with holdfast.connect(server.host, config_file=server.config_file) as conn:
        forward = conn.forward_local(0, "127.0.0.1", echo)
        assert round_trip(forward.port or 0) == b"there and back"
    assert server.logins() == 1


def test_a_free_port_is_another_each_time(conn: holdfast.Connection, echo: int) -> None:
    forwards = [conn.forward_local(0, "127.0.0.1", echo) for _ in range(5)]
    assert len({forward.port for forward in forwards}) == 5
    for forward in forwards:
        assert round_trip(forward.port or 0) == b"there and back"
        forward.close()


@pytest.mark.parametrize("bind", ["127.0.0.1", "localhost", "", "*"])
def test_a_port_that_is_taken_is_told(either: holdfast.Connection, taken: int, bind: str) -> None:
    words = f"port {taken} of this machine is in use"
    with pytest.raises(holdfast.ConfigError, match=words):
        either.forward_local(taken, "127.0.0.1", 22, bind=bind)
    with pytest.raises(holdfast.ConfigError, match=words):
        either.forward_dynamic(taken, bind=bind)


def test_the_same_forward_twice_is_refused_and_the_first_lives_on(
    conn: holdfast.Connection, echo: int
) -> None:
    with conn.forward_local(0, "127.0.0.1", echo) as first:
        assert first.port
        for target in (echo, 22):
            with pytest.raises(holdfast.ConfigError, match="in use"):
                conn.forward_local(first.port, "127.0.0.1", target)
        assert round_trip(first.port) == b"there and back"
    with conn.forward_remote(0, "127.0.0.1", echo) as first:
        with pytest.raises(holdfast.ConfigError, match="open already"):
            conn.forward_remote(0, "127.0.0.1", echo)
        assert round_trip(first.port or 0) == b"there and back"


def test_closing_again_does_nothing(conn: holdfast.Connection, echo: int) -> None:
    forward = conn.forward_local(0, "127.0.0.1", echo)
    for _ in range(3):
        forward.close()
    assert forward.closed
    assert forward.wait(0)
    assert "gone" in repr(forward)


def test_connections_outlive_the_forward(conn: holdfast.Connection, echo: int) -> None:
    forward = conn.forward_local(0, "127.0.0.1", echo)
    with connected(forward.port or 0) as sock:
        sock.sendall(b"a")
        assert sock.recv(1) == b"a"
        forward.close()
        assert exchanged(sock, b"bc") == b"bc"


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("local", (70000, "node", 22)),
        ("local", (-1, "node", 22)),
        ("local", (True, "node", 22)),
        ("local", (0, "node", 0)),
        ("local", (0, "node")),
        ("local", (0, "", 22)),
        ("local", (0, "-oProxyCommand=x", 22)),
        ("local", (0, "a b", 22)),
        ("local", (0, "node;x", 22)),
        ("local", (0, "/run/sock", 22)),
        ("local", (0, "run/sock")),
        ("local", ("/no such directory/sock", "node", 22)),
        ("local", ("/tmp", "node", 22)),
        ("local", ("/tmp/" + "x" * 110, "node", 22)),
        ("local", ("/tmp/%h", "node", 22)),
        ("remote", ("relative/sock", "node", 22)),
        ("remote", (0, "node", 99999)),
        ("dynamic", (65536,)),
    ],
)
def test_what_cannot_be_right_is_told_before_any_login(
    local_sshd: LocalSshd, kind: str, arguments: tuple[Any, ...]
) -> None:
    conn = holdfast.Connection(local_sshd.host, config_file=local_sshd.config_file)
    with pytest.raises(holdfast.ConfigError):
        getattr(conn, f"forward_{kind}")(*arguments)
    with pytest.raises(holdfast.ConfigError):
        conn.forward_local(0, "node", 22, bind="a b")
    assert local_sshd.logins() == 0


def test_an_address_that_is_not_of_this_machine_is_told(conn: holdfast.Connection) -> None:
    for bind in ("192.0.2.1", "no-such-name.invalid"):
        with pytest.raises(holdfast.ConfigError, match=bind.replace(".", r"\.")):
            conn.forward_local(0, "127.0.0.1", 22, bind=bind)


# --- remote and dynamic -------------------------------------------------------------------------


def test_a_remote_forward_takes_the_port_that_the_server_gives(
    either: holdfast.Connection, echo: int
) -> None:
    with either.forward_remote(0, "127.0.0.1", echo) as forward:
        assert forward.port
        assert (forward.kind, forward.target) == ("remote", f"127.0.0.1:{echo}")
        assert round_trip(forward.port, b"x" * 300_000) == b"x" * 300_000
        port = forward.port
    until(lambda: not listens(port))
    with either.forward_remote(port, "127.0.0.1", echo) as forward:  # it is free again
        assert forward.port == port
        assert round_trip(port) == b"there and back"


def test_a_remote_port_that_is_taken_is_told(either: holdfast.Connection, taken: int) -> None:
    # sshd is content with one of its loopback addresses.
    with (
        socket.socket(socket.AF_INET6) as six,
        pytest.raises(holdfast.SessionRefused, match=f"does not listen on port {taken}.*taken"),
    ):
        with suppress(OSError):
            six.bind(("::1", taken))
            six.listen()
        either.forward_remote(taken, "127.0.0.1", 22)
    assert lock_files(either._link.runtime) == []


def through_socks(port: int, host: str, target: int) -> socket.socket:
    """RFC 1928, with a name."""
    sock = connected(port)
    sock.sendall(b"\x05\x01\x00")
    assert sock.recv(2) == b"\x05\x00"
    name = host.encode()
    sock.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", target))
    answer = sock.recv(10)
    assert answer[:2] == b"\x05\x00", answer
    return sock


def test_a_dynamic_forward_is_a_socks_proxy(either: holdfast.Connection, echo: int) -> None:
    with either.forward_dynamic(0) as forward:
        assert (forward.kind, forward.target) == ("dynamic", "SOCKS")
        for _ in range(3):
            with through_socks(forward.port or 0, "localhost", echo) as sock:
                assert exchanged(sock, b"proxied") == b"proxied"
    assert not listens(forward.port or 0)


# --- unix sockets -------------------------------------------------------------------------------


def test_unix_sockets_on_either_side(
    conn: holdfast.Connection, local_sshd: LocalSshd, echo: int
) -> None:
    here, there = str(local_sshd.directory / "here"), str(local_sshd.directory / "there")
    with conn.forward_local(here, "127.0.0.1", echo) as forward:
        assert (forward.port, forward.listen) == (None, here)
        assert os.stat(here).st_mode & 0o077 == 0
        assert round_trip(here) == b"there and back"
        with pytest.raises(holdfast.ConfigError, match="exists already"):
            conn.forward_local(here, "127.0.0.1", echo)
    assert not os.path.exists(here)
    with conn.forward_remote(there, "127.0.0.1", echo) as outer:
        assert outer.port is None
        with conn.forward_local(0, there) as inner:  # a port here, the socket there, a port here
            assert round_trip(inner.port or 0) == b"there and back"
    assert not os.path.exists(there)
    conn.forward_remote(there, "127.0.0.1", echo).close()  # so it can be had again
    Path(there).write_text("in the way")
    with pytest.raises(holdfast.SessionRefused, match="file of that name"):
        conn.forward_remote(there, "127.0.0.1", echo)
    assert local_sshd.logins() == 1


def test_a_relative_path_here_is_relative_to_this_process(
    conn: holdfast.Connection, local_sshd: LocalSshd, echo: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(local_sshd.directory)
    with conn.forward_local("sock", "127.0.0.1", echo) as forward:
        assert forward.listen == str(local_sshd.directory / "sock")
        assert round_trip(forward.listen) == b"there and back"


def test_unix_sockets_in_plain_mode(local_sshd: LocalSshd, echo: int) -> None:
    conn = holdfast.Connection(local_sshd.host, config_file=local_sshd.config_file)
    conn._link.fall_back("the test says so")
    here = str(local_sshd.directory / "a b")
    with conn.forward_local(here, "127.0.0.1", echo):
        assert round_trip(here) == b"there and back"
    assert not os.path.exists(here)


# --- what forbids, and what ends ----------------------------------------------------------------


def test_a_server_that_forbids_forwards(local_sshd_factory: Factory, echo: int) -> None:
    server = local_sshd_factory(sshd_config=["AllowTcpForwarding no"])
    conn = holdfast.connect(server.host, config_file=server.config_file)
    with pytest.raises(holdfast.SessionRefused, match="AllowTcpForwarding"):
        conn.forward_remote(0, "127.0.0.1", echo)
    with conn.forward_local(0, "127.0.0.1", echo) as forward:  # ssh says so on use only
        assert forward.is_open()
        assert round_trip(forward.port or 0, b"") == b""
    assert conn.run("echo fine").stdout == "fine\n"
    assert server.logins() == 1
    holdfast.close_all_connections()


def test_a_forward_is_gone_with_its_master_and_stays_gone(
    conn: holdfast.Connection, local_sshd: LocalSshd, echo: int
) -> None:
    forward = conn.forward_local(0, "127.0.0.1", echo)
    os.kill(master_pid(conn), signal.SIGKILL)
    assert forward.wait(5)
    assert not forward.is_open()
    assert conn.run("echo again").stdout == "again\n"
    assert local_sshd.logins() == 2
    assert not forward.is_open()
    assert not listens(forward.port or 0)
    forward.close()
    with conn.forward_local(forward.port or 0, "127.0.0.1", echo) as another:
        assert round_trip(another.port or 0) == b"there and back"


def test_wait_ends_with_the_forward(conn: holdfast.Connection, echo: int) -> None:
    forward = conn.forward_local(0, "127.0.0.1", echo)
    assert not forward.wait(0.1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(forward.wait, 20)
        conn.disconnect(drain=False)
        assert waiting.result(5)


def test_a_drained_master_keeps_its_forwards_until_they_are_closed(
    conn: holdfast.Connection, echo: int
) -> None:
    pid = master_pid(conn)
    path = conn._link.control_master().spec.own_path
    forward = conn.forward_local(0, "127.0.0.1", echo)
    assert conn.disconnect()
    until(lambda: mux_client.probe(path, 5).pid != pid)
    assert forward.is_open()
    assert round_trip(forward.port or 0) == b"there and back"
    forward.close()
    assert not listens(forward.port or 0)


def test_an_idle_forward_keeps_its_master(local_sshd: LocalSshd, echo: int) -> None:
    settings = holdfast.Settings.load(control_persist=1)
    conn = holdfast.connect(local_sshd.host, config_file=local_sshd.config_file, settings=settings)
    with conn.forward_local(0, "127.0.0.1", echo) as forward:
        time.sleep(2.5)
        assert round_trip(forward.port or 0) == b"there and back"
    until(lambda: not conn.is_alive())
    holdfast.close_all_connections()


def test_closing_the_connection_closes_its_forwards(local_sshd: LocalSshd, echo: int) -> None:
    with holdfast.connect(local_sshd.host, config_file=local_sshd.config_file) as conn:
        other = holdfast.Connection(local_sshd.host, config_file=local_sshd.config_file)
        kept = other.forward_local(0, "127.0.0.1", echo)
        forward = conn.forward_local(0, "127.0.0.1", echo)
    assert forward.closed
    assert kept.is_open()
    other.close()
    with pytest.raises(holdfast.ConfigError, match="is closed"):
        conn.forward_local(0, "127.0.0.1", echo)


def test_the_users_own_master_is_joined_and_left_as_it_was(
    local_sshd_factory: Factory, echo: int
) -> None:
    server = local_sshd_factory(ssh_config=["ControlPath ~/none"])
    socket_path = server.directory / "own"
    config = Path(server.config_file)
    config.write_text(
        config.read_text().replace("ControlPath ~/none", f"ControlPath {socket_path}")
    )
    argv = ["ssh", "-F", server.config_file, "-M", "-N", "-f", server.host]
    subprocess.run(
        argv, check=True, timeout=20, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    port = free_port()
    argv = ["ssh", "-F", server.config_file, "-O", "forward", "-L", f"{port}:127.0.0.1:{echo}"]
    subprocess.run([*argv, server.host], check=True, timeout=20)
    conn = holdfast.connect(server.host, config_file=server.config_file)
    with pytest.raises(holdfast.ConfigError, match="in use"):
        conn.forward_local(port, "127.0.0.1", echo, bind="")
    forward = conn.forward_local(0, "127.0.0.1", echo)
    holdfast.close_all_connections()
    assert not listens(forward.port or 0)
    assert round_trip(port) == b"there and back"  # the user's own
    assert server.logins() == 1


# --- the end of a process -----------------------------------------------------------------------

_CHILD = """
import os, sys, time
import holdfast
host, config, here, there, echo, end = sys.argv[1:]
conn = holdfast.connect(host, config_file=config)
forwards = [
    conn.forward_local(0, "127.0.0.1", int(echo)),
    conn.forward_remote(0, "127.0.0.1", int(echo)),
    conn.forward_dynamic(0),
    conn.forward_local(here, "127.0.0.1", int(echo)),
    conn.forward_remote(there, "127.0.0.1", int(echo)),
]
print(*[forward.port or forward.listen for forward in forwards], flush=True)
if end == "fork":
    if os.fork() == 0:
        sys.exit()  # with atexit and all
    os.wait()
    print(all(forward.is_open() for forward in forwards), flush=True)
sys.stdin.read()
if end == "raise":
    raise RuntimeError
"""


def child(server: LocalSshd, echo: int, end: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", _CHILD, server.host, server.config_file]
    argv += [str(server.directory / name) for name in ("here", "there")]
    return subprocess.Popen(
        [*argv, str(echo), end],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("end", ["exit", "raise", "fork"])
def test_nothing_is_left_when_a_process_ends(
    local_sshd: LocalSshd, runtime_dir: Path, echo: int, end: str
) -> None:
    with child(local_sshd, echo, end) as process:
        assert process.stdout
        addresses: list[Address] = [
            int(word) if word.isdigit() else word for word in process.stdout.readline().split()
        ]
        if end == "fork":
            assert process.stdout.readline() == "True\n"
        assert [listens(address) for address in addresses] == [True] * 5
        _, err = process.communicate("", timeout=20)
    assert ("RuntimeError" in err, process.returncode) == (
        (True, 1) if end == "raise" else (False, 0)
    )
    until(lambda: not any(listens(address) for address in addresses))
    assert not any(os.path.exists(address) for address in addresses if isinstance(address, str))
    assert lock_files(runtime_dir) == []
    conn = holdfast.connect(local_sshd.host, config_file=local_sshd.config_file)
    assert conn.run("echo on").stdout == "on\n"  # the master lives on
    assert local_sshd.logins() == 1
    holdfast.close_all_connections()


def test_what_a_killed_process_has_left_is_taken_over(
    local_sshd: LocalSshd, runtime_dir: Path, echo: int
) -> None:
    with child(local_sshd, echo, "exit") as process:
        assert process.stdout
        local, remote, _, here, there = process.stdout.readline().split()
        process.kill()
        with suppress(BrokenPipeError):
            process.communicate("", timeout=20)
    conn = holdfast.connect(local_sshd.host, config_file=local_sshd.config_file)
    assert listens(int(local))  # in the master, until that ends
    with conn.forward_local(int(local), "127.0.0.1", echo) as forward:
        assert round_trip(forward.port or 0) == b"there and back"
    with conn.forward_local(here, "127.0.0.1", echo):
        assert round_trip(here) == b"there and back"
    with conn.forward_remote(0, "127.0.0.1", echo) as forward:
        assert forward.port == int(remote)
    with conn.forward_remote(there, "127.0.0.1", echo):
        assert round_trip(there) == b"there and back"
    until(lambda: not any(listens(address) for address in (int(local), int(remote), here, there)))
    assert local_sshd.logins() == 1
    holdfast.close_all_connections()


# --- plain mode ---------------------------------------------------------------------------------


def test_a_plain_forward_is_one_counted_login_and_ends_with_its_process(
    local_sshd: LocalSshd, runtime_dir: Path, echo: int
) -> None:
    conn = holdfast.Connection(local_sshd.host, config_file=local_sshd.config_file)
    conn._link.fall_back("the test says so")
    forward = conn.forward_local(0, "127.0.0.1", echo)
    assert conn.stats().logins == local_sshd.logins() == 1
    assert [login.kind for login in conn._link.ledger.logins()] == ["plain"]
    with connected(forward.port or 0) as sock:
        sock.sendall(b"a")
        assert sock.recv(1) == b"a"
        forward.close()
        assert sock.recv(1) == b""
    until(lambda: local_sshd.clients() == [])
    forward = conn.forward_local(0, "127.0.0.1", echo)
    local_sshd.kill_sessions()
    assert forward.wait(5)
    conn.close()
    assert list(runtime_dir.glob("client-*")) == []


def test_a_plain_forward_whose_login_fails_says_why(local_sshd: LocalSshd) -> None:
    conn = holdfast.Connection(
        local_sshd.host,
        config_file=local_sshd.config_file,
        options={"PubkeyAuthentication": False},
    )
    conn._link.fall_back("the test says so")
    with pytest.raises(holdfast.AuthenticationRequired):
        conn.forward_local(0, "127.0.0.1", 22)
    assert conn.stats().login_failures == 1


# --- the verb -----------------------------------------------------------------------------------


def verb(server: LocalSshd, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "holdfast", "forward", "--config-file", server.config_file]
    return subprocess.Popen(
        [*argv, server.host, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_holdfast_forward_stays_until_interrupted(local_sshd: LocalSshd, echo: int) -> None:
    port = free_port()
    words = ["-L", f"{port}:127.0.0.1:{echo}", "-R", f"0:127.0.0.1:{echo}", "-D", "0"]
    with verb(local_sshd, *words) as process:
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(3)]
        assert lines[0] == (
            f"local: 127.0.0.1:{port} on this machine -> 127.0.0.1:{echo}, from localsshd\n"
        )
        found = re.fullmatch(
            rf"remote: (\d+) on localsshd -> 127.0.0.1:{echo}, from this machine\n", lines[1]
        )
        assert found
        assert re.fullmatch(
            r"dynamic: 127.0.0.1:\d+ on this machine -> SOCKS, from localsshd\n", lines[2]
        )
        assert round_trip(port) == round_trip(int(found[1])) == b"there and back"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == 130
    assert not listens(port)
    until(lambda: found and not listens(int(found[1])))
    assert local_sshd.logins() == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_holdfast_forward_says_json_and_ends_on_signals(
    local_sshd: LocalSshd, echo: int, number: int
) -> None:
    with verb(local_sshd, "-L", f"0:127.0.0.1:{echo}", "--json") as process:
        assert process.stdout
        text = ""
        while not text.endswith("\n}\n"):
            text += process.stdout.readline()
        document = json.loads(text)
        (forward,) = document.pop("forwards")
        assert document == {"destination": "localsshd"}
        port = forward["port"]
        assert forward == {
            "kind": "local",
            "listen": f"127.0.0.1:{port}",
            "port": port,
            "target": f"127.0.0.1:{echo}",
        }
        assert round_trip(port) == b"there and back"
        process.send_signal(number)
        assert process.wait(10) == 128 + number
    assert not listens(port)


def test_holdfast_forward_tells_that_it_is_lost(local_sshd: LocalSshd, echo: int) -> None:
    with verb(local_sshd, "-L", f"0:127.0.0.1:{echo}") as process:
        assert process.stdout
        assert process.stdout.readline()
        local_sshd.kill_sessions()
        _, err = process.communicate(timeout=10)
    assert process.returncode == 255
    assert err == "holdfast: the connection to localsshd was lost, and its forwards with it\n"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "name a forward"),
        (["-L", "8888"], "is no local forward"),
        (["-D", "x"], "is no dynamic forward"),
        (["-R", "0:node:0"], "port 0 is not a number"),
    ],
)
def test_holdfast_forward_refuses_what_cannot_be_right(
    local_sshd: LocalSshd, words: list[str], reason: str
) -> None:
    with verb(local_sshd, *words) as process:
        out, err = process.communicate(timeout=10)
    assert (process.returncode, out, reason in err) == (255, "", True)
    assert local_sshd.logins() == 0
