"""The drop-in makes plain ssh share connections, the user's own settings win, and it can be undone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast import ssh_config_file, ssh_include
from holdfast.errors import ConfigError
from holdfast.ssh_include import (
    drop_in,
    install,
    is_installed,
    plan_install,
    plan_uninstall,
    uninstall,
)
from holdfast.testing import LocalSshd

ADDED = """\
# Shared connections. Keep this last; holdfast config uninstall takes it out.
Match all
Include ~/.ssh/holdfast.conf
"""


def ssh_g(config: Path, name: str = "host") -> dict[str, str]:
    if shutil.which("ssh") is None:
        pytest.skip("no ssh")
    done = subprocess.run(["ssh", "-G", "-F", config, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(line.partition(" ")[::2] for line in done.stdout.splitlines())


@pytest.fixture
def config(runtime_dir: Path) -> Path:
    """A configuration in a directory whose name is short enough for sockets."""
    directory = runtime_dir / "ssh"
    directory.mkdir(mode=0o700)
    return directory / "config"


@pytest.mark.parametrize(
    "text", ["", "Host a\n  Port 5\n", "Host a\n  Port 5", "Match user nobody\n  Port 5\n"]
)
def test_every_host_shares_connections(config: Path, text: str) -> None:
    config.write_text(text)
    install(config).apply()
    for name in ("a", "b"):
        said = ssh_g(config, name)
        assert said["controlmaster"] == "auto"
        assert said["controlpersist"] == "600"
        assert Path(said["controlpath"]).parent == config.parent / "holdfast"
        assert len(said["controlpath"]) <= 86
        assert (said["serveraliveinterval"], said["serveralivecountmax"]) == ("15", "3")
        assert said["port"] == ("5" if name == "a" and text.startswith("Host") else "22")
    assert ssh_g(config, "a")["controlpath"] != ssh_g(config, "b")["controlpath"]


def test_the_user_s_own_settings_win_wherever_they_stand(config: Path) -> None:
    config.write_text(
        "ServerAliveInterval 7\n"
        "Host off\n  ControlPath none\n"
        "Host no\n  ControlMaster no\n"
        "Host *.org\n  ControlPath /tmp/mine-%C\n  ControlPersist 5m\n"
        "Match originalhost matched\n  ControlMaster ask\n"
        "Host *\n  ControlPersist 30\n"
    )
    install(config).apply()
    assert "controlpath" not in ssh_g(config, "off")
    assert ssh_g(config, "no")["controlmaster"] == "false"
    assert ssh_g(config, "x.org")["controlpath"].startswith("/tmp/mine-")
    assert ssh_g(config, "x.org")["controlpersist"] == "300"
    assert ssh_g(config, "matched")["controlmaster"] == "ask"
    other = ssh_g(config, "other")
    assert (other["controlpersist"], other["serveraliveinterval"]) == ("30", "7")
    assert (other["controlmaster"], other["serveralivecountmax"]) == ("auto", "3")


def test_nothing_happens_before_apply_and_the_diff_says_what_will(config: Path) -> None:
    config.write_text("Host a\n  Port 5\n")
    plan = install(config)
    assert plan
    assert sorted(os.listdir(config.parent)) == ["config"]
    assert f"+Include {config.parent}/holdfast.conf\n" in plan.diff()
    assert "+ControlMaster auto\n" in plan.diff()
    assert "\n-" not in plan.diff().replace("\n---", "")
    plan.apply()
    assert not install(config)
    assert install(config).diff() == ""


@pytest.mark.parametrize("text", [None, "Host a\n", "Host a", "\n", "# caf\xe9 \r\n\r\nHost b\r\n"])
def test_uninstall_gives_back_what_was_there(config: Path, text: str | None) -> None:
    if text is not None:
        config.write_bytes(text.encode("latin-1"))
        config.chmod(0o640)
    assert not is_installed(config)
    install(config).apply()
    assert is_installed(config)
    uninstall(config).apply()
    assert not is_installed(config)
    if text is None:
        assert os.listdir(config.parent) == []
    else:
        assert os.listdir(config.parent) == ["config"]
        assert config.read_bytes() == text.encode("latin-1")
        assert config.stat().st_mode & 0o777 == 0o640
    assert not uninstall(config)


def test_modes_are_private(config: Path) -> None:
    install(config).apply()
    for name, mode in (("config", 0o600), ("holdfast.conf", 0o600), ("holdfast", 0o700)):
        assert (config.parent / name).stat().st_mode & 0o777 == mode


def test_the_default_is_in_the_home_directory_with_paths_that_hold_on_every_machine(
    monkeypatch: pytest.MonkeyPatch, runtime_dir: Path
) -> None:
    home = runtime_dir / "home"
    home.mkdir()
    monkeypatch.setattr(ssh_config_file, "home_directory", lambda: home)
    install().apply()
    assert (home / ".ssh").stat().st_mode & 0o777 == 0o700
    assert (home / ".ssh" / "config").read_text() == ADDED
    assert (home / ".ssh" / "holdfast.conf").read_text() == drop_in()
    assert "\nControlPath ~/.ssh/holdfast/%C\n" in drop_in()
    uninstall().apply()
    assert os.listdir(home / ".ssh") == []


def test_a_path_with_blanks_and_percent_signs_is_quoted(runtime_dir: Path) -> None:
    directory = runtime_dir / "a %C b"
    directory.mkdir()
    install(directory / "config").apply()
    assert ssh_g(directory / "config")["controlpath"].startswith(f"{directory}/holdfast/")
    uninstall(directory / "config").apply()
    assert os.listdir(directory) == []


def test_a_path_that_ssh_cannot_include_is_refused(runtime_dir: Path) -> None:
    with pytest.raises(ConfigError, match="cannot include"):
        install(runtime_dir / "a*b" / "config")


def test_a_home_with_too_long_a_name_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    directory = tmp_path / ("long" * 20)
    directory.mkdir()
    with pytest.raises(ConfigError, match="86"):
        install(directory / "config")
    assert os.listdir(directory) == []


def test_a_filesystem_without_sockets_is_refused_and_the_configuration_untouched(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config.write_text("Host a\n")

    def fail(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(ConfigError, match="cannot hold control sockets"):
        install(config).apply()
    assert config.read_text() == "Host a\n"
    assert not (config.parent / "holdfast.conf").exists()


def test_a_socket_directory_that_others_planted_is_refused(config: Path, tmp_path: Path) -> None:
    (config.parent / "holdfast").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="own"):
        install(config).apply()


def test_a_linked_configuration_stays_a_link(config: Path) -> None:
    real = config.with_name("dotfile")
    real.write_text("")
    config.symlink_to("dotfile")
    install(config).apply()
    assert config.is_symlink()
    assert "Match all" in real.read_text()
    uninstall(config).apply()
    assert config.is_symlink()
    assert real.read_text() == ""


def test_the_drop_in_is_found_in_an_installed_package_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    package = tmp_path / "site-packages" / "holdfast"
    (package / "ssh_config.d").mkdir(parents=True)
    (package / "ssh_config.d" / "holdfast.conf").write_text("from the wheel\n")
    monkeypatch.setattr(ssh_include, "__file__", str(package / "ssh_include.py"))
    assert drop_in() == "from the wheel\n"
    shutil.rmtree(package / "ssh_config.d")
    with pytest.raises(ConfigError, match="reinstall"):
        drop_in()


@pytest.mark.sshd
def test_plain_ssh_logs_in_once_for_many_commands(local_sshd: LocalSshd, config: Path) -> None:
    config.write_text(Path(local_sshd.config_file).read_text())
    install(config).apply()
    try:
        for _ in range(3):
            # Files, not pipes: the master that the first one leaves behind must not hold ours.
            subprocess.run(
                ["ssh", "-F", config, local_sshd.host, "true"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=True,
            )
        (config.parent / "file").write_text("x")
        scp = [
            "scp",
            "-q",
            "-F",
            str(config),
            str(config.parent / "file"),
            f"{local_sshd.host}:copy",
        ]
        subprocess.run(scp, check=True, stdin=subprocess.DEVNULL)
        assert (local_sshd.home / "copy").read_text() == "x"
        assert local_sshd.logins() == 1
    finally:
        local_sshd.stop()


# ---------------------------------------------------------------------- the pure functions


def test_settings_added_below_stay_for_all_hosts() -> None:
    text = "Host a\n  Port 5\n"
    added_to = plan_install(text) + "# mine\nUser u\nHost b\n"
    assert plan_uninstall(added_to) == text + "Match all\n# mine\nUser u\nHost b\n"
    assert plan_install(added_to) == plan_uninstall(added_to) + ADDED


def test_our_lines_move_to_the_end_when_blocks_were_added_below() -> None:
    text = plan_install("Host a\n") + "Host b\n  ControlPath none\n"
    assert plan_install(text) == "Host a\nHost b\n  ControlPath none\n" + ADDED


LINES = st.sampled_from(
    [
        *ADDED.splitlines(),
        "",
        "  ",
        "# comment",
        "Host a b",
        "Host *",
        "Match host x",
        "  User u",
        "Include other",
        "\xe9\udcff\x85\x0c",
    ]
)
ENDS = st.sampled_from(["\n", "\r\n"])
TEXTS = st.builds(
    lambda lines, last: "".join(line + end for line, end in lines) + last,
    st.lists(st.tuples(LINES, ENDS), max_size=12),
    st.sampled_from(["", "  User u", "Match all", "x\r"]),
)


@given(TEXTS)
@example("")
@example("x")
@example("\n")
def test_uninstall_undoes_install_byte_for_byte(text: str) -> None:
    installed = plan_install(text)
    if plan_uninstall(text) == text:  # ours were not in it
        assert plan_uninstall(installed) == text
    assert installed.rstrip("\n").endswith(ADDED.rstrip("\n"))


@given(TEXTS)
def test_install_and_uninstall_are_idempotent(text: str) -> None:
    assert plan_install(plan_install(text)) == plan_install(text)
    assert plan_uninstall(plan_uninstall(text)) == plan_uninstall(text)


@given(st.text())
def test_install_can_be_undone_for_any_text(text: str) -> None:
    assert plan_uninstall(plan_install(text)) == text
