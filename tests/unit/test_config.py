from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Callable

import pytest

from holdfast.errors import ConfigError
from holdfast.openssh import config
from holdfast.openssh.destination import Destination
from holdfast.openssh.options import Options
from holdfast.testing import fake_ssh

FIXTURES = Path(__file__).parent / "fixtures" / "ssh_g"
HOST = Destination("cluster1")

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh on this machine")


def parsed(name: str) -> config.EffectiveConfig:
    return config.parse((FIXTURES / name).read_text())


@pytest.fixture(autouse=True)
def _fresh_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_cache", {})


@pytest.fixture
def ssh_config(tmp_path: Path) -> Path:
    path = tmp_path / "dir" / "config"
    path.parent.mkdir()
    path.write_text("Host *\n  User first\n")
    _age(path)
    return path


def _age(path: Path) -> None:
    """As if written a minute ago: what changes while ssh reads is asked again in any case."""
    then = time.time() - 60
    os.utime(path, (then, then))
    if path.parent.exists():
        os.utime(path.parent, (then, then))


# --- what ssh -G prints ---------------------------------------------------------------------


def test_what_openssh_9_2_prints_is_read() -> None:
    found = parsed("openssh_9.2.txt")
    assert (found.user, found.hostname, found.port) == ("alice", "example.org", 22)
    assert found.control_path is None
    assert found.control_persist is None
    assert found.server_alive_interval == 0
    assert found.connect_timeout is None
    assert found.proxy_jump is None
    assert found.overrides() == Options()
    assert len(found.values["identityfile"]) > 1


def test_what_openssh_7_4_prints_is_read() -> None:
    found = parsed("openssh_7.4.txt")
    assert (found.user, found.hostname, found.port) == ("alice", "login.example.org", 2222)
    assert found.control_path == "/home/alice/.ssh/cm-alice@login.example.org:2222"
    assert found.control_persist == 1800
    assert found.server_alive_interval == 30
    assert found.proxy_jump == "bob@gate:2200"
    assert found.values["identityfile"] == ("~/.ssh/id_rsa", "~/.ssh/id_ed25519")
    assert found.values["sendenv"] == ("LANG", "LC_*")
    assert found.overrides() == Options()


def test_what_would_take_the_session_away_is_overridden() -> None:
    found = parsed("openssh_8.9_odd.txt")
    assert found.overrides() == Options.of(
        RemoteCommand="none", SessionType="default", StdinNull=False, ForkAfterAuthentication=False
    )
    assert found.control_path is None
    assert found.control_persist == 0
    assert found.connect_timeout == 7
    assert found.get("proxycommand") == "nc -X 5 %h %p"
    assert found.get("identityfile") == '"/home/alice/my keys/id"'


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("", None),
        ("controlpersist no", None),
        ("controlpersist false", None),
        ("controlpersist yes", 0),
        ("controlpersist true", 0),
        ("controlpersist 0", 0),
        ("controlpersist 600", 600),
    ],
)
def test_control_persist_is_seconds(line: str, seconds: object) -> None:
    assert config.parse(line).control_persist == seconds


def test_keywords_are_read_in_any_case_and_rubbish_is_survived() -> None:
    found = config.parse("USER alice\n\n  \nlonely\nControlPath  /a b \n")
    assert found.get("User") == "alice"
    assert found.control_path == "/a b"
    assert found.get("lonely") == ""
    assert found.get("none at all", "default") == "default"


IDENTITY = [
    "user",
    "hostname",
    "port",
    "hostkeyalias",
    "proxyjump",
    "proxycommand",
    "identityfile",
    "identitiesonly",
    "identityagent",
    "certificatefile",
]


@pytest.mark.parametrize("keyword", IDENTITY)
def test_what_decides_the_connection_is_its_identity(keyword: str) -> None:
    assert config.parse(f"{keyword} 1").identity != config.parse(f"{keyword} 2").identity


