"""Hosts of an ssh configuration: what is listed is what ssh uses, what is edited is nothing else."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest

from holdfast import ssh_config_file
from holdfast.errors import ConfigError
from holdfast.hosts import (
    HostEntry,
    add_host,
    get_host,
    list_hosts,
    remove_host,
    rename_host,
    set_host,
)

MESSY = """\
# my clusters, do not touch
Compression yes

Host=plain
\tHostName=plain.example.org
\tuser = "alice"   # the other account
Host  one two   "three"  # shared
  Port 2222
  IdentityFile "~/keys/with space"
  # a comment inside
  ProxyJump bastion

Match originalhost one
  User matched

Host bastion
    ProxyCommand nc -X 5 "%h" %p # not a comment for ssh
    ProxyJump none

Host *.example.org !bad.example.org dev?
  User wild
Host dev1
  User ignored
Host *
  User everyone
  Port 22
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config"
    path.write_text(MESSY)
    return path


@pytest.fixture
def ssh_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """~/.ssh of a user who does not exist: passwd, which ssh asks, cannot be had for a test."""
    monkeypatch.setattr(ssh_config_file, "home_directory", lambda: tmp_path / "home")
    return tmp_path / "home" / ".ssh"


def ssh_g(config: Path, name: str) -> dict[str, list[str]]:
    """What the real ssh makes of it."""
    if shutil.which("ssh") is None:
        pytest.skip("no ssh")
    command = ["ssh", "-G", "-F", str(config), "--", name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)
    return found


def assert_as_ssh_says(config: Path, *skip: str) -> None:
    for entry in list_hosts(config):
        if entry.name in skip:
            continue
        said = ssh_g(config, entry.name)
        assert said["hostname"] == [entry.hostname]
        assert said["port"] == [str(entry.port)]
        assert said.get("proxyjump", [None]) == [entry.proxyjump]
        if entry.user is not None:
            assert said["user"] == [entry.user]
        if entry.identity_file is not None:
            assert said["identityfile"][0] == entry.identity_file


def test_hosts_without_wildcards_are_listed_in_order(config: Path) -> None:
    names = [entry.name for entry in list_hosts(config)]
    assert names == ["plain", "one", "two", "three", "bastion", "dev1"]


def test_an_entry_has_what_ssh_would_use(config: Path) -> None:
    assert get_host("plain", config) == HostEntry(
        "plain", "plain.example.org", "alice", 22, None, None, config
    )
    assert get_host("three", config) == HostEntry(
        "three", "three", "everyone", 2222, "bastion", "~/keys/with space", config
    )
    assert get_host("dev1", config).user == "wild"
    # "one" has a Match block, which only ssh can decide
    assert_as_ssh_says(config, "one")


def test_a_configuration_that_does_not_exist_has_no_hosts(tmp_path: Path) -> None:
    assert list_hosts(tmp_path / "none") == []


def test_an_unknown_host_is_refused(config: Path) -> None:
    for function in (get_host, remove_host, set_host):
        with pytest.raises(ConfigError, match="no host 'nosuch'"):
            function("nosuch", config)


def test_the_default_is_the_configuration_in_the_home_directory_of_passwd(
    ssh_directory: Path,
) -> None:
    add_host("new", hostname="new.example.org")
    assert list_hosts()[0].source == ssh_directory / "config"
    assert (ssh_directory / "config").stat().st_mode & 0o777 == 0o600
    assert ssh_directory.stat().st_mode & 0o777 == 0o700


# ---------------------------------------------------------------------- Include


def test_include_is_followed_nested_globbed_and_relative_to_ssh_directory(
    ssh_directory: Path,
) -> None:
    (ssh_directory / "d").mkdir(parents=True)
    (ssh_directory / "d" / "20.conf").write_text("Host late\n User second\n")
    (ssh_directory / "d" / "10.conf").write_text("Host early late\n User first\n")
    (ssh_directory / "deep").write_text('Include "d/*.conf" nothing/here\nHost deep\n')
    config = ssh_directory / "config"
    config.write_text(f"Include ~/.ssh/deep\nHost top\nInclude {ssh_directory}/d\n")
    entries = {entry.name: entry for entry in list_hosts()}
    assert list(entries) == ["early", "late", "deep", "top"]
    assert entries["late"].user == "first"
    assert entries["late"].source == ssh_directory / "d" / "10.conf"
    assert entries["deep"].source == ssh_directory / "deep"


def test_absolute_includes_are_read_as_ssh_reads_them(tmp_path: Path) -> None:
    config, shared = tmp_path / "config", tmp_path / "shared conf"
    shared.write_text("Port 7\nHost inc\n  HostName inc.example.org\n")
    config.write_text(f'Host inc other\n  Include "{shared}"\n  User u\nHost third\n  Port 8\n')
    assert [e.name for e in list_hosts(config)] == ["inc", "other", "third"]
    assert get_host("inc", config).hostname == "inc.example.org"
    assert [e.port for e in list_hosts(config)] == [7, 7, 8]
    assert_as_ssh_says(config)


