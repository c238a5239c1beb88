from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from pytest_subprocess import FakeProcess

from holdfast.errors import ConfigError
from holdfast.openssh import version
from holdfast.openssh.version import Feature, Version, parse_version
from holdfast.testing import fake_ssh


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.17 1 Jul 2025", Version(9, 2)),
        ("OpenSSH_7.4p1, OpenSSL 1.0.2k-fips  26 Jan 2017", Version(7, 4)),
        ("OpenSSH_8.0p1, OpenSSL 1.1.1k  FIPS 25 Mar 2021", Version(8, 0)),
        ("OpenSSH_for_Windows_8.1p1, LibreSSL 3.0.2", Version(8, 1)),
        ("OpenSSH_for_Windows_9.5p1, LibreSSL 3.8.2", Version(9, 5)),
        ("OpenSSH_10.0p2 Debian-5, OpenSSL 3.5.0 8 Apr 2025", Version(10, 0)),
        ("OpenSSH_9.9p2, LibreSSL 3.3.6", Version(9, 9)),  # macOS
        ("OpenSSH_8.6p1, LibreSSL 3.3.6\n", Version(8, 6)),  # macOS
        ("OpenSSH_6.6.1p1 Ubuntu-2ubuntu2, OpenSSL 1.0.1f", Version(6, 6)),
        ("warning: something\nOpenSSH_9.6p1 Ubuntu-3ubuntu13", Version(9, 6)),
        ("OpenSSH_9.3", Version(9, 3)),  # OpenBSD's own
    ],
)
def test_what_ssh_says_of_itself_is_read(text: str, found: Version) -> None:
    assert parse_version(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "Dropbear v2022.83",
        "plink: Release 0.78",
        "PuTTY Secure Copy client",
        "ssh: usage",
    ],
)
def test_what_is_not_openssh_is_refused_with_what_to_install(text: str) -> None:
    with pytest.raises(ConfigError, match="not OpenSSH; install it") as caught:
        parse_version(text)
    assert (text.strip() or "nothing") in str(caught.value)


def test_versions_are_ordered_by_number_and_not_by_letter() -> None:
    assert Version(9, 2) < Version(9, 10) < Version(10, 0)
    assert str(Version(10, 0)) == "10.0"


@pytest.mark.parametrize(
    ("text", "able", "unable"),
    [
        ("OpenSSH_5.3p1", [Feature.MULTIPLEXING], [Feature.MUX_PROTOCOL_4, Feature.PRINT_CONFIG]),
        (
            "OpenSSH_7.4p1",
            [Feature.MUX_PROTOCOL_4, Feature.CONTROL_PERSIST, Feature.PRINT_CONFIG],
            [Feature.ACCEPT_NEW_HOST_KEYS, Feature.SCP_LEGACY_FLAG, Feature.SCP_OVER_SFTP],
        ),
        ("OpenSSH_8.7p1", [Feature.SCP_LEGACY_FLAG], [Feature.SCP_OVER_SFTP]),
        ("OpenSSH_9.2p1", list(Feature), []),
        ("OpenSSH_10.0p2", list(Feature), []),
    ],
)
def test_the_table_tells_what_a_version_can_do(
    text: str, able: list[Feature], unable: list[Feature]
) -> None:
    found = parse_version(text)
    assert [feature for feature in able if not feature.in_version(found)] == []
    assert [feature for feature in unable if feature.in_version(found)] == []


def test_the_oldest_supported_client_can_all_that_sharing_needs() -> None:
    for feature in (Feature.MUX_PROTOCOL_4, Feature.CONTROL_PERSIST, Feature.PRINT_CONFIG):
        assert feature.in_version(version.OLDEST)


@pytest.mark.parametrize(
    ("name", "package"),
    [("ssh", "openssh-client"), ("scp", "openssh-clients"), ("rsync", "install rsync")],
)
def test_a_missing_program_is_told_in_one_sentence_with_its_package(
    name: str, package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=package) as caught:
        version.find_program(name)
    assert str(caught.value).startswith(f"{name} was not found")
    assert "\n" not in str(caught.value)


def test_a_program_is_found_by_absolute_path(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_ssh(tmp_path, "exit 0")
    monkeypatch.chdir(tmp_path)
    assert version.find_program("./ssh") == str(tmp_path / "ssh")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert version.find_program("ssh") == str(tmp_path / "ssh")


def test_the_version_is_asked_once_until_the_file_changes(tmp_path: Path) -> None:
    count = tmp_path / "count"
    path = fake_ssh(tmp_path, f"echo x >>{count}; echo OpenSSH_9.2p1 >&2")
    assert version.installed_version(str(path)) == Version(9, 2)
    assert version.installed_version(str(path)) == Version(9, 2)
    assert count.read_text() == "x\n"
    path = fake_ssh(tmp_path, "echo OpenSSH_10.0p2 >&2")
    os.utime(path, (1, 1))
    assert version.installed_version(str(path)) == Version(10, 0)


def test_an_ssh_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ssh"
    with pytest.raises(ConfigError, match="cannot be run: No such file"):
        version.installed_version(str(path))
    path.write_text("")
    path.chmod(stat.S_IRUSR)
    with pytest.raises(ConfigError, match="cannot be run: Permission denied"):
        version.installed_version(str(path))


def test_an_ssh_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "_TIMEOUT", 0.2)
    path = fake_ssh(tmp_path, "exec sleep 30")
    with pytest.raises(ConfigError, match="gave no answer"):
        version.installed_version(str(path))


def test_a_good_ssh_can_share(tmp_path: Path) -> None:
    path = fake_ssh(tmp_path, 'test "$1" = -V && echo OpenSSH_9.2p1 >&2; exit 0')
    assert version.why_no_multiplexing(str(path)) is None


def test_an_ssh_that_is_too_old_or_refuses_the_options_cannot_share(tmp_path: Path) -> None:
    old = fake_ssh(tmp_path, "echo OpenSSH_5.3p1 >&2", name="old")
    assert "older than 5.4" in (version.why_no_multiplexing(str(old)) or "")
    script = 'test "$1" = -V && { echo OpenSSH_9.2p1 >&2; exit 0; }; echo no mux here >&2; exit 255'
    built = fake_ssh(tmp_path, script, name="built")
    assert "no mux here" in (version.why_no_multiplexing(str(built)) or "")


def test_the_probe_for_sharing_reads_no_configuration(fp: FakeProcess, tmp_path: Path) -> None:
    path = str(fake_ssh(tmp_path, "exit 0"))
    fp.register([path, "-V"], stdout=b"OpenSSH_9.2p1")
    probe = [path, "-F", "none", "-o", "ControlMaster=auto", "-o", "ControlPersist=yes"]
    probe += ["-o", "ControlPath=/x", "-G", "h"]
    fp.register(probe)
    assert version.why_no_multiplexing(path) is None
    assert [list(call) for call in fp.calls] == [[path, "-V"], probe]
