"""Files and directories with every name that a file can have, there and back, byte for byte."""

from __future__ import annotations

import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Union

import pytest

import holdfast

if TYPE_CHECKING:
    from tests.docker.conftest import Connect, StartServer

    from holdfast.openssh.login_ledger import LoginLedger

NAMES = [
    "plain",
    "two  words",
    " leading and trailing ",
    "it's",
    '"double"',
    "-rf",
    "--",
    "-o ProxyCommand=x",
    "a:b",
    "alice@host:x",
    ":",
    "*",
    "?",
    "[a-z]",
    "[",
    "{a,b}",
    "back\\slash",
    "ends with \\",
    "\\*",
    "$HOME",
    "$(id)",
    "`id`",
    "!x",
    "#x",
    ";x",
    "a&b|c<d>e",
    "~",
    "~root",
    "~x",
    "%41%s",
    "...",
    "\t",
    "\x01\x7f",
    "a\rb",
    "Übergröße 世界",
    os.fsdecode(b"\xff\xfe latin"),
    "n" * 255,
    "ü" * 127,
]
WITH_NEWLINE = ["new\nline", "\n", "ends\n", "-x\n'\"\\ *"]

SERVERS = {
    "sftp": {"SFTP": "yes"},
    "no sftp": {"SFTP": "no"},
    "dropbear": {"SERVER": "dropbear"},
    "tcsh": {"LOGIN_SHELL": "/bin/tcsh"},
    "tcsh, no sftp": {"LOGIN_SHELL": "/bin/tcsh", "SFTP": "no"},
    "fish, no sftp": {"LOGIN_SHELL": "/usr/bin/fish", "SFTP": "no"},
}

Tree = dict[str, Union[bytes, None]]


def make_tree(top: Path, names: list[str]) -> None:
    """Files, empty files, directories and empty directories of these names."""
    top.mkdir()
    for number, name in enumerate(names):
        (top / name).write_bytes(os.urandom(number * 997))
        (top / "deep" / name).mkdir(parents=True)
        (top / "deep" / name / name).write_bytes(os.fsencode(name))
        (top / "empty" / name).mkdir(parents=True)
    (top / "nothing").write_bytes(b"")
    (top / "large").write_bytes(os.urandom(3_000_000))


def tree(top: Path) -> Tree:
    """Every path below, with the bytes of a file."""
    found: Tree = {}
    for path in top.rglob("*"):
        found[str(path.relative_to(top))] = None if path.is_dir() else path.read_bytes()
    return found


def there_and_back(connection: holdfast.Connection, here: Path) -> None:
    connection.run(["rm", "-rf", "/tmp/there"], check=True)
    connection.put(here / "source", "/tmp/there")
    connection.get("/tmp/there", here / "back")
    assert tree(here / "back") == tree(here / "source")


@pytest.fixture
def far(
    request: pytest.FixtureRequest, server: StartServer, connect: Connect
) -> holdfast.Connection:
    variant: str = request.param
    variables = SERVERS[variant]
    return connect(server(fresh=False, **variables))


@pytest.mark.parametrize("far", list(SERVERS), indirect=True)
def test_a_tree_goes_there_and_back(
    far: holdfast.Connection, tmp_path: Path, ledger: LoginLedger
) -> None:
    make_tree(tmp_path / "source", NAMES)
    there_and_back(far, tmp_path)
    assert ledger.count() == 1


@pytest.mark.parametrize("far", ["sftp", "dropbear", "tcsh"], indirect=True)
def test_newlines_in_names_travel_over_sftp(far: holdfast.Connection, tmp_path: Path) -> None:
    make_tree(tmp_path / "source", WITH_NEWLINE)
    there_and_back(far, tmp_path)


