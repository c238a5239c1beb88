"""LocalSshd is a real SSH server, counts honestly, and leaves nothing behind."""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from holdfast.errors import ConfigError, HoldfastError
from holdfast.testing import LocalSshd, fake_ssh, find_clients, find_sshd

pytestmark = pytest.mark.sshd

Factory = Callable[..., LocalSshd]


def ssh(server: LocalSshd, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    command = ["ssh", "-F", server.config_file, *args]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, **kwargs
    )


def open_master(server: LocalSshd, path: Path) -> list[str]:
    """Start a master in the background; return the options of a client that never logs in."""
    # Never a pipe: a master holds it open, and its reader waits for ever.
    subprocess.run(
        ["ssh", "-F", server.config_file, "-M", "-N", "-f", "-S", str(path), server.host],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=30,
    )
    return ["-S", str(path), "-o", "ControlMaster=no", "-o", "ProxyCommand=false", server.host]


def wait_until(condition: Callable[[], bool], timeout: float = 5.0) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Zombies are dead: PID 1 of a container may never reap them."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return done.stdout.strip()[:1] not in ("", "Z")


def test_a_command_runs_and_its_output_and_exit_status_come_back(local_sshd: LocalSshd) -> None:
    done = ssh(local_sshd, local_sshd.host, "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_the_server_counts_each_login(local_sshd: LocalSshd) -> None:
    assert local_sshd.logins() == 0
    for expected in (1, 2, 3):
        ssh(local_sshd, local_sshd.host, "true", check=True)
        assert local_sshd.logins() == expected


def test_a_refused_login_is_not_counted(local_sshd: LocalSshd, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other], check=True)
    # Two -o IdentityFile would both be tried: take the right one away instead.
    local_sshd.identity_file.write_bytes(other.read_bytes())
    local_sshd.identity_file.with_suffix(".pub").unlink()
    done = ssh(local_sshd, local_sshd.host, "true")
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr
    assert local_sshd.logins() == 0


def test_commands_over_a_control_master_need_one_login(local_sshd: LocalSshd) -> None:
    client = open_master(local_sshd, local_sshd.directory / "m")
    for status in (0, 3):
        assert ssh(local_sshd, *client, f"exit {status}").returncode == status
    assert local_sshd.logins() == 1
    assert len(local_sshd.clients()) == 1
    assert local_sshd.processes()


def test_sshd_config_lines_count_and_maxsessions_1_refuses_a_second_session(
    local_sshd_factory: Factory,
) -> None:
    server = local_sshd_factory(sshd_config=["MaxSessions 1"])
    client = open_master(server, server.directory / "m")
    first = subprocess.Popen(["ssh", "-F", server.config_file, *client, "sleep 60"])
    wait_until(lambda: bool(server.commands()))
    second = ssh(server, *client, "true")
    assert second.returncode == 255
    assert "Session open refused by peer" in second.stderr
    first.terminate()
    first.wait(10)


def test_a_match_block_in_sshd_config_does_not_swallow_the_rest(
    local_sshd_factory: Factory,
) -> None:
    server = local_sshd_factory(
        sshd_config=["MaxSessions 3", "Match User nosuchuser", "  MaxSessions 0"]
    )
    assert ssh(server, server.host, "true").returncode == 0


def test_two_servers_know_only_their_own_logins_and_processes(local_sshd_factory: Factory) -> None:
    one, two = local_sshd_factory(), local_sshd_factory()
    open_master(one, one.directory / "m")
    client = open_master(two, two.directory / "m")
    ssh(two, two.host, "true", check=True)
    assert (one.logins(), two.logins()) == (1, 2)
    assert not set(one.processes()) & set(two.processes())
    assert not set(one.clients()) & set(two.clients())
    one.stop()
    assert ssh(two, *client, "echo still here").stdout == "still here\n"


