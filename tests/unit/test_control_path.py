from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError
from holdfast.openssh import config, control_path
from holdfast.openssh.options import Options

as_root = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to give files away")


# --- the runtime directory ------------------------------------------------------------------


def test_the_chosen_directory_is_made_private(short_path: Path) -> None:
    chosen = short_path / "a" / "b"
    assert control_path.runtime_directory(str(chosen)) == chosen
    assert stat.S_IMODE(chosen.stat().st_mode) == 0o700
    assert control_path.runtime_directory(str(chosen)) == chosen


def test_a_chosen_directory_must_be_absolute() -> None:
    for chosen in ("relative", "./x", "~nosuchuser/x"):
        with pytest.raises(ConfigError, match="not an absolute path"):
            control_path.runtime_directory(chosen)


def test_a_tilde_is_the_home(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(short_path))
    assert control_path.runtime_directory("~/run") == short_path / "run"


def test_xdg_runtime_dir_is_used_where_it_is_ours(short_path: Path) -> None:
    found = control_path.runtime_directory(environ={"XDG_RUNTIME_DIR": str(short_path)})
    assert found == short_path / "holdfast"


@pytest.mark.parametrize("value", [None, "", "relative", "/no/such/directory"])
def test_tmp_is_used_where_there_is_no_xdg_runtime_dir(
    value: object, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = short_path / "short"
    monkeypatch.setattr(control_path, "short_directory", lambda: short)
    environ = {} if value is None else {"XDG_RUNTIME_DIR": str(value)}
    assert control_path.runtime_directory(environ=environ) == short


@as_root
def test_an_xdg_runtime_dir_of_somebody_else_is_not_used(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = short_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, 12345, 12345)
    monkeypatch.setattr(control_path, "short_directory", lambda: short_path / "short")
    found = control_path.runtime_directory(environ={"XDG_RUNTIME_DIR": str(theirs)})
    assert found == short_path / "short"


def test_the_short_directory_names_the_user() -> None:
    assert control_path.short_directory() == Path(f"/tmp/holdfast-{os.getuid()}")


def test_a_symbolic_link_is_refused(short_path: Path) -> None:
    (short_path / "real").mkdir(mode=0o700)
    for target in ("real", "nowhere"):
        link = short_path / f"to-{target}"
        link.symlink_to(short_path / target)
        with pytest.raises(ConfigError, match="is a symbolic link"):
            control_path.runtime_directory(str(link))


@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777, 0o702, 0o720])
def test_a_directory_that_others_may_write_is_refused(short_path: Path, mode: int) -> None:
    path = short_path / "open"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(ConfigError, match="is writable by others"):
        control_path.runtime_directory(str(path))


def test_a_file_is_refused(short_path: Path) -> None:
    (short_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is not a directory"):
        control_path.runtime_directory(str(short_path / "file"))
    with pytest.raises(ConfigError, match="cannot be made: Not a directory"):
        control_path.runtime_directory(str(short_path / "file" / "below"))


@as_root
def test_a_directory_of_another_user_is_refused(short_path: Path) -> None:
    path = short_path / "theirs"
    path.mkdir(mode=0o700)
    os.chown(path, 12345, 12345)
    with pytest.raises(ConfigError, match=r"belongs to another user \(uid 12345\)"):
        control_path.runtime_directory(str(path))


def test_every_refusal_says_what_to_do(short_path: Path) -> None:
    (short_path / "file").write_text("")
    with pytest.raises(ConfigError, match="HOLDFAST_RUNTIME_DIR"):
        control_path.runtime_directory(str(short_path / "file"))


# --- names ----------------------------------------------------------------------------------

PURPOSES = ["main", "watcher", "download", "monitor", "m", "x" * 31]


@given(st.integers(1, 200), st.sampled_from(PURPOSES), st.integers(0, 99))
def test_every_control_path_fits_whatever_the_runtime_directory(
    length: int, purpose: str, slot: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(control_path, "private_directory", lambda path: path)
        runtime = Path("/" + "r" * length)
        name = control_path.socket_name("c" * 12, purpose, slot)
        path = str(control_path.socket_directory(runtime) / name)
    assert len(os.fsencode(path)) <= 86 == control_path.MAX_LENGTH
    assert control_path.fits(path)
    # The directory itself is used as long as it can be.
    if len(str(runtime / name)) <= 80:
        assert path == str(runtime / name)


@pytest.mark.parametrize("name", ["a b", "a%h", "a${HOME}", "a'b", 'a"b', "a\\b", "a#b", "a\tb"])
def test_sockets_go_where_no_program_reads_anything_into_the_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_path, "private_directory", lambda path: path)
    found = control_path.socket_directory(Path("/run") / name)
    assert found.parent == control_path.short_directory()
    assert "holds a space" in str(control_path.why_unusable(f"/run/{name}/s"))


@pytest.mark.parametrize("name", ["user/1000/holdfast", "a~b", "a@b:22", "a+b,c=d", "é"])
def test_plain_names_are_kept(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_path, "private_directory", lambda path: path)
    assert control_path.socket_directory(Path("/run") / name) == Path("/run") / name


def test_the_length_is_counted_in_bytes() -> None:
    assert control_path.fits("/" + "x" * 85)
    assert not control_path.fits("/" + "x" * 86)
    assert not control_path.fits("/" + "é" * 43)


def test_two_long_runtime_directories_have_different_socket_directories(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control_path, "private_directory", lambda path: path)
    paths = [control_path.socket_directory(Path("/" + letter * 100)) for letter in "ab"]
    assert paths[0] != paths[1]
    assert paths[0] == control_path.socket_directory(Path("/" + "a" * 100))


def test_names_are_stable_and_tell_purposes_and_slots_apart() -> None:
    names = {
        control_path.socket_name("k" * 12, purpose, slot)
        for purpose in PURPOSES
        for slot in (0, 1, 10)
    }
    assert len(names) == len(PURPOSES) * 3
    assert control_path.socket_name("k", "main") == control_path.socket_name("k", "main")


def test_names_are_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "login1")
    name = control_path.socket_name("k" * 12, "main")
    assert control_path.of_this_host(name)
    monkeypatch.setattr(socket, "gethostname", lambda: "login2")
    assert not control_path.of_this_host(name)
    assert control_path.socket_name("k" * 12, "main") != name