def test_an_include_loop_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(f"Include {config}\n")
    with pytest.raises(ConfigError, match="16 deep"):
        list_hosts(config)


def test_an_unreadable_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        list_hosts(tmp_path)


def test_the_file_that_holds_the_entry_is_the_one_that_is_edited(tmp_path: Path) -> None:
    config, other = tmp_path / "config", tmp_path / "other"
    config.write_text(f"Include {other}\nHost a\n    Port 1\n")
    other.write_text("Host b\n    Port 2\n")
    set_host("b", config, port=3)
    assert other.read_text() == "Host b\n    Port 3\n"
    assert rename_host("b", "c", config).source == other
    remove_host("c", config)
    assert other.read_text() == ""
    assert config.read_text() == f"Include {other}\nHost a\n    Port 1\n"


# ---------------------------------------------------------------------- editing


def test_add_puts_the_host_before_wildcards_and_changes_nothing_else(config: Path) -> None:
    entry = add_host(
        "new.example.org", config, hostname="10.0.0.1", user="bob", port=2200, forward_agent=False
    )
    assert (entry.user, entry.port) == ("bob", 2200)
    new = """\
Host new.example.org
  HostName 10.0.0.1
  User bob
  Port 2200
  ForwardAgent no

"""
    text = config.read_text()
    assert text.replace(new, "") == MESSY
    # before Match, for that may set anything
    assert text.index("Host new") < text.index("Match originalhost")
    assert ssh_g(config, "new.example.org")["user"] == ["bob"]
    assert_as_ssh_says(config, "one")


def test_add_and_remove_give_back_the_same_bytes(config: Path) -> None:
    for name in ("new", "x.example.org"):
        add_host(name, config, hostname="h")
        remove_host(name, config)
        assert config.read_text() == MESSY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Host a\n  Port 1\n",
        "Host a\n  Port 1\n\n",
        "Host a\nHost *\n",
        "Host a\n\nHost *\n",
        "# c\nHost *\n",
        "# only a comment\n",
        "Host a\r\n  Port 1\r\n",
    ],
)
def test_add_at_the_end_and_remove_give_back_the_same_bytes(tmp_path: Path, text: str) -> None:
    config = tmp_path / "config"
    config.write_bytes(text.encode())
    add_host("new", config, hostname="h")
    assert ssh_g(config, "new")["hostname"] == ["h"]
    if "\r\n" in text:
        assert b"h\r\n" in config.read_bytes()
    remove_host("new", config)
    assert config.read_bytes() == text.encode()