def test_several_hosts_are_one_server_with_distinct_names(local_sshd_factory: Factory) -> None:
    server = local_sshd_factory(hosts=["login1", "login2", "node-*"])
    assert server.host == "login1"
    for host in ("login1", "login2", "node-7"):
        assert ssh(server, host, "true").returncode == 0
    assert server.logins() == 3


def test_ssh_config_lines_win_over_the_defaults(local_sshd_factory: Factory) -> None:
    server = local_sshd_factory(ssh_config=["User nosuchuser", "Host x", "  Port 5"])
    printed = ssh(server, "-G", server.host).stdout.splitlines()
    assert "user nosuchuser" in printed
    assert "port 22" in printed


def test_nothing_is_left_after_the_end() -> None:
    with LocalSshd() as server:
        client = open_master(server, server.directory / "m")
        command = subprocess.Popen(
            ["ssh", "-F", server.config_file, *client, "sleep 61 & sleep 62"]
        )
        wait_until(lambda: len(server.commands()) >= 2)
        directory = server.directory
        pids = server.processes() + server.clients() + server.commands()
        assert len(pids) >= 4
    assert command.wait(10) == 255
    assert not [pid for pid in pids if is_alive(pid)]
    assert not directory.exists()
    server.stop()
    with pytest.raises(HoldfastError, match="not running"):
        assert server.directory


