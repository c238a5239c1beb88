"""The containers themselves: each variant does what its name says, seen by plain ssh."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pexpect
import pytest

if TYPE_CHECKING:
    from tests.docker.conftest import Home, Server, StartServer, Totp

pytestmark = pytest.mark.docker

GUARD = ("-o", "ControlMaster=no", "-o", "ProxyCommand=false")  # never log in behind our back


def ssh(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ssh with *arguments*: options, then a command behind the server's name."""
    return subprocess.run(
        ["ssh", "-F", server.config_file, "-o", "BatchMode=yes", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )


def start_master(server: Server, home: Home) -> str:
    """Open a control master; return its control path."""
    path = str(home.runtime_dir / "master")
    subprocess.run(
        ["ssh", "-F", server.config_file, "-MNfS", path, "-o", "BatchMode=yes", server.name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=20,
        check=True,
    )
    return path


def log_in(server: Server, answers: dict[str, str]) -> bool:
    """Log in on a terminal; whether the server accepted the answers to its prompts."""
    arguments = ["-F", str(server.config_file), "-o", "NumberOfPasswordPrompts=1", server.name]
    with pexpect.spawn("ssh", [*arguments, "echo we are in"], timeout=10) as child:
        for prompt, answer in answers.items():
            child.expect_exact(prompt)
            child.sendline(answer)
        return bool(child.expect_exact(["Permission denied", "we are in"]))


def test_a_key_logs_in_and_is_counted(server: StartServer) -> None:
    key = server(fresh=True)
    assert key.logins() == 0
    done = ssh(key, key.name, "id -un")
    assert (done.returncode, done.stdout, done.stderr) == (0, "alice\n", "")
    assert ssh(key, "-l", "bob", key.name, "id -un").stdout == "bob\n"
    assert key.logins() == 2


def test_equal_variants_are_shared_until_they_break(server: StartServer) -> None:
    assert server(BANNER="x") is server(BANNER="x")
    assert server(BANNER="x") is not server()
    broken = server(BANNER="x")
    broken.kill()
    assert ssh(broken, "-o", "ConnectTimeout=1", broken.name, "true").returncode == 255
    assert broken.logins() == 0
    assert server(BANNER="x") is not broken


def test_a_paused_server_hangs(server: StartServer) -> None:
    key = server()
    key.pause()
    done = ssh(key, "-o", "ConnectTimeout=1", key.name, "true")
    assert done.returncode == 255
    assert "timed out" in done.stderr
    key.unpause()
    assert ssh(key, key.name, "true").returncode == 0


def test_options_can_be_added_to_the_configuration(server: StartServer) -> None:
    key = server()
    listing = subprocess.run(
        ["ssh", "-G", "-F", key.config_with("User bob", "Compression yes"), key.name],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert {"user bob", "compression yes", f"hostname {key.ip}"} <= set(listing)


def test_dropped_connections_end_the_master(server: StartServer, home: Home) -> None:
    key = server()
    path = start_master(key, home)
    key.drop_connections()
    done = ssh(key, "-S", path, *GUARD, key.name, "true")
    assert done.returncode == 255


def test_commands_of_a_master_are_one_login(server: StartServer, home: Home) -> None:
    key = server()
    before = key.logins()
    path = start_master(key, home)
    for _ in range(3):
        assert ssh(key, "-S", path, *GUARD, key.name, "true").returncode == 0
    assert key.logins() == before + 1


def test_max_sessions_1_refuses_the_second(server: StartServer, home: Home) -> None:
    one = server(SSHD_OPTS="MaxSessions 1")
    path = start_master(one, home)
    first = ["ssh", "-F", str(one.config_file), "-S", path, *GUARD, one.name, "echo ready; cat"]
    with subprocess.Popen(first, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        second = ssh(one, "-S", path, *GUARD, one.name, "true")
        assert second.returncode == 255
        assert "Session open refused by peer" in second.stderr
        process.communicate()
    assert ssh(one, "-S", path, *GUARD, one.name, "true").returncode == 0


def test_max_sessions_0_refuses_all(server: StartServer, home: Home) -> None:
    none = server(SSHD_OPTS="MaxSessions 0")
    path = start_master(none, home)
    done = ssh(none, "-S", path, *GUARD, none.name, "true")
    assert done.returncode == 255
    assert "Session open refused by peer" in done.stderr


def test_password_only_takes_neither_key_nor_batch_mode(server: StartServer) -> None:
    password = server(AUTH="password", PASSWORD="correct horse")
    done = ssh(password, password.name, "true")
    assert done.returncode == 255
    assert "Permission denied (password)" in done.stderr
    assert log_in(password, {"password: ": "correct horse"})


def test_key_and_code(server: StartServer, totp: Totp) -> None:
    both = server(AUTH="key+totp", TOTP_REUSE="no", fresh=True)
    done = ssh(both, both.name, "true")
    assert done.returncode == 255
    assert "Permission denied (keyboard-interactive)" in done.stderr
    code = totp()
    assert log_in(both, {"Verification code: ": code})
    assert not log_in(both, {"Verification code: ": code}), "a code works once"
    assert both.logins() == 1


def test_password_and_code(server: StartServer, totp: Totp) -> None:
    both = server(AUTH="password+totp", PASSWORD="secret")
    assert log_in(both, {"Password: ": "secret", "Verification code: ": totp()})


def test_codes_are_those_of_rfc_6238(totp: Totp) -> None:
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"  # appendix B, last six digits
    assert [totp(secret, at) for at in (59, 1111111109, 20000000000)] == [
        "287082",
        "081804",
        "353130",
    ]


@pytest.mark.parametrize(
    "shell", ["/bin/sh", "/bin/tcsh", "/usr/bin/fish", "/bin/zsh", "/bin/ksh93"]
)
def test_the_login_shell_runs_commands(server: StartServer, shell: str) -> None:
    account = server(LOGIN_SHELL=shell)
    done = ssh(account, account.name, "sh -c 'ps -o comm= -p $PPID'; true")
    assert (done.stdout, done.stderr) == (f"{shell.rpartition('/')[2]}\n", "")
    assert ssh(account, account.name, "exit 7").returncode == 7


@pytest.mark.parametrize(
    ("shell", "file"),
    [
        ("/bin/bash", ".bashrc"),
        ("/bin/tcsh", ".cshrc"),
        ("/bin/zsh", ".zshenv"),
        ("/usr/bin/fish", "config.fish"),
    ],
)
def test_noisy_rc_files_print_on_stdout(server: StartServer, shell: str, file: str) -> None:
    noisy = server(NOISY="1", LOGIN_SHELL=shell)
    assert ssh(noisy, noisy.name, "echo output").stdout == f"NOISE from {file}\noutput\n"


def test_a_banner_is_not_output(server: StartServer) -> None:
    banner = server(BANNER="Authorized use only.")
    done = ssh(banner, banner.name, "echo output")
    assert (done.stdout, done.stderr) == ("output\n", "Authorized use only.\n")


def test_without_sftp_scp_needs_the_old_protocol(server: StartServer) -> None:
    no_sftp = server(SFTP="no")
    done = ssh(no_sftp, "-s", no_sftp.name, "sftp")
    assert done.returncode != 0
    assert "subsystem request failed" in done.stderr


def test_dropbear(server: StartServer, home: Home) -> None:
    dropbear = server(SERVER="dropbear")
    before = dropbear.logins()
    path = start_master(dropbear, home)
    done = ssh(dropbear, "-S", path, *GUARD, dropbear.name, "id -un; exit 3")
    assert (done.returncode, done.stdout) == (3, "alice\n")
    assert ssh(dropbear, "-S", path, *GUARD, "-s", dropbear.name, "sftp").returncode == 0
    assert dropbear.logins() == before + 1


def test_a_changed_host_key_is_refused(server: StartServer) -> None:
    changed = server(fresh=True)
    known_hosts = changed.known_hosts.read_text().replace(changed.host_key, server().host_key)
    changed.known_hosts.write_text(known_hosts)
    done = ssh(changed, changed.name, "true")
    assert done.returncode == 255
    assert "Host key verification failed" in done.stderr


def test_the_inner_host_is_reached_through_the_bastion(bastion: Server, inner: Server) -> None:
    before = bastion.logins(), inner.logins()
    assert ssh(inner, inner.name, "hostname").stdout == "inner\n"
    assert (bastion.logins(), inner.logins()) == (before[0] + 1, before[1] + 1)
    assert ssh(inner, "-o", "ProxyJump=none", inner.name, "true").returncode == 255


def test_the_bastion_gives_no_terminal(bastion: Server) -> None:
    assert "PTY allocation request failed" in ssh(bastion, "-tt", bastion.name, "true").stderr