def _key(text: str, config_file: str = "", **options: str) -> str:
    return control_path.connection_key(config.parse(text), Options.of(**options), config_file)


BASE = "user alice\nhostname h\nport 22\nidentityfile /a\nproxyjump none"


@pytest.mark.parametrize(
    "other",
    [
        BASE.replace("alice", "bob"),
        BASE.replace("hostname h", "hostname i"),
        BASE.replace("22", "23"),
        BASE.replace("/a", "/b"),
        BASE + "\nidentityfile /b",
        BASE.replace("proxyjump none", "proxyjump gate"),
        BASE + "\nproxycommand nc %h %p",
        BASE + "\ncertificatefile /c",
        BASE + "\nidentityagent /agent",
        BASE + "\nidentitiesonly yes",
        BASE + "\nhostkeyalias x",
        BASE + "\npkcs11provider /p",
        BASE + "\npreferredauthentications password",
        BASE + "\nuserknownhostsfile /k",
        BASE + "\nstricthostkeychecking no",
        BASE + "\nbindaddress 10.0.0.1",
    ],
)
def test_the_key_changes_with_each_thing_that_decides_the_connection(other: str) -> None:
    assert _key(other) != _key(BASE)


def test_the_key_is_twelve_stable_characters() -> None:
    assert _key(BASE) == _key(BASE + "\nloglevel DEBUG\nsendenv LANG")
    assert len(_key(BASE)) == 12
    assert _key(BASE, config_file="/f") != _key(BASE)
    assert _key(BASE, Compression="yes") != _key(BASE)
    both = [
        control_path.connection_key(config.parse(BASE), Options.from_mapping(dict(items)), None)
        for items in ([("A", "1"), ("B", "2")], [("B", "2"), ("A", "1")])
    ]
    assert both[0] == both[1]


# --- the user's own ControlPath -------------------------------------------------------------


def test_a_usable_path_of_the_user_has_no_objection(short_path: Path) -> None:
    assert control_path.why_unusable(str(short_path / "cm-alice@h:22")) is None


def test_an_unusable_path_of_the_user_is_told_why(short_path: Path) -> None:
    short_path.chmod(0o777)
    assert "writable by others" in str(control_path.why_unusable(str(short_path / "s")))
    assert "not absolute" in str(control_path.why_unusable("s"))
    assert "longer" in str(control_path.why_unusable("/" + "x" * 90))
    assert "cannot be examined" in str(control_path.why_unusable("/no/such/s"))


def test_where_sockets_can_be_made_they_are_made_and_removed(short_path: Path) -> None:
    assert control_path.can_hold_sockets(short_path)
    assert list(short_path.iterdir()) == []
    assert not control_path.can_hold_sockets(short_path / "none")


# --- filesystems ----------------------------------------------------------------------------

MOUNTS = r"""22 28 0:20 / /proc rw,nosuid - proc proc rw
28 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 28 0:25 / /run rw,nosuid shared:5 - tmpfs tmpfs rw,size=1g
31 30 0:26 / /run/user/1000 rw - tmpfs tmpfs rw
40 28 0:40 / /home rw,relatime shared:9 master:2 - nfs4 server:/home rw,vers=4.2
41 28 0:41 / /with\040space rw - lustre mgs@tcp:/fs rw
42 28 0:42 / /back\134slash rw - gpfs gpfs rw
43 28 0:43 / /mnt/é rw - fuse.sshfs x rw
44 28 0:44 / /over rw - ext4 /dev/sdb rw
45 28 0:45 / /over rw - nfs server:/over rw
broken line
46 28 0:46 / /no-separator rw ext4
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/tmp/x", "ext4"),
        ("/run/user/1000/holdfast", "tmpfs"),
        ("/home/alice/.ssh", "nfs4"),
        ("/home", "nfs4"),
        ("/homes/alice", "ext4"),
        ("/with space/x", "lustre"),
        ("/back\\slash/x", "gpfs"),
        ("/mnt/é/x", "fuse.sshfs"),
        ("/over/x", "nfs"),  # the later mount lies on top
        ("/no-separator/x", "ext4"),
    ],
)
def test_the_filesystem_of_a_path_is_found(path: str, kind: str) -> None:
    assert control_path._filesystem(MOUNTS, path) == kind


def test_a_mount_point_that_is_no_utf8_is_survived() -> None:
    line = os.fsdecode(b"43 28 0:43 / /mnt/\xff rw - nfs x rw")
    assert control_path._filesystem(line, os.fsdecode(b"/mnt/\xff/x")) == "nfs"


def test_no_filesystem_is_not_local(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(control_path, "_filesystem", lambda mounts, path: "")
    assert not control_path.on_local_filesystem(tmp_path)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not control_path.on_local_filesystem(tmp_path)
