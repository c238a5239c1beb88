"""What a Connection does, on a real sshd."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import holdfast
from holdfast.testing import LocalSshd

NASTY_NAMES = [
    b"plain",
    b"with space",
    b"it's",
    b'"double"',
    b"new\nline",
    b"-leading-dash",
    b"\xff\xfe not utf-8",
    b"co:lon@at",
    b"*?[a]",
    b"back\\slash",
    b"$HOME `id` ;&|",
    b"~",
    "umlaut \u00fc".encode(),
]


def test_a_command_gives_its_exit_status_and_both_streams_apart(conn: holdfast.Connection) -> None:
    done = conn.run("echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "err\n")
    assert (done.args, done.signal, done.destination) == (
        "echo out; echo err >&2; exit 3",
        None,
        conn.destination,
    )
    assert 0 < done.duration < 10


def test_words_arrive_as_they_are(conn: holdfast.Connection) -> None:
    words = ["a b", "it's", "$HOME", "*", "", "new\nline", "-n", "x!y", "back\\slash"]
    assert conn.run(["printf", "%s\\0", *words]).stdout.split("\0")[:-1] == words


def test_bytes_are_kept_when_text_is_off(conn: holdfast.Connection) -> None:
    data = bytes(range(256)) * 64
    assert conn.run("cat", input=data, text=False).stdout == data
    assert conn.run("cat", input=data).stdout.encode("utf-8", "surrogateescape") == data


def test_stdin_is_empty_unless_something_is_given(
    conn: holdfast.Connection, tmp_path: Path
) -> None:
    assert conn.run("cat").stdout == ""
    assert conn.run("cat", input="text").stdout == "text"
    (tmp_path / "file").write_bytes(b"from a file")
    with open(tmp_path / "file", "rb") as file:
        assert conn.run("cat", stdin=file).stdout == "from a file"


def test_a_command_that_reads_no_input_is_no_error(conn: holdfast.Connection) -> None:
    assert conn.run("exit 4", input=b"x" * 5_000_000).returncode == 4


def test_cwd_and_environment_reach_the_command(conn: holdfast.Connection) -> None:
    done = conn.run('pwd; echo "$A"', cwd="/usr/bin", env={"A": "it's 1\n2"})
    assert done.stdout == "/usr/bin\nit's 1\n2\n"
    done = conn.run(["sh", "-c", 'echo "$A"'], env={"A": "x y"})
    assert done.stdout == "x y\n"


def test_a_cwd_that_cannot_be_entered_runs_nothing(conn: holdfast.Connection) -> None:
    done = conn.run("echo ran", cwd="/no such directory")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no such directory" in done.stderr


def test_check_raises_with_what_the_command_said(conn: holdfast.Connection) -> None:
    with pytest.raises(holdfast.CommandFailed, match="exit status 7") as caught:
        conn.run("echo why >&2; exit 7", check=True)
    assert isinstance(caught.value, subprocess.CalledProcessError)
    assert (caught.value.returncode, caught.value.stderr) == (7, "why\n")


def test_the_four_endings_are_four_outcomes(
    conn: holdfast.Connection, local_sshd_factory: Any
) -> None:
    status = conn.run("exit 255")
    assert (status.returncode, status.signal) == (255, None)

    killed = conn.run("kill -9 $$")
    assert (killed.returncode, killed.signal) == (-1, "unknown")
    with pytest.raises(holdfast.CommandFailed, match="signal"):
        killed.check_returncode()

    none = local_sshd_factory(sshd_config=["MaxSessions 0"])
    refusing = holdfast.connect(none.host, config_file=none.config_file)
    with pytest.raises(holdfast.SessionRefused, match="MaxSessions"):
        refusing.run("touch ran")
    assert not (none.home / "ran").exists()

    with pytest.raises(holdfast.ConnectionLost) as lost, conn.popen("sleep 60"):
        assert conn.disconnect(drain=False)
    assert lost.value.started is True


def test_both_streams_without_limit_at_once(conn: holdfast.Connection) -> None:
    size = 20_000_000
    script = f"head -c {size} /dev/zero & head -c {size} /dev/zero >&2; wait"
    done = conn.run(script, text=False, timeout=60)
    assert (len(done.stdout), len(done.stderr)) == (size, size)


def test_large_input_while_output_flows(conn: holdfast.Connection) -> None:
    data = os.urandom(20_000_000)
    assert conn.run("cat", input=data, text=False, timeout=60).stdout == data
    assert conn.run("sha256sum", input=data).stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_output_is_handed_on_as_it_comes(conn: holdfast.Connection, tmp_path: Path) -> None:
    gate = tmp_path / "go on"
    pieces: list[str] = []

    def see(piece: str) -> None:
        pieces.append(piece)
        gate.touch()  # the command ends only if the first line has arrived before its end

    done = conn.run(
        [
            "sh",
            "-c",
            'echo first; while [ ! -e "$1" ]; do sleep 0.01; done; echo last',
            "sh",
            str(gate),
        ],
        on_stdout=see,
        timeout=20,
    )
    assert "".join(pieces) == "first\nlast\n"
    assert done.stdout == ""


def test_a_callback_gets_no_empty_piece(conn: holdfast.Connection) -> None:
    pieces: list[bytes] = []
    conn.run("true", text=False, on_stdout=pieces.append, on_stderr=pieces.append)
    assert pieces == []


def test_a_character_that_is_cut_in_two_arrives_whole(conn: holdfast.Connection) -> None:
    pieces: list[str] = []
    conn.run(r"printf '\303'; sleep 0.1; printf '\274'", on_stdout=pieces.append)
    assert pieces == ["\u00fc"]


def test_an_error_in_a_callback_reaches_the_caller(conn: holdfast.Connection) -> None:
    def fail(piece: str) -> None:
        raise KeyError(piece)

    with pytest.raises(KeyError):
        conn.run("echo x", on_stdout=fail)


def test_a_timeout_gives_what_had_arrived(conn: holdfast.Connection) -> None:
    begin = time.monotonic()
    with pytest.raises(holdfast.CommandTimeout) as caught:
        conn.run("echo early; sleep 60", timeout=1)
    assert time.monotonic() - begin < 2
    assert isinstance(caught.value, subprocess.TimeoutExpired)
    assert caught.value.output == "early\n"
    assert conn.run("echo fine").stdout == "fine\n"


def test_a_terminal_when_asked_for(conn: holdfast.Connection) -> None:
    assert "not a tty" in conn.run("tty").stdout
    done = conn.run("tty", pty=True)
    assert done.stdout.startswith("/dev/")
    assert done.stderr == ""


def test_popen_speaks_in_both_directions(conn: holdfast.Connection) -> None:
    with conn.popen(["sh", "-c", 'while read line; do echo "got $line"; done; exit 5']) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for word in (b"one", b"two"):
            process.stdin.write(word + b"\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"got " + word + b"\n"
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(10) == 5
    assert process.poll() == process.returncode == 5


def test_popen_wait_times_out_while_the_command_runs(conn: holdfast.Connection) -> None:
    with conn.popen("sleep 60") as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        process.kill()
        assert process.wait(5) == -9


def test_hundreds_of_commands_leave_no_file_and_no_descriptor(
    conn: holdfast.Connection, runtime_dir: Path
) -> None:
    conn.run("true")
    descriptors = len(os.listdir("/proc/self/fd"))
    files = sorted(runtime_dir.iterdir())
    for number in range(100):
        assert conn.run(f"exit {number}").returncode == number
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert sorted(runtime_dir.iterdir()) == files
    assert threading.active_count() < 5


def test_many_threads_share_one_login(conn: holdfast.Connection, local_sshd: LocalSshd) -> None:
    results: dict[int, str] = {}

    def work(number: int) -> None:
        results[number] = conn.run(["echo", str(number)]).stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number}\n" for number in range(40)}
    assert local_sshd.logins() == conn.stats().logins == 1


def test_one_session_serves_many_threads_one_at_a_time(local_sshd_factory: Any) -> None:
    server = local_sshd_factory(sshd_config=["MaxSessions 1"])
    conn = holdfast.connect(server.host, config_file=server.config_file)
    # Each command fails if another one is between its two lines.
    script = "mkdir busy || exit 9; sleep 0.02; rmdir busy"
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: statuses.append(conn.run(script, cwd=str(server.home)).returncode)
        )
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 12
    assert server.logins() == conn.stats().logins == 1


def test_waiting_for_a_session_ends_with_the_timeout(local_sshd_factory: Any) -> None:
    server = local_sshd_factory(sshd_config=["MaxSessions 1"])
    settings = holdfast.Settings.load(session_timeout=0.5)
    conn = holdfast.connect(server.host, config_file=server.config_file, settings=settings)
    with conn.popen("cat") as holding:
        with pytest.raises(holdfast.CommandTimeout) as timeout:
            conn.run("true", timeout=0.3)
        assert timeout.value.remote_ended is True  # it never started
        with pytest.raises(holdfast.SessionRefused, match="session_timeout"):
            conn.run("true")
        assert holding.stdin is not None
        holding.stdin.close()
    assert conn.run("true").returncode == 0
    assert server.logins() == 1


def test_stats_tell_logins_and_reuses(conn: holdfast.Connection) -> None:
    for _ in range(3):
        conn.run("echo 12345", input="abc")
    stats = conn.stats()
    assert (stats.logins, stats.commands, stats.reuses) == (1, 3, 3)
    assert (stats.bytes_sent, stats.bytes_received) == (9, 18)
    assert (stats.mode, stats.sessions_open, stats.waiting) == ("multiplexed", 0, 0)


def test_alive_is_what_the_master_says_and_deep_a_round_trip(
    conn: holdfast.Connection, local_sshd: LocalSshd
) -> None:
    assert conn.is_alive()
    assert conn.is_alive(deep=True)
    local_sshd.pause()
    assert conn.is_alive()
    assert not conn.is_alive(deep=True, timeout=0.5)
    local_sshd.resume()
    assert conn.is_alive(deep=True)
    conn.disconnect(drain=False)
    assert not conn.is_alive()
    assert not conn.is_alive(deep=True)
    assert local_sshd.logins() == 1


def test_connect_gives_the_same_object_until_it_is_closed(local_sshd: LocalSshd) -> None:
    def connect(**more: Any) -> holdfast.Connection:
        return holdfast.connect(local_sshd.host, config_file=local_sshd.config_file, **more)

    first = connect()
    assert connect() is first
    assert connect(purpose="watcher") is not first
    assert connect(options={"Compression": "yes"}) is not first
    first.close()
    with pytest.raises(holdfast.ConfigError, match="closed"):
        first.run("true")
    again = connect()
    assert again is not first
    assert first not in holdfast.connections()
    assert again in holdfast.connections()
    holdfast.close_all_connections()
    assert holdfast.connections() == []
    assert again.is_alive()  # the master lives on


def test_close_all_tries_every_one(
    local_sshd_factory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = [local_sshd_factory() for _ in range(3)]
    conns = [holdfast.connect(server.host, config_file=server.config_file) for server in servers]

    def fail() -> None:
        raise OSError("no")

    monkeypatch.setattr(conns[1], "close", fail)
    with pytest.raises(OSError, match="no"):
        holdfast.close_all_connections()
    assert [conn.closed for conn in conns] == [True, False, True]
    monkeypatch.undo()
    holdfast.close_all_connections()


def test_a_child_process_starts_without_connections(conn: holdfast.Connection) -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(len(holdfast.connections())).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 10) == b"0"
    os.close(reading)
    os.close(writing)
    assert conn in holdfast.connections()


def test_a_directory_with_every_sort_of_name_goes_there_and_back(
    conn: holdfast.Connection, local_sshd: LocalSshd, tmp_path: Path
) -> None:
    source = os.fsencode(tmp_path / "tree")
    os.makedirs(source + b"/empty")
    for number, name in enumerate(NASTY_NAMES):
        if b"/" not in name:
            os.mkdir(source + b"/dir " + name)
            for path in (source + b"/" + name, source + b"/dir " + name + b"/" + name):
                with open(path, "wb") as file:
                    file.write(os.urandom(100 * number))
    conn.put(tmp_path / "tree", "far tree")
    conn.get("far tree", tmp_path / "back")
    difference = subprocess.run(
        ["diff", "-r", tmp_path / "tree", tmp_path / "back"], capture_output=True, check=False
    )
    assert (difference.returncode, difference.stdout) == (0, b"")
    assert local_sshd.logins() == 1


@pytest.mark.parametrize("name", NASTY_NAMES)
def test_one_file_of_any_name_travels(
    conn: holdfast.Connection, local_sshd: LocalSshd, tmp_path: Path, name: bytes
) -> None:
    here = os.fsencode(tmp_path) + b"/" + name
    Path(os.fsdecode(here)).write_bytes(b"content of " + name)
    conn.put(here, os.fsencode(local_sshd.home) + b"/" + name)
    conn.get(os.fsencode(local_sshd.home) + b"/" + name, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == b"content of " + name


def test_a_relative_local_name_that_looks_like_something_else(
    conn: holdfast.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("-r", "host:file"):
        Path(name).write_text(name)
        conn.put(name, f"far {name}")
        conn.get(f"far {name}", f"{name}.back")
        assert Path(f"{name}.back").read_text() == name


def test_a_copy_that_cannot_be_says_why(conn: holdfast.Connection, tmp_path: Path) -> None:
    with pytest.raises(holdfast.TransferFailed, match="does not exist on this machine"):
        conn.put(tmp_path / "nothing", "x")
    with pytest.raises(holdfast.TransferFailed, match="No such file"):
        conn.get("nothing", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_without_sftp_the_old_protocol_serves(local_sshd_factory: Any, tmp_path: Path) -> None:
    server = local_sshd_factory(sftp=False)
    conn = holdfast.connect(server.host, config_file=server.config_file)
    (tmp_path / "a b").write_text("it's")
    conn.put(tmp_path / "a b", "c $d")
    conn.get("c $d", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "it's"
    (tmp_path / "new\nline").write_text("")
    with pytest.raises(holdfast.TransferFailed, match="newline"):
        conn.put(tmp_path / "new\nline", "x")


def test_the_users_options_reach_ssh(local_sshd: LocalSshd) -> None:
    with pytest.raises(holdfast.ConfigError, match="Bad configuration option"):
        holdfast.connect(
            local_sshd.host, config_file=local_sshd.config_file, options={"NoSuchOption": "1"}
        )
    conn = holdfast.connect(
        local_sshd.host, config_file=local_sshd.config_file, options={"IdentityFile": "/none"}
    )
    assert conn.run("true").returncode == 0  # the file's own identity is used beside it


def test_settings_of_the_users_files_cannot_break_a_command(local_sshd_factory: Any) -> None:
    server = local_sshd_factory(
        ssh_config=[
            "RemoteCommand echo wrong",
            "RequestTTY force",
            "SessionType none",
            "StdinNull yes",
        ]
    )
    conn = holdfast.connect(server.host, config_file=server.config_file)
    assert conn.run("cat; tty", input="right").stdout == "rightnot a tty\n"


def test_another_python_process_uses_the_same_login(
    conn: holdfast.Connection, local_sshd: LocalSshd
) -> None:
    script = (
        "import holdfast, sys; c = holdfast.connect(sys.argv[1], config_file=sys.argv[2]);"
        "print(c.run('echo hello').stdout, c.stats().logins, c.stats().reuses)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, local_sshd.host, local_sshd.config_file],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "hello\n 1 1\n"
    assert local_sshd.logins() == 1