def test_a_master_with_its_socket_elsewhere_is_found_and_ended(runtime_dir: Path) -> None:
    auto = ["-o", "ControlMaster=auto", "-o", "ControlPersist=60"]
    with LocalSshd() as server:
        subprocess.run(
            ["ssh", "-F", server.config_file, "-S", runtime_dir / "m", *auto, server.host, "true"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        masters = find_clients(runtime_dir)
        assert len(masters) == 1
        assert server.clients() == masters
    assert find_clients(runtime_dir) == []
    assert list(runtime_dir.iterdir()) == []


def test_a_paused_server_hangs_and_goes_on(local_sshd: LocalSshd) -> None:
    client = open_master(local_sshd, local_sshd.directory / "m")
    assert local_sshd.pause()
    command = subprocess.Popen(
        ["ssh", "-F", local_sshd.config_file, *client, "echo late"], stdout=subprocess.PIPE
    )
    with pytest.raises(subprocess.TimeoutExpired):
        command.communicate(timeout=0.3)
    local_sshd.resume()
    assert command.communicate(timeout=10)[0] == b"late\n"


def test_a_paused_server_can_be_stopped() -> None:
    with LocalSshd() as server:
        open_master(server, server.directory / "m")
        pids = server.pause()
    assert not [pid for pid in pids if is_alive(pid)]


def test_killed_sessions_end_the_clients_and_leave_the_remote_command(
    local_sshd: LocalSshd,
) -> None:
    client = open_master(local_sshd, local_sshd.directory / "m")
    command = subprocess.Popen(["ssh", "-F", local_sshd.config_file, *client, "sleep 63"])
    wait_until(lambda: bool(local_sshd.commands()))
    killed = local_sshd.kill_sessions()
    assert killed
    assert command.wait(10) == 255
    assert local_sshd.processes() == []
    wait_until(lambda: local_sshd.clients() == [])
    assert local_sshd.commands()


def test_twenty_logins_at_once_all_succeed(local_sshd: LocalSshd) -> None:
    running = [
        subprocess.Popen(
            ["ssh", "-F", local_sshd.config_file, local_sshd.host, f"echo {i}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        for i in range(20)
    ]
    assert [p.communicate(timeout=60)[0] for p in running] == [b"%d\n" % i for i in range(20)]
    assert local_sshd.logins() == 20


def test_sessions_have_a_private_home_and_start_there(local_sshd: LocalSshd) -> None:
    real = pwd.getpwuid(os.getuid())
    if Path(real.pw_shell).name not in ("bash", "zsh", "tcsh", "csh", "fish"):
        pytest.skip(f"{real.pw_shell} reads no file in which the private home could be entered")
    printed = ssh(local_sshd, local_sshd.host, 'echo "$HOME"; pwd').stdout.split()
    assert printed == [str(local_sshd.home)] * 2
    assert Path(real.pw_dir) not in local_sshd.home.parents


def test_bash_reads_the_rc_file_of_the_private_home(local_sshd: LocalSshd) -> None:
    if Path(pwd.getpwuid(os.getuid()).pw_shell).name != "bash":
        pytest.skip("bash is not this user's shell")
    with (local_sshd.home / ".bashrc").open("a") as file:
        file.write("echo noise\n")
    assert ssh(local_sshd, local_sshd.host, "echo output").stdout == "noise\noutput\n"


def test_a_home_of_the_callers_own_is_used_as_it_is(
    local_sshd_factory: Factory, tmp_path: Path
) -> None:
    server = local_sshd_factory(home=tmp_path)
    assert ssh(server, server.host, 'echo "$HOME"').stdout == f"{tmp_path}\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["plain", "two words", "q\"uo'te", "back\\slash $HOME `id`", ""])
def test_environment_reaches_sessions_unharmed(local_sshd_factory: Factory, value: str) -> None:
    server = local_sshd_factory(environment={"ODD": value})
    assert ssh(server, server.host, 'printf "<%s>" "$ODD"').stdout == f"<{value}>"


def test_scp_writes_below_the_private_home(local_sshd: LocalSshd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("content")
    target = f"{local_sshd.host}:relative"
    subprocess.run(
        ["scp", "-q", "-F", local_sshd.config_file, tmp_path / "file", target],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    assert (local_sshd.home / "relative").read_text() == "content"


def test_sftp_can_be_switched_off(local_sshd_factory: Factory) -> None:
    server = local_sshd_factory(sftp=False)
    done = ssh(server, "-s", server.host, "sftp")
    assert done.returncode != 0
    assert "subsystem request failed" in done.stderr


def test_a_remote_death_by_signal_is_ssh_s_255(local_sshd: LocalSshd) -> None:
    assert ssh(local_sshd, local_sshd.host, "kill -9 $$").returncode == 255


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sshd_config": ["NoSuchOption yes"]}, "NoSuchOption"),
        ({"sshd_config": ["setenv A=1"]}, "environment="),
        ({"environment": {"A B": "1"}}, "A B"),
        ({"environment": {"A": "1\n2"}}, "cannot be passed"),
        ({"hosts": ["-oProxyCommand=x"]}, "plain name"),
        ({"hosts": "string"}, "plain name"),
        ({"home": "/nonexistent/directory"}, "no such directory"),
    ],
)
def test_a_wrong_argument_is_refused_and_leaves_nothing(
    arguments: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    mkdtemp = tempfile.mkdtemp

    def record(**kwargs: Any) -> str:
        made.append(mkdtemp(**kwargs))
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", record)
    with pytest.raises(ConfigError, match=message):
        LocalSshd(**arguments).start()
    assert not [path for path in made if Path(path).exists()]


def test_without_sshd_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr("holdfast.testing._SSHD_DIRECTORIES", ("/nonexistent",))
    with pytest.raises(ConfigError, match="apt-get install openssh-server"):
        find_sshd()


def test_a_fake_ssh_runs_in_place_of_the_real_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_ssh(tmp_path, 'echo "fake $1"; exit 4')
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    done = subprocess.run(["ssh", "-G"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (4, "fake -G\n")


def test_hung_masters_in_the_runtime_directory_are_found_and_ended(
    local_sshd: LocalSshd, runtime_dir: Path
) -> None:
    open_master(local_sshd, runtime_dir / "m")
    (master,) = find_clients(runtime_dir)
    os.kill(master, signal.SIGSTOP)
    assert find_clients(runtime_dir) == [master]
    local_sshd.stop()
    assert not is_alive(master)
