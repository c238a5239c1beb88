"""The ``holdfast`` command against a real sshd, as a user's shell would start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest

from holdfast.testing import LocalSshd, fake_ssh, find_clients

pytestmark = pytest.mark.sshd

Factory = Callable[..., LocalSshd]


class Cli:
    """``cli("run", "true")`` is ``holdfast run --config-file ... HOST true``."""

    def __init__(self, server: LocalSshd) -> None:
        self.server = server

    def line(self, verb: str, *words: str, host: Optional[str] = None) -> list[str]:
        file = ["--config-file", self.server.config_file]
        return [sys.executable, "-m", "holdfast", verb, *file, host or self.server.host, *words]

    def __call__(
        self, verb: str, *words: str, host: Optional[str] = None, **more: Any
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            self.line(verb, *words, host=host), capture_output=True, timeout=60, **more
        )


def plain(*words: str, **more: Any) -> subprocess.CompletedProcess[bytes]:
    """``holdfast`` without a host."""
    return subprocess.run(
        [sys.executable, "-m", "holdfast", *words], capture_output=True, timeout=60, **more
    )


def listed() -> Any:
    return json.loads(plain("ls", "--json").stdout)


@pytest.fixture
def cli(local_sshd: LocalSshd) -> Cli:
    return Cli(local_sshd)


def until(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


# --- run --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 3, 254, 255])
def test_run_returns_the_remote_exit_status(cli: Cli, status: int) -> None:
    done = cli("run", "echo", "out;", "echo", "err", ">&2;", "exit", str(status))
    assert (done.returncode, done.stdout, done.stderr) == (status, b"out\n", b"err\n")


def test_commands_share_one_login(cli: Cli) -> None:
    for _ in range(4):
        assert cli("run", "true").returncode == 0
    assert cli.server.logins() == 1
    assert listed()["connections"][0]["logins"] == 1


def test_words_are_joined_for_the_remote_shell_as_ssh_does(cli: Cli) -> None:
    assert cli("run", "echo", "a   b", "$((1 + 1))").stdout == b"a b 2\n"
    assert cli("run", "--", "echo", "--version").stdout == b"--version\n"
    assert cli("run", "echo", "--version").stdout == b"--version\n"


def test_run_passes_stdin_and_bytes_unharmed(cli: Cli) -> None:
    data = os.urandom(300_000)
    assert cli("run", "cat", input=data).stdout == data


def test_run_without_stdin(cli: Cli) -> None:
    assert cli("run", "-n", "cat; echo end", input=b"unread").stdout == b"end\n"
    shell = ["/bin/sh", "-c", '"$@" <&-', "sh", *cli.line("run", "cat; echo end")]
    done = subprocess.run(shell, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"end\n", b"")


def test_stdin_of_the_caller_stays_blocking(cli: Cli) -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"x")
    os.close(write_end)
    assert cli("run", "cat", stdin=read_end).stdout == b"x"
    assert os.get_blocking(read_end)
    os.close(read_end)


def test_stdout_of_the_caller_stays_blocking(cli: Cli) -> None:
    read_end, write_end = os.pipe()
    subprocess.run(
        cli.line("run", "echo hello"), stdin=subprocess.DEVNULL, stdout=write_end, timeout=60
    )
    assert os.get_blocking(write_end)
    os.close(write_end)
    with open(read_end, "rb") as stream:
        assert stream.read() == b"hello\n"


def test_run_streams_as_it_comes(cli: Cli) -> None:
    process = subprocess.Popen(
        cli.line("run", "echo first; cat"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    assert process.poll() is None
    process.stdin.write(b"second\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"second\n"
    assert process.poll() is None
    process.stdin.close()
    assert process.stdout.read() == b""
    assert process.wait(20) == 0
    process.stdout.close()


def test_five_megabytes_on_both_streams(cli: Cli) -> None:
    done = cli("run", "head -c 5000000 /dev/zero & head -c 5000000 /dev/zero >&2; wait")
    assert done.returncode == 0
    assert (len(done.stdout), len(done.stderr)) == (5_000_000, 5_000_000)


def test_a_signal_death_is_255_and_said(cli: Cli) -> None:
    done = cli("run", "kill -9 $$")
    assert done.returncode == 255
    assert done.stderr == b"holdfast: a signal ended the command on localsshd\n"


def test_cwd_and_env(cli: Cli) -> None:
    (cli.server.home / "with space").mkdir()
    done = cli(
        "run", "--cwd", "with space", "--env", "A=x y", "--env", "B=$HOME", "pwd; echo $A,$B"
    )
    assert done.stdout.decode().splitlines() == [str(cli.server.home / "with space"), "x y,$HOME"]
    done = cli("run", "--cwd", "missing", "echo not reached")
    assert done.returncode != 0
    assert done.stdout == b""


def test_a_timeout_is_255_with_the_reason(cli: Cli) -> None:
    cli("open")
    begin = time.monotonic()
    done = cli("run", "--timeout", "1", "echo begun; sleep 30")
    assert done.returncode == 255
    assert done.stdout == b"begun\n"
    assert b"timed out after 1 s" in done.stderr
    assert time.monotonic() - begin < 10


def test_a_terminal_for_the_command(cli: Cli) -> None:
    assert b"not a tty" in cli("run", "tty").stdout
    assert b"/dev/" in cli("run", "--tty", "tty", stdin=subprocess.DEVNULL).stdout


def test_output_that_nobody_reads_ends_the_command(cli: Cli) -> None:
    cli("open")
    shell = '{ "$@"; echo $? >&2; } | head -n 2'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, "sh", *cli.line("run", "yes")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
    )
    assert (done.stdout, done.stderr) == (b"y\ny\n", b"141\n")
    until(lambda: not cli.server.commands())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing_on_either_side(
    cli: Cli, number: int, status: int
) -> None:
    cli("open")
    masters = set(cli.server.clients())
    process = subprocess.Popen(
        cli.line("run", "echo on; sleep 300"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"on\n"
    process.send_signal(number)
    assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == status
    until(lambda: not cli.server.commands())
    until(lambda: set(cli.server.clients()) == masters)
    assert not list(Path(os.environ["HOLDFAST_RUNTIME_DIR"]).glob("client-*"))


def test_a_host_that_cannot_be_reached_is_255(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("Host away\n  HostName 127.0.0.1\n  Port 1\n")
    done = plain("run", "--config-file", str(file), "away", "true")
    assert done.returncode == 255
    assert b"holdfast: no SSH server answered for away" in done.stderr


def test_a_broken_configuration_is_told_in_sshs_words(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("Host x\n  Nonsense yes\n")
    done = plain("run", "--config-file", str(file), "x", "true")
    assert done.returncode == 255
    assert b"line 2" in done.stderr
    assert b"Nonsense" in done.stderr.title()


def test_options_reach_ssh(cli: Cli) -> None:
    done = cli("run", "-o", "Nonsense=1", "true")
    assert done.returncode == 255
    assert b"nonsense" in done.stderr.lower()


def test_a_login_that_needs_a_human_names_the_command(local_sshd_factory: Factory) -> None:
    server = local_sshd_factory(
        sshd_config=["PubkeyAuthentication no", "PasswordAuthentication yes"]
    )
    done = Cli(server)("run", "true")
    assert done.returncode == 255
    assert f"holdfast open --config-file {server.config_file} localsshd".encode() in done.stderr


def test_warnings_appear_once_on_stderr_and_quiet_hides_them(local_sshd_factory: Factory) -> None:
    cli = Cli(local_sshd_factory(sshd_config=["PermitTTY no"]))
    assert cli("run", "-v", "true").stderr.startswith(b"holdfast: login to localsshd")
    assert cli("run", "true").stderr == b""


# --- open, ls, check, close, clean ------------------------------------------------------------


def test_open_logs_in_once_and_says_how_to_close(cli: Cli) -> None:
    done = cli("open")
    assert done.returncode == 0
    file = f"--config-file {cli.server.config_file}"
    assert done.stdout.decode() == (
        "localsshd is open, until 10 min after its last command; "
        f"close it: holdfast close {file} localsshd\n"
    )
    assert cli("open").stdout.startswith(b"localsshd was open already")
    document = json.loads(cli("open", "--json").stdout)
    assert (document["logged_in"], document["ours"], document["persist"]) == (False, True, 600)
    assert cli.server.logins() == 1


def test_check_before_open_and_after(cli: Cli) -> None:
    done = cli("check")
    assert done.returncode == 1
    command = f"holdfast open --config-file {cli.server.config_file} localsshd"
    assert done.stdout.decode() == f"localsshd is not open; open it: {command}\n"
    assert json.loads(cli("check", "--json").stdout)["alive"] is False
    cli("open")
    assert cli("check").returncode == 0
    done = cli("check", "--deep")
    assert done.returncode == 0
    assert b"the far side answers in" in done.stdout
    assert cli.server.logins() == 1


def test_check_deep_notices_a_silent_server(cli: Cli) -> None:
    cli("open")
    cli.server.pause()
    try:
        assert cli("check").returncode == 0
        done = cli("check", "--deep", "--timeout", "1")
    finally:
        cli.server.resume()
    assert done.returncode == 1
    assert b"timed out after 1 s" in done.stdout


def test_ls_shows_what_is_open(cli: Cli) -> None:
    assert plain("ls").stdout == b"no connections are open\n"
    cli("open")
    header, row = plain("ls").stdout.decode().splitlines()
    assert header.split() == [
        "DESTINATION",
        "PURPOSE",
        "STATE",
        "PID",
        "SINCE",
        "AGE",
        "LOGINS",
        "FAILED",
    ]
    assert row.split()[:3] == ["localsshd", "main", "alive"]
    assert header.index("STATE") == row.index("alive")
    path = listed()["connections"][0]["control_path"]
    assert path in plain("ls", "-v").stdout.decode()
    assert Path(path).is_socket()


def test_ls_tells_stuck_from_dead_and_clean_ends_both(cli: Cli) -> None:
    cli("open")
    master = listed()["connections"][0]["pid"]
    os.kill(master, signal.SIGSTOP)
    assert listed()["connections"][0]["state"] == "stuck"
    done = plain("clean", "--stale-timeout", "1")
    assert done.stdout.decode().startswith(f"localsshd: ended: its master (pid {master})")
    assert listed()["connections"] == []

    cli("open")
    os.kill(listed()["connections"][0]["pid"], signal.SIGKILL)
    until(lambda: listed()["connections"][0]["state"] == "dead")
    report = json.loads(plain("clean", "--json").stdout)
    assert [row["done"] for row in report] == ["removed"]
    assert plain("clean").stdout == b"nothing to clean\n"
    assert cli.server.logins() == 2


def test_clean_leaves_what_lives(cli: Cli) -> None:
    cli("open")
    assert plain("clean").stdout == b"nothing to clean\n"
    assert cli("check").returncode == 0


def test_close_ends_an_idle_connection_at_once(cli: Cli) -> None:
    cli("open")
    assert cli("close").stdout == b"localsshd: closed\n"
    assert cli("close").stdout == b"localsshd: was not open\n"
    assert cli("check").returncode == 1
    assert listed()["connections"] == []
    until(lambda: not cli.server.clients())


def test_close_waits_for_running_commands_and_now_does_not(cli: Cli) -> None:
    cli("open")
    process = subprocess.Popen(
        cli.line("run", "echo on; cat"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    assert b"when its running commands have ended" in cli("close").stdout
    assert listed()["connections"][0]["state"] == "draining"
    assert process.poll() is None
    assert cli("close", "--now").stdout == b"localsshd: closed\n"
    process.communicate(timeout=20)
    assert process.returncode == 255
    until(lambda: not cli.server.clients())


def test_close_all(local_sshd_factory: Factory) -> None:
    cli = Cli(local_sshd_factory(hosts=["one", "two"]))
    assert plain("close", "--all").stdout == b"no connections are open\n"
    for host in ("one", "two"):
        cli("open", host=host)
    outcomes = json.loads(plain("close", "--all", "--json").stdout)
    assert {(o["destination"], o["outcome"]) for o in outcomes} == {
        ("one", "closed"),
        ("two", "closed"),
    }
    assert listed()["connections"] == []


def test_a_master_of_the_users_own_is_used_and_left_alone(local_sshd_factory: Factory) -> None:
    path = "/tmp/hf-own-%C"
    server = local_sshd_factory(ssh_config=["ControlPath " + path])
    private = server.directory / "own"
    private.mkdir(mode=0o700)
    config = Path(server.config_file)
    config.write_text(config.read_text().replace(path, f"{private}/%n"))
    cli = Cli(server)
    subprocess.run(
        ["ssh", "-F", server.config_file, "-MNf", "-o", "ControlPersist=60", server.host],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=30,
    )
    assert cli("run", "echo hello").stdout == b"hello\n"
    assert b"opened by your own ssh" in cli("check").stdout
    assert b"as long as your own ssh keeps it" in cli("open").stdout
    done = cli("close", "--now")
    assert done.returncode == 0
    assert b"left alone" in done.stdout
    assert cli("check").returncode == 0
    assert server.logins() == 1


# --- put and get ------------------------------------------------------------------------------


def test_files_with_odd_names_there_and_back(cli: Cli, tmp_path: Path) -> None:
    names = [
        b"plain",
        b"with space",
        b"it's",
        b'q"uote',
        b"-dash",
        b"a*b?",
        b"new\nline",
        b"\xff\xfe",
        b"co:lon",
    ]
    for number, name in enumerate(names):
        data = os.urandom(1000 + number)
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(data)
        word = os.fsdecode(name)
        done = subprocess.run(
            [*cli.line("put", "--", word)], cwd=tmp_path, capture_output=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, b""), name
        assert (cli.server.home / word).read_bytes() == data
        done = subprocess.run(
            [*cli.line("get", "--", word, "back")], cwd=tmp_path, capture_output=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, b""), name
        assert (tmp_path / "back").read_bytes() == data
        (tmp_path / "back").unlink()
    assert cli.server.logins() == 1


def test_directories_and_modes(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    script = tmp_path / "tree" / "deep" / "script"
    script.write_text("x")
    script.chmod(0o750)
    os.utime(script, (1_000_000_000, 1_000_000_000))
    assert cli("put", "--preserve", str(tmp_path / "tree"), "there").returncode == 0
    assert cli("get", "-p", "there", str(tmp_path / "back")).returncode == 0
    status = (tmp_path / "back" / "deep" / "script").stat()
    assert (status.st_mode & 0o777, int(status.st_mtime)) == (0o750, 1_000_000_000)


def test_a_missing_file_is_255_with_the_reason(cli: Cli, tmp_path: Path) -> None:
    done = cli("put", str(tmp_path / "missing"))
    assert done.returncode == 255
    assert b"does not exist" in done.stderr
    done = cli("get", "missing", str(tmp_path))
    assert done.returncode == 255
    assert b"No such file" in done.stderr


# --- doctor -----------------------------------------------------------------------------------


def findings(done: subprocess.CompletedProcess[bytes]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(done.stdout)["checks"]}


def test_doctor_of_this_machine(cli: Cli) -> None:
    done = plain("doctor", "--config-file", cli.server.config_file)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.decode().splitlines()
    assert lines[0] == "this machine"
    assert lines[-1] == "all is well"
    assert cli.server.logins() == 0


def test_doctor_of_a_host_takes_one_login(cli: Cli) -> None:
    done = cli("doctor", "--json")
    found = findings(done)
    assert done.returncode == 0, done.stdout
    assert {check["status"] for check in found.values()} == {"ok"}
    assert found["sessions"]["detail"] == "10 at once (MaxSessions)"
    assert found["mode"]["detail"].startswith("multiplexed")
    assert found["rc files"]["detail"] == "print nothing"
    assert cli.server.logins() == 1
    until(lambda: not cli.server.commands())
    assert "all is well" in cli("doctor").stdout.decode()
    assert cli.server.logins() == 1


def test_doctor_finds_noisy_rc_files(cli: Cli) -> None:
    with open(cli.server.home / ".bashrc", "a") as file:
        file.write("echo Welcome to the cluster\n")
    done = cli("doctor")
    if b"FAIL" not in done.stdout and not os.environ.get("SHELL", "").endswith("bash"):
        pytest.skip("the login shell here is not bash")
    assert done.returncode == 1
    assert b"'Welcome to the cluster'" in done.stdout
    assert b"[ -t 1 ]" in done.stdout


def test_doctor_finds_few_sessions_and_no_sftp(local_sshd_factory: Factory) -> None:
    server = local_sshd_factory(sshd_config=["MaxSessions 2"], sftp=False)
    found = findings(Cli(server)("doctor", "--json"))
    assert found["sessions"]["status"] == "warn"
    assert "only 2 at once" in found["sessions"]["detail"]
    assert found["sftp"]["status"] == "warn"
    assert server.logins() == 1


def test_doctor_counts_no_further_than_twelve(local_sshd_factory: Factory) -> None:
    server = local_sshd_factory(sshd_config=["MaxSessions 50"])
    found = findings(Cli(server)("doctor", "--json"))
    assert found["sessions"]["detail"] == "at least 12 at once"


def test_doctor_explains_a_login_that_needs_a_human(local_sshd_factory: Factory) -> None:
    server = local_sshd_factory(
        sshd_config=["PubkeyAuthentication no", "PasswordAuthentication yes"]
    )
    done = Cli(server)("doctor", "--json")
    found = findings(done)
    assert done.returncode == 1
    assert found["login"]["status"] == "fail"
    assert "holdfast open" in found["login"]["detail"]
    assert "rc files" not in found


def test_doctor_explains_a_control_path_that_cannot_be_used(local_sshd_factory: Factory) -> None:
    server = local_sshd_factory(ssh_config=["ControlPath /tmp/hf-open-to-all-%C"])
    found = findings(Cli(server)("doctor", "--json"))
    assert found["destination"]["status"] == "warn"
    assert "/tmp" in found["destination"]["detail"]


@pytest.fixture
def old_ssh(tmp_path: Path) -> dict[str, str]:
    """The environment of an ssh that says that it is too old to share connections."""
    ssh = fake_ssh(
        tmp_path, '[ "$1" = -V ] && { echo OpenSSH_5.0p1; exit 0; }; exec ssh "$@"', "old"
    )
    return {**os.environ, "HOLDFAST_SSH": str(ssh)}


def test_doctor_takes_one_login_where_connections_cannot_be_shared(
    cli: Cli, old_ssh: dict[str, str]
) -> None:
    found = findings(cli("doctor", "--json", env=old_ssh))
    assert found["mode"]["status"] == "warn"
    assert "OpenSSH 5.0 is older than 5.4" in found["mode"]["detail"]
    assert found["rc files"]["status"] == "ok"
    assert cli.server.logins() == 1


def test_verbs_where_connections_cannot_be_shared(cli: Cli, old_ssh: dict[str, str]) -> None:
    done = cli("run", "exit 4", env=old_ssh)
    assert done.returncode == 4
    assert done.stderr.count(b"every command logs in by itself") == 1
    assert cli("run", "-q", "true", env=old_ssh).stderr == b""
    done = cli("open", env=old_ssh)
    assert done.returncode == 255
    assert b"cannot be kept open: OpenSSH 5.0" in done.stderr
    done = cli("check", env=old_ssh)
    assert (done.returncode, b"cannot be shared" in done.stdout) == (1, True)
    assert "localsshd: 2 logins by plain ssh, not shared" in plain("ls").stdout.decode()
    done = cli("demo", env=old_ssh)
    assert done.returncode == 255
    assert b"cannot be shared" in done.stderr
    assert cli.server.logins() == 2


def test_doctor_tells_of_a_bad_runtime_directory(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    done = cli(
        "doctor", "--json", env={**os.environ, "HOLDFAST_RUNTIME_DIR": str(tmp_path / "link")}
    )
    assert done.returncode == 1
    assert "is a symbolic link" in findings(done)["runtime directory"]["detail"]
    assert cli.server.logins() == 0


def test_doctor_tells_of_a_missing_ssh(cli: Cli) -> None:
    done = cli("doctor", "--json", env={**os.environ, "HOLDFAST_SSH": "no-such-ssh"})
    assert done.returncode == 1
    assert "install openssh-client" in findings(done)["ssh"]["detail"]


def test_doctor_tells_of_a_dead_agent(cli: Cli, tmp_path: Path) -> None:
    environment = {**os.environ, "SSH_AUTH_SOCK": str(tmp_path / "gone")}
    found = findings(
        plain("doctor", "--json", "--config-file", cli.server.config_file, env=environment)
    )
    assert found["agent"]["status"] == "warn"
    assert "no agent answers" in found["agent"]["detail"]


# --- demo -------------------------------------------------------------------------------------


def test_demo_shows_one_login_against_fifty_and_leaves_nothing(runtime_dir: Path) -> None:
    done = plain("demo", "--json", "--plain", "5")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["logins"], result["plain_logins"], result["server_logins"]) == (1, 5, [1, 5])
    assert len(result["seconds"]) == 50
    assert result["left"] == []
    assert result["ratio"] > 1
    assert not list(runtime_dir.iterdir())
    until(lambda: not find_clients("demo-cluster"))


def test_demo_on_a_host_is_modest_and_closes_what_it_opened(cli: Cli) -> None:
    done = cli("demo")
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    assert "Nothing is left: no process, no file." in text
    assert cli.server.logins() == 6
    assert listed()["connections"] == []
    assert not list(cli.server.home.glob("holdfast-demo-*"))
    assert "localsshd: 5 logins by plain ssh, not shared" in plain("ls").stdout.decode()


def test_demo_leaves_a_connection_open_that_was_open(cli: Cli) -> None:
    cli("open")
    done = cli("demo", "--plain", "0")
    assert done.returncode == 0, done.stderr
    assert "is open already: no login" in done.stdout.decode()
    assert cli("check").returncode == 0
    assert cli.server.logins() == 1


# --- hosts and config -------------------------------------------------------------------------


def test_hosts_are_added_shown_changed_renamed_and_removed(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("# mine\nHost old\n    User me\n")

    def hosts(action: str, *words: str) -> subprocess.CompletedProcess[bytes]:
        return plain("hosts", action, "--config-file", str(file), *words)

    done = hosts("add", "big", "hostname=login.big.org", "User=alice", "Port=2222", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["port"] == 2222
    assert hosts("list").stdout.decode().splitlines() == [
        "NAME  HOSTNAME       USER   PORT  PROXYJUMP  IDENTITY FILE",
        "old   old            me       22  -          -",
        "big   login.big.org  alice  2222  -          -",
    ]
    assert hosts("set", "big", "Port=", "User=bob").returncode == 0
    shown = json.loads(hosts("show", "big", "--json").stdout)
    assert (shown["port"], shown["user"]) == (22, "bob")
    assert hosts("rename", "big", "bigger").returncode == 0
    assert b"login.big.org" in hosts("show", "bigger").stdout
    assert hosts("remove", "bigger").returncode == 0
    assert file.read_text() == "# mine\nHost old\n    User me\n"
    done = hosts("show", "bigger")
    assert done.returncode == 255
    assert b"no host 'bigger'" in done.stderr
    assert hosts("add", "x", "Nonsense=1").returncode == 255
    assert hosts("add", "x", "name=1").returncode == 255
    assert file.read_text() == "# mine\nHost old\n    User me\n"


def test_config_install_shows_asks_and_can_be_undone(runtime_dir: Path) -> None:
    file = runtime_dir.parent / "config"  # a short path: sockets lie beside it
    before = "Host x\n    User me\n"
    file.write_text(before)
    words = ["--config-file", str(file)]
    done = plain("config", "install", *words, input=b"")
    assert done.returncode == 1
    assert b"+Include" in done.stdout
    assert b"--yes does it" in done.stderr
    assert plain("config", "install", "--dry-run", *words).returncode == 0
    assert file.read_text() == before
    done = plain("config", "install", "--yes", *words)
    assert done.returncode == 0, done.stderr
    assert file.read_text() != before
    assert b"nothing to change" in plain("config", "install", "--yes", *words).stdout
    found = plain("doctor", "--json", *words)
    assert "shares connections" in findings(found)["plain ssh"]["detail"]
    done = plain("config", "uninstall", "--yes", "--json", *words)
    assert json.loads(done.stdout)["changed"] is True
    assert file.read_text() == before


def test_config_show(cli: Cli) -> None:
    environment = {**os.environ, "HOLDFAST_SSH_CONTROL_PERSIST": "30"}
    document = json.loads(plain("config", "show", "--json", env=environment).stdout)
    settings = {row["name"]: row for row in document["settings"]}
    assert settings["control_persist"]["value"] == 30
    assert settings["control_persist"]["from"] == "HOLDFAST_SSH_CONTROL_PERSIST"
    assert settings["ssh"]["from"] == "default"
    words = ["config", "show", "--config-file", cli.server.config_file, cli.server.host]
    shown = json.loads(plain(*words, "--json", env=environment).stdout)["host"]
    assert (shown["hostname"], shown["persist"], shown["keepalive"]) == (
        "localsshd",
        30,
        "15 s x 3",
    )
    assert shown["control_path"].startswith(os.environ["HOLDFAST_RUNTIME_DIR"])
    assert b"30 s" in plain(*words, env=environment).stdout
    assert cli.server.logins() == 0


def test_config_show_names_the_file(tmp_path: Path) -> None:
    directory = tmp_path / "holdfast"
    directory.mkdir()
    (directory / "config.toml").write_text("login_timeout = 7\n")
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    document = json.loads(plain("config", "show", "--json", env=environment).stdout)
    row = next(row for row in document["settings"] if row["name"] == "login_timeout")
    assert (row["value"], row["from"]) == (7.0, str(directory / "config.toml"))