def test_add_behind_a_last_line_without_newline(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host a\n  Port 1")
    add_host("new", config, port=2)
    assert config.read_text() == "Host a\n  Port 1\n\nHost new\n  Port 2\n"
    assert_as_ssh_says(config)


def test_set_changes_adds_and_removes_options_only(config: Path) -> None:
    set_host("bastion", config, hostname="b.example.org", proxy_jump=None, port=22)
    assert config.read_text() == MESSY.replace(
        "    ProxyJump none\n", "  HostName b.example.org\n  Port 22\n"
    )
    set_host("plain", config, HostName="other")
    assert "\n  HostName other\n" in config.read_text()
    assert 'user = "alice"   # the other account\n' in config.read_text()
    assert_as_ssh_says(config, "one")


def test_set_does_not_reach_into_the_match_block_behind(tmp_path: Path) -> None:
    config = tmp_path / "config"
    match = "\n# about the match\nMatch originalhost b\n  Port 9\n"
    config.write_text("Host a\n  Port 1\n" + match)
    set_host("a", config, user="u", port=2)
    assert config.read_text() == "Host a\n  Port 2\n  User u\n" + match
    remove_host("a", config)
    assert config.read_text() == match


def test_set_keeps_a_line_that_is_right_already(config: Path) -> None:
    set_host("plain", config, hostname="plain.example.org")
    assert config.read_text() == MESSY


def test_set_of_a_shared_host_leaves_the_others_alone(config: Path) -> None:
    entry = set_host("two", config, port=99)
    assert entry.port == 99
    assert get_host("one", config).port == get_host("three", config).port == 2222
    assert config.read_text().replace("Host two\n  Port 99\n", "") == MESSY
    set_host("two", config, port=98)
    assert get_host("two", config).port == 98
    assert_as_ssh_says(config, "one")
    with pytest.raises(ConfigError, match="shared"):
        set_host("one", config, port=None)


def test_several_values_give_several_lines_in_order(tmp_path: Path) -> None:
    config = tmp_path / "config"
    add_host("a", config, identity_file=["~/k1", "~/k 2", Path("/k3")])
    assert ssh_g(config, "a")["identityfile"] == ["~/k1", "~/k 2", "/k3"]
    set_host("a", config, IdentityFile=("~/k4", "~/k5"))
    assert ssh_g(config, "a")["identityfile"] == ["~/k4", "~/k5"]
    set_host("a", config, IdentityFile=["~/k6", "~/k7", "~/k8"])
    assert ssh_g(config, "a")["identityfile"] == ["~/k6", "~/k7", "~/k8"]


def test_remove_takes_every_block_of_the_host_and_its_name_from_shared_lines(
    tmp_path: Path,
) -> None:
    config = tmp_path / "config"
    config.write_text(
        "Host a\n Port 1\n\nHost b a c # s\n User u\nHost a\n User v\n# end\nHost d a\n"
    )
    remove_host("a", config)
    assert config.read_text() == "\nHost b c # s\n User u\n# end\nHost d\n"


def test_rename_keeps_options_comments_and_neighbours(config: Path) -> None:
    rename_host("three", "drei", config)
    rename_host("plain", "simple", config)
    assert config.read_text() == MESSY.replace('"three"', "drei").replace(
        "Host=plain", "Host=simple"
    )
    assert get_host("drei", config).port == 2222


def test_every_byte_of_other_lines_survives(tmp_path: Path) -> None:
    config = tmp_path / "config"
    odd = "# caf\xe9 \x85 \x0c \x1c".encode("latin-1") + b"\xff\r\n\n \t \nHost x\n\tPort\t5  \n"
    config.write_bytes(odd)
    add_host("new", config, user="u")
    assert config.read_bytes().startswith(odd)
    remove_host("new", config)
    assert config.read_bytes() == odd


def test_a_thousand_hosts_are_listed_quickly_and_right(tmp_path: Path) -> None:
    config = tmp_path / "config"
    text = "".join(f"Host n{i}\n  HostName 10.0.0.{i}\n" for i in range(2000))
    config.write_text("Host n1*\n  User first\n" + text + "Host *\n  User all\n")
    entries = list_hosts(config)
    assert len(entries) == 2000
    assert [e.user for e in entries[:3]] == ["all", "first", "all"]


# ---------------------------------------------------------------------- refusals

BAD_NAMES = [
    "-oProxyCommand=x",
    "",
    "a b",
    "a\tb",
    "a\nb",
    "a;b",
    "$(id)",
    "*",
    "a?",
    "!a",
    '"a"',
    "#a",
    "é",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_impossible_names_are_refused(config: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a host's name"):
        add_host(name, config, hostname="x")
    with pytest.raises(ConfigError, match="cannot be a host's name"):
        rename_host("plain", name, config)
    assert config.read_text() == MESSY


@pytest.mark.parametrize(
    "options",
    [
        {"user": "a\nHost *"},
        {"user": "a\rb"},
        {"user": ""},
        {"user": " "},
        {"hostname": 'a"b'},
        {"user name": "a"},
        {"user=": "a"},
        {"host": "b"},
        {"Include": "/etc/passwd"},
        {"match": "all"},
        {"no_such_option": "x"},
        {"port": "many"},
    ],
)
def test_impossible_options_are_refused_and_nothing_is_changed(
    config: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError):
        add_host("new", config, **options)
    with pytest.raises(ConfigError):
        set_host("plain", config, **options)
    assert config.read_text() == MESSY
    assert [path.name for path in config.parent.iterdir()] == ["config"]


def test_ssh_s_own_words_are_in_the_message(config: Path) -> None:
    with pytest.raises(ConfigError, match=r"line \d+: Bad configuration option: nosuchoption"):
        add_host("new", config, no_such_option="x")


def test_a_name_that_is_taken_is_refused(config: Path) -> None:
    with pytest.raises(ConfigError, match="already"):
        add_host("two", config)
    with pytest.raises(ConfigError, match="already"):
        rename_host("plain", "two", config)
    assert config.read_text() == MESSY


def test_an_option_that_an_earlier_line_overrides_is_refused(config: Path) -> None:
    with pytest.raises(ConfigError, match="line 2 comes first and sets Compression to yes"):
        add_host("new", config, compression="no")
    with pytest.raises(ConfigError, match="comes first and sets User to wild"):
        set_host("dev1", config, user="me")
    assert config.read_text() == MESSY


# ---------------------------------------------------------------------- writing


def test_the_mode_and_a_symbolic_link_stay(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles" / "sshconfig"
    real.parent.mkdir()
    real.write_text("")
    real.chmod(0o640)
    config = tmp_path / "config"
    config.symlink_to("dotfiles/sshconfig")
    add_host("new", config, user="u")
    assert config.is_symlink()
    assert "Host new" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640
    assert os.listdir(real.parent) == ["sshconfig"]


def test_a_failed_write_leaves_the_file_as_it_was(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ConfigError, match="No space left"):
        add_host("new", config, user="u")
    assert config.read_text() == MESSY
    assert os.listdir(config.parent) == ["config"]


def test_a_file_that_someone_else_changed_meanwhile_is_not_overwritten(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync: Callable[[int], None] = os.fsync

    def meanwhile(fd: int) -> None:
        config.write_text("Host theirs\n")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", meanwhile)
    with pytest.raises(ConfigError, match="try again"):
        add_host("new", config, user="u")
    assert config.read_text() == "Host theirs\n"


def test_a_fault_that_was_there_before_does_not_stop_an_edit(config: Path) -> None:
    config.write_text("NoSuchOption x\n" + MESSY)
    add_host("new", config, user="u")
    assert re.search(r"^Host new$", config.read_text(), re.MULTILINE)