def test_what_does_not_decide_it_is_not() -> None:
    assert config.parse("user a\nloglevel INFO").identity == config.parse("user a").identity
    assert hash(config.parse("user a").identity) == hash(config.parse("user a").identity)


# --- which files were read ------------------------------------------------------------------


def test_the_files_and_the_directories_of_patterns_are_found_in_the_debug_log() -> None:
    log = (
        "OpenSSH_9.2p1 Debian-2, OpenSSL 3.0\n"
        "debug1: Reading configuration data /home/alice/.ssh/config\n"
        "debug1: /home/alice/.ssh/config line 1: include conf.d/* matched no files\n"
        "debug1: Reading configuration data /home/alice/.ssh/more/a b\n"
        "debug1: /home/alice/.ssh/config line 3: Applying options for *\n"
        "debug1: Reading configuration data /etc/ssh/ssh_config\n"
        "debug1: /etc/ssh/ssh_config line 19: include /etc/ssh/ssh_config.d/*.conf matched no files\n"
    )
    found = config.files_read(log)
    assert "/home/alice/.ssh/config" in found
    assert "/home/alice/.ssh/more/a b" in found
    assert "/home/alice/.ssh/more" in found
    assert "/etc/ssh/ssh_config.d" in found
    assert "/home/alice/.ssh" not in found  # known_hosts changes there all the time
    assert "OpenSSH_9.2p1" not in found


def test_no_log_is_no_files() -> None:
    assert config.files_read("") == []


# --- real ssh -------------------------------------------------------------------------------


def _user(path: Path) -> str:
    return config.resolve("ssh", HOST, config_file=str(path)).user


