from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import ConfigError
from holdfast.settings import _TYPES, VARIABLES, Settings, config_path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_every_value_has_a_default(file: Path) -> None:
    assert Settings.load(environ={}, file=file) == Settings()
    assert (Settings().fallback, Settings().keepalive_interval) == ("plain", 15)


def test_an_argument_beats_a_variable_beats_the_file(file: Path) -> None:
    file.write_text("control_persist = 1\nlogin_timeout = 1\nsession_timeout = 1\n")
    environ = {"HOLDFAST_SSH_CONTROL_PERSIST": "2", "HOLDFAST_LOGIN_TIMEOUT": "2.5"}
    found = Settings.load(environ=environ, file=file, control_persist=3)
    assert (found.control_persist, found.login_timeout, found.session_timeout) == (3, 2.5, 1.0)


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_every_variable_is_read(name: str, file: Path) -> None:
    text, value = {
        "ssh": ("/opt/ssh", "/opt/ssh"),
        "fallback": ("never", "never"),
        "runtime_dir": ("/run/x", "/run/x"),
        "control_persist": ("0", 0),
        "track_processes": ("no", False),
        "ready_sessions": ("off", "off"),
    }.get(name, ("2.5", 2.5))
    assert getattr(Settings.load(environ={VARIABLES[name]: text}, file=file), name) == value


def test_an_empty_variable_is_none(file: Path) -> None:
    environ = dict.fromkeys(VARIABLES.values(), "")
    assert Settings.load(environ=environ, file=file) == Settings()


def test_all_settings_have_a_type() -> None:
    assert sorted(_TYPES) == sorted(field.name for field in fields(Settings))
    assert set(VARIABLES) <= set(_TYPES)


def test_the_file_is_where_xdg_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    default = Path("/home/alice/.config/holdfast/config.toml")
    assert config_path({}) == config_path({"XDG_CONFIG_HOME": "relative"}) == default
    assert config_path({"XDG_CONFIG_HOME": "/etc/x"}) == Path("/etc/x/holdfast/config.toml")


def test_the_file_is_read_from_there(tmp_path: Path) -> None:
    path = tmp_path / "holdfast" / "config.toml"
    path.parent.mkdir()
    path.write_text('# a comment\nssh = "/opt/ssh"\nkeepalive_count = 5\n')
    found = Settings.load(environ={"XDG_CONFIG_HOME": str(tmp_path)})
    assert (found.ssh, found.keepalive_count) == ("/opt/ssh", 5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("control_persist = 'soon'", "control_persist = 'soon' is not a int"),
        ("control_persist = true", "control_persist"),
        ("control_persist = 1.5", "control_persist"),
        ("ssh = 5", "ssh = 5 is not a str"),
        ("login_timeout = []", "login_timeout"),
        ("nonsense = 1", "no setting 'nonsense'; there are ssh, control_persist"),
        ("[section]\nx = 1", "no setting 'section'"),
        ("broken", "Expected '='"),
        ("a = 1\na = 2", "overwrite"),
    ],
)
def test_a_bad_file_is_told_with_its_name(file: Path, text: str, words: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Settings.load(environ={}, file=file)
    assert str(file) in str(caught.value)
    assert words in str(caught.value)


def test_a_file_that_is_no_text_is_told(file: Path) -> None:
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"config\.toml"):
        Settings.load(environ={}, file=file)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOLDFAST_SSH_CONTROL_PERSIST", "10m"),
        ("HOLDFAST_SSH_CONTROL_PERSIST", "1.5"),
        ("HOLDFAST_LOGIN_TIMEOUT", "soon"),
        ("HOLDFAST_SESSION_TIMEOUT", "1,5"),
    ],
)
def test_a_bad_variable_is_told_with_its_name(variable: str, value: str, file: Path) -> None:
    with pytest.raises(ConfigError, match=variable) as caught:
        Settings.load(environ={variable: value}, file=file)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HOLDFAST_SSH_CONTROL_PERSIST", "-1"),
        ("HOLDFAST_LOGIN_TIMEOUT", "0"),
        ("HOLDFAST_LOGIN_TIMEOUT", "-5"),
        ("HOLDFAST_LOGIN_TIMEOUT", "nan"),
        ("HOLDFAST_LOGIN_TIMEOUT", "inf"),
        ("HOLDFAST_SSH_FALLBACK", "maybe"),
    ],
)
def test_a_value_out_of_range_is_refused(variable: str, value: str, file: Path) -> None:
    with pytest.raises(ConfigError):
        Settings.load(environ={variable: value}, file=file)


@pytest.mark.parametrize(
    "arguments",
    [
        {"nonsense": 1},
        {"login_timeout": "5"},
        {"login_timeout": None},
        {"login_timeout": True},
        {"control_persist": "600"},
        {"control_persist": 1.5},
        {"keepalive_interval": None},
        {"keepalive_count": -1},
        {"fallback": None},
        {"fallback": "Plain"},
    ],
)
def test_a_bad_argument_is_a_config_error(arguments: dict[str, Any], file: Path) -> None:
    with pytest.raises(ConfigError):
        Settings.load(environ={}, file=file, **arguments)


def test_settings_are_frozen_and_a_key() -> None:
    assert len({Settings(), Settings()}) == 1
    with pytest.raises(FrozenInstanceError):
        Settings().ssh = "x"  # type: ignore[misc]