@pytest.mark.parametrize("far", ["no sftp", "tcsh, no sftp"], indirect=True)
def test_newlines_in_names_are_refused_without_sftp(
    far: holdfast.Connection, tmp_path: Path
) -> None:
    far.run(["rm", "-rf", "/tmp/newline"], check=True)
    make_tree(tmp_path / "source", ["fine", "new\nline"])
    for source in (tmp_path / "source", tmp_path / "source" / "new\nline"):
        with pytest.raises(holdfast.TransferFailed, match=r"new\\nline.*newline.*sftp"):
            far.put(source, "/tmp/newline")
    with pytest.raises(holdfast.TransferFailed, match=r"new\\nline.*newline.*sftp"):
        far.get("/tmp/new\nline", tmp_path / "back")
    with pytest.raises(holdfast.TransferFailed, match=r"new\\nline.*newline.*sftp"):
        far.put(tmp_path / "source" / "fine", "/tmp/new\nline")
    assert far.run("ls -d /tmp/new*").stdout == ""
    assert not (tmp_path / "back").exists()


def test_a_tree_with_newlines_is_not_fetched_without_sftp(
    server: StartServer, connect: Connect, tmp_path: Path
) -> None:
    far = connect(server(SFTP="no"))
    far.run(["mkdir", "-p", "/tmp/odd/new\nline"], check=True)
    with pytest.raises(holdfast.TransferFailed, match="newline"):
        far.get("/tmp/odd", tmp_path / "back")
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("far", ["sftp", "no sftp", "dropbear", "tcsh, no sftp"], indirect=True)
def test_single_files_of_every_name(
    far: holdfast.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name stands in both operands, relative to the working directory and to the home."""
    monkeypatch.chdir(tmp_path)
    far.run("rm -rf odd; mkdir odd", check=True)
    (tmp_path / "back").mkdir()
    for number, name in enumerate(NAMES):
        Path(name).write_bytes(b"%d" % number)
        far.put(name, f"odd/{name}")
        far.get(f"odd/{name}", f"back/{name}")
        assert Path("back", name).read_bytes() == b"%d" % number
    listed = far.run(["find", "odd", "-type", "f", "-print0"], text=False, check=True).stdout
    assert sorted(listed.split(b"\0")[:-1]) == sorted(b"odd/" + os.fsencode(name) for name in NAMES)


@pytest.mark.parametrize("far", ["sftp", "no sftp"], indirect=True)
def test_names_right_in_the_home(
    far: holdfast.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No directory in front of them, here or there; a ~ alone is the home, as for the shell."""
    monkeypatch.chdir(tmp_path)
    names = [name for name in NAMES if not name.startswith("~") and name != "..."]
    for number, name in enumerate(names[:32]):
        Path(name).write_bytes(b"%d" % number)
        far.put(name, name)
        Path(name).unlink()
        far.get(name, name)
        assert Path(name).read_bytes() == b"%d" % number
        far.run(["rm", "--", name], check=True)


@pytest.mark.parametrize("far", ["sftp", "no sftp"], indirect=True)
def test_a_tilde_is_the_home(far: holdfast.Connection, tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("data")
    far.put(tmp_path / "a file", "~/in the home")
    far.put(tmp_path / "a file", "~")
    done = far.run("cat 'in the home' 'a file' /home/alice/'a file'", check=True)
    assert done.stdout == "data" * 3
    far.get("~/a file", tmp_path / "back")
    assert (tmp_path / "back").read_text() == "data"


@pytest.mark.parametrize("far", ["sftp", "no sftp", "dropbear"], indirect=True)
def test_into_an_existing_directory(far: holdfast.Connection, tmp_path: Path) -> None:
    """As ``cp -r`` does it."""
    far.run("rm -rf into; mkdir into", check=True)
    make_tree(tmp_path / "source", ["x y"])
    (tmp_path / "single").write_text("one")
    far.put(tmp_path / "source", "into")
    far.put(tmp_path / "single", "into")
    assert far.run("cat into/single; ls into").stdout == "onesingle\nsource\n"
    (tmp_path / "back").mkdir()
    far.get("into/source", tmp_path / "back")
    far.get("into/single", tmp_path / "back")
    assert tree(tmp_path / "back" / "source") == tree(tmp_path / "source")
    assert (tmp_path / "back" / "single").read_text() == "one"


@pytest.mark.parametrize("far", ["sftp", "no sftp", "dropbear"], indirect=True)
def test_modes_and_times_are_kept_on_request(far: holdfast.Connection, tmp_path: Path) -> None:
    far.run(["rm", "-f", "kept", "not-kept"], check=True)
    file = tmp_path / "file"
    file.write_text("data")
    file.chmod(0o750)
    os.utime(file, (1_000_000_000, 1_000_000_000))
    far.put(file, "kept", preserve=True)
    assert far.run(["stat", "-c", "%a %Y", "kept"]).stdout == "750 1000000000\n"
    far.get("kept", tmp_path / "back", preserve=True)
    status = (tmp_path / "back").stat()
    assert (stat.S_IMODE(status.st_mode), int(status.st_mtime)) == (0o750, 1_000_000_000)
    far.put(file, "not-kept")
    assert not far.run(["stat", "-c", "%Y", "not-kept"]).stdout.startswith("1000000000")


@pytest.mark.parametrize("far", ["sftp", "no sftp", "dropbear"], indirect=True)
def test_what_cannot_be_copied_is_told_in_scps_words(
    far: holdfast.Connection, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("data")
    with pytest.raises(holdfast.TransferFailed, match="no such place") as caught:
        far.put(file, "/no such place/file")
    assert "No such file or directory" in caught.value.detail
    with pytest.raises(holdfast.TransferFailed, match=r"[Pp]ermission denied"):
        far.put(file, "/etc/holdfast")
    with pytest.raises(holdfast.TransferFailed, match="not there"):
        far.get("/tmp/not there", tmp_path / "back")
    assert not (tmp_path / "back").exists()
    with pytest.raises(holdfast.TransferFailed, match="does not exist on this machine"):
        far.put(tmp_path / "missing", "x")
    assert far.run("echo works").stdout == "works\n"


def test_eight_transfers_at_once_over_one_session(
    server: StartServer, connect: Connect, ledger: LoginLedger, tmp_path: Path
) -> None:
    one = server(SSHD_OPTS="MaxSessions 1")
    before = one.logins()
    far = connect(one)

    def copy(number: int) -> bytes:
        file = tmp_path / f"file {number}"
        file.write_bytes(b"%d" % number * 100_000)
        far.put(file, f"/tmp/crowd {number}")
        back = tmp_path / f"back {number}"
        far.get(f"/tmp/crowd {number}", back)
        return back.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(copy, range(8))) == [b"%d" % n * 100_000 for n in range(8)]
    assert one.logins() - before == ledger.count() == 1


def test_a_connection_lost_under_a_transfer(
    server: StartServer, connect: Connect, ledger: LoginLedger, tmp_path: Path
) -> None:
    """It fails, is not tried again, and the server is not taken for one without sftp."""
    key = server()
    before = key.logins()
    far = connect(key)
    far.run(["rm", "-f", "/tmp/huge"], check=True)
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(4 << 30)

    def drop() -> None:
        deadline = time.monotonic() + 10
        while not key.exec("find", "/tmp/huge", "-size", "+1M"):
            assert time.monotonic() < deadline
        key.drop_connections()

    with ThreadPoolExecutor(1) as pool:
        far.run("touch /tmp/huge", check=True)
        dropped = pool.submit(drop)
        with pytest.raises(holdfast.HoldfastError) as caught:
            far.put(huge, "/tmp/huge")
        dropped.result()
    assert isinstance(caught.value, (holdfast.TransferFailed, holdfast.ConnectionLost))
    # A second one where the look for noisy rc files has met the master just leaving.
    assert ledger.count() == 1
    assert key.logins() - before == ledger.count()
    far.run(["rm", "-f", "/tmp/huge"], check=True)
    (tmp_path / "new\nline").write_text("data")
    far.put(tmp_path / "new\nline", "/tmp/new\nline")  # only sftp can
    assert key.logins() - before == ledger.count() == 2