def _counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    calls: list[object] = []
    ask = config._ask

    def counting(*args: object) -> object:
        calls.append(args)
        return ask(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(config, "_ask", counting)
    return lambda: len(calls)


@needs_ssh
def test_the_answer_is_kept_while_the_files_stand(
    ssh_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _counted(monkeypatch)
    first = config.resolve("ssh", HOST, config_file=str(ssh_config))
    assert config.resolve("ssh", HOST, config_file=str(ssh_config)) is first
    assert (first.user, asked()) == ("first", 1)
    (ssh_config.parent / "known_hosts").write_text("x")  # as ssh itself does
    assert config.resolve("ssh", HOST, config_file=str(ssh_config)) is first


@needs_ssh
def test_a_changed_file_is_read_again(ssh_config: Path) -> None:
    assert _user(ssh_config) == "first"
    ssh_config.write_text("Host *\n  User other\n")
    assert _user(ssh_config) == "other"
    ssh_config.write_text("Host *\n  User third\n")  # of the same length, at once
    assert _user(ssh_config) == "third"


@needs_ssh
def test_a_replaced_file_of_the_same_time_and_size_is_read_again(ssh_config: Path) -> None:
    assert _user(ssh_config) == "first"
    status = ssh_config.stat()
    fresh = ssh_config.with_name("fresh")
    fresh.write_text("Host *\n  User third\n")
    os.utime(fresh, ns=(status.st_atime_ns, status.st_mtime_ns))
    fresh.replace(ssh_config)
    assert _user(ssh_config) == "third"


@needs_ssh
def test_a_changed_included_file_is_read_again(ssh_config: Path) -> None:
    included = ssh_config.parent / "included"
    ssh_config.write_text(f"Include {included}\n")
    included.write_text("User first\n")
    _age(ssh_config)
    _age(included)
    assert _user(ssh_config) == "first"
    included.write_text("User other\n")
    assert _user(ssh_config) == "other"


@needs_ssh
@pytest.mark.parametrize("already", [0, 1])
def test_a_new_file_in_an_include_directory_is_noticed(ssh_config: Path, already: int) -> None:
    directory = ssh_config.parent / "conf.d"
    directory.mkdir()
    ssh_config.write_text(f"Include {directory}/*.conf\nHost *\n  User first\n")
    _age(ssh_config)
    for number in range(already):
        (directory / f"5{number}.conf").write_text("Compression yes\n")
        _age(directory / f"5{number}.conf")
    os.utime(directory, (1, 1))
    assert _user(ssh_config) == "first"
    (directory / "10.conf").write_text("User other\n")
    assert _user(ssh_config) == "other"


@needs_ssh
def test_an_included_file_that_did_not_exist_is_noticed(ssh_config: Path) -> None:
    later = ssh_config.parent / "none yet"
    ssh_config.write_text(f'Include "{later}/x"\nHost *\n  User first\n')
    _age(ssh_config)
    assert _user(ssh_config) == "first"
    later.mkdir()
    (later / "x").write_text("User other\n")
    assert _user(ssh_config) == "other"


@needs_ssh
def test_options_and_destinations_have_answers_of_their_own(ssh_config: Path) -> None:
    file = str(ssh_config)
    assert config.resolve("ssh", HOST, config_file=file, options=Options.of(Port=7)).port == 7
    assert config.resolve("ssh", HOST, config_file=file).port == 22
    assert config.resolve("ssh", Destination("cluster1", "bob"), config_file=file).user == "bob"
    assert config.resolve("ssh", Destination("::1", None, 8), config_file=file).hostname == "::1"


@needs_ssh
def test_what_files_cannot_tell_is_asked_again_in_time(
    ssh_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _counted(monkeypatch)
    monkeypatch.setattr(config, "_MAX_AGE", 0.0)
    _user(ssh_config)
    _user(ssh_config)
    assert asked() == 2


@needs_ssh
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Host *\n  Nonsense yes\n", r"line 2: Bad configuration option: nonsense"),
        ("Port\n", r"line 1: .*[Mm]issing argument|line 1: no argument after keyword"),
        ("\n\nPort many\n", r"line 3: Bad (port|number)"),
    ],
)
def test_a_broken_configuration_is_told_in_the_words_of_ssh(
    ssh_config: Path, text: str, words: str
) -> None:
    ssh_config.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        _user(ssh_config)
    assert str(ssh_config) in str(caught.value)
    assert "debug1:" not in str(caught.value)
    ssh_config.write_text("User mended\n")
    assert _user(ssh_config) == "mended"


@needs_ssh
def test_a_missing_configuration_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        _user(tmp_path / "none")


@needs_ssh
def test_a_match_exec_that_hangs_is_given_up_and_leaves_nothing(
    ssh_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = ssh_config.parent / "pid"
    ssh_config.write_text(f'Match exec "echo $$ >{pid_file}; exec sleep 60"\n  User x\n')
    monkeypatch.setattr(config, "_TIMEOUT", 0.5)
    with pytest.raises(ConfigError, match="Match exec"):
        _user(ssh_config)
    pid = pid_file.read_text().strip()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        state = subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, check=False)
        if state.stdout.strip()[:1] in (b"", b"Z"):
            return
        time.sleep(0.05)
    pytest.fail(f"the command of Match exec runs on as {pid}")


def test_a_terminal_message_on_stderr_disturbs_nothing(tmp_path: Path) -> None:
    ssh = fake_ssh(
        tmp_path,
        "echo 'Pseudo-terminal will not be allocated because stdin is not a terminal.' >&2\n"
        "echo user alice",
    )
    assert config.resolve(str(ssh), HOST).user == "alice"


def test_an_ssh_that_fails_without_a_word_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="failed with 3"):
        config.resolve(str(fake_ssh(tmp_path, "exit 3")), HOST)


def test_bytes_that_are_no_utf8_travel(tmp_path: Path) -> None:
    ssh = fake_ssh(tmp_path, r"printf 'identityfile /keys/\377\n'")
    assert os.fsencode(config.resolve(str(ssh), HOST).get("identityfile")) == b"/keys/\xff"
