"""``holdfast demo``: one login against fifty, measured, with everything cleaned up behind it.

Without a host it runs against :class:`holdfast.testing.LocalSshd`, a real sshd without port or root,
in a runtime directory of its own: neither ``~/.ssh`` nor an open connection is touched.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Optional

from .connection import Connection
from .errors import HoldfastError, TransferFailed
from .link import Link
from .openssh import command, diagnosis
from .settings import Settings

if TYPE_CHECKING:
    from .testing import LocalSshd

#: Commands over the open connection.
COMMANDS = 50
#: Logins by plain ssh: as many on a server of our own, few on a real one, which may count them.
PLAIN_LOCAL, PLAIN_REMOTE = 50, 5

_LAST_MOMENT = 5.0  # seconds

Say = Callable[[str], None]


@dataclass
class Result:
    """What was measured.

    :ivar login_seconds: None if the connection was open already. :ivar logins: that it took.
    :ivar seconds: of each command over it. :ivar plain_seconds: of each command by plain ssh.
    :ivar server_logins: of (holdfast, plain ssh), as the server has counted them; None if it is
        not ours to ask.
    :ivar left: what should be gone and is not.
    """

    destination: str
    login_seconds: Optional[float] = None
    logins: int = 0
    seconds: list[float] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    copy_seconds: float = 0.0
    plain_seconds: list[float] = field(default_factory=list)
    plain_logins: int = 0
    plain_trouble: str = ""
    server_logins: Optional[tuple[int, int]] = None
    left: list[str] = field(default_factory=list)

    @property
    def ratio(self) -> Optional[float]:
        """Plain ssh's time for a command by holdfast's."""
        if not self.seconds or not self.plain_seconds:
            return None
        return median(self.plain_seconds) / median(self.seconds)


def local(say: Say, *, plain: int = PLAIN_LOCAL) -> Result:
    """The demonstration against an sshd of our own.

    :param say: gets each line. :param plain: how many plain logins to set beside.
    :raises ConfigError: no sshd on this machine; with what to install.
    """
    from .testing import LocalSshd, find_clients

    server = LocalSshd(hosts=["demo-cluster"])
    with server:
        say("An SSH server of our own (a real sshd; no port, no root, no daemon).")
        directory = server.directory
        settings = Settings.load(runtime_dir=str(directory / "run"), control_persist=60)
        result = _demonstrate(
            server.host, server.config_file, {}, settings, say, plain, server.logins
        )
        result.left += [f"process {pid}" for pid in _still_there(server)]
    result.left += [f"process {pid}" for pid in find_clients(directory)]
    if directory.exists():
        result.left.append(str(directory))
    return result


def _still_there(server: LocalSshd) -> list[int]:
    """Processes of the demonstration that do not end: the last sshd may need a moment."""
    deadline = time.monotonic() + _LAST_MOMENT
    while True:
        found = [*server.clients(), *server.processes(), *server.commands()]
        if not found or time.monotonic() >= deadline:
            return found
        time.sleep(0.02)


def remote(
    host: str,
    say: Say,
    *,
    plain: int = PLAIN_REMOTE,
    config_file: Optional[str] = None,
    options: Optional[Mapping[str, str]] = None,
) -> Result:
    """The demonstration against a host of the user's, with the user's own settings.

    A connection that is open already is used and stays open; one that is made here is closed.
    """
    return _demonstrate(host, config_file, dict(options or {}), Settings.load(), say, plain, None)


def _demonstrate(
    host: str,
    config_file: Optional[str],
    options: dict[str, str],
    settings: Settings,
    say: Say,
    plain: int,
    count: Optional[Callable[[], int]],
) -> Result:
    # Where connections cannot be shared there is nothing to show, and fifty logins to be had.
    settings = replace(settings, fallback="never")
    conn = Connection(host, config_file=config_file, options=options, settings=settings)
    link = Link(host, "main", config_file, options, settings)
    result = Result(host)
    before = conn.stats().logins
    was_open = conn.is_alive()
    if was_open:
        say(f"The connection to {host} is open already: no login.")
    else:
        result.login_seconds = _log_in(conn)
    try:
        _commands(conn, result)
        result.logins = conn.stats().logins - before
        if not was_open:
            say(f"Logged in to {host} in {result.login_seconds or 0:.2f} s.")
        say(f"{COMMANDS} commands over it: {_ms(result.seconds)} each.")
        _directory(conn, result)
        say(
            f"A directory there and back, {result.files} files, {result.bytes / 1e6:.1f} MB, in "
            f"{result.copy_seconds:.2f} s: the same, byte for byte."
        )
        seen = count() if count else 0
        if plain:
            _plain(link, plain, result)
            result.plain_logins = conn.stats().logins - before - result.logins
            if result.plain_trouble:
                say(f"Plain ssh was not compared: {result.plain_trouble}")
        if count:
            result.server_logins = (seen, count() - seen)
    finally:
        if not was_open:
            result.left += _end(conn, link)
    return result


def _log_in(conn: Connection) -> float:
    begin = time.monotonic()
    if sys.stdin.isatty() and sys.stderr.isatty():
        conn.open_interactively()  # ssh may have something to ask
    else:
        conn.open()
    return time.monotonic() - begin


def _commands(conn: Connection, result: Result) -> None:
    for number in range(COMMANDS):
        begin = time.monotonic()
        done = conn.run(["echo", str(number)], check=True)
        result.seconds.append(time.monotonic() - begin)
        if done.stdout.split()[-1:] != [str(number)]:  # rc files may print before
            raise HoldfastError(f"echo {number} on {conn.destination} said {done.stdout!r}")


def _directory(conn: Connection, result: Result) -> None:
    """A directory with what directories hold, there and back."""
    name = f"holdfast-demo-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as scratch:
        original, back = Path(scratch, "original"), Path(scratch, "back")
        _fill(original)
        begin = time.monotonic()
        try:
            conn.put(original, name)
            conn.get(name, back)
        finally:
            result.copy_seconds = time.monotonic() - begin
            conn.run(["rm", "-rf", "--", name])
        sent, returned = _contents(original), _contents(back)
        if sent != returned:
            names = sorted(k for k in {*sent, *returned} if sent.get(k) != returned.get(k))
            raise TransferFailed(f"these came back otherwise than they went: {names}")
    result.files = len(sent)
    result.bytes = sum(len(data) for data in sent.values())
    if conn.run(["ls", "-d", "--", name]).returncode == 0:
        result.left.append(f"{conn.destination}:{name}")


def _fill(directory: Path) -> None:
    (directory / "runs" / "with space").mkdir(parents=True)
    (directory / "empty").touch()
    (directory / "data.bin").write_bytes(os.urandom(2_000_000))
    for number in range(20):
        path = directory / "runs" / f"out.{number}"
        path.write_text(f"energy = {number}\n" * 200, encoding="utf-8")
    for odd in ("it's", "-dash", 'q"uote', "a*b", "$HOME", "ü"):
        (directory / "runs" / "with space" / odd).write_bytes(bytes(range(256)))


def _contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def _plain(link: Link, number: int, result: Result) -> None:
    """The same commands, each with a login of its own, as a script without holdfast makes them."""
    for index in _progress(range(number), "plain ssh"):
        argv = command.run_plain(
            link.ssh,
            link.destination,
            f"echo {index}",
            log=None,
            config_file=link.config_file,
            options=link.login_options() + link.session_options(),
        )
        begin = time.monotonic()
        with link.ledger.login(link.name, link.key, "plain") as entry:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=link.settings.login_timeout,
                check=False,
            )
            if done.returncode == 0:
                entry.succeeded()
            else:
                said = done.stderr.decode("utf-8", "replace").strip()
                kind, line = diagnosis.classify(said)
                entry.failed(kind.value)
                result.plain_trouble = (
                    f"it would ask you to log in for each of {number} commands"
                    if kind is diagnosis.Kind.AUTHENTICATION
                    else line
                )
                return
        result.plain_seconds.append(time.monotonic() - begin)


def _progress(numbers: Iterable[int], title: str) -> Iterator[int]:
    if not sys.stderr.isatty():
        yield from numbers
        return
    from tqdm import tqdm

    yield from tqdm(numbers, desc=title, leave=False, unit="login")


def _end(conn: Connection, link: Link) -> list[str]:
    """End our master; what of it is still there after a moment."""
    master = link.control_master().find()
    conn.disconnect()
    if master is None or not master.ours:
        return []
    from .openssh import processes

    deadline = time.monotonic() + 5.0
    while processes.is_master(master.pid, master.control_path):
        if time.monotonic() > deadline:
            return [f"process {master.pid}"]
        time.sleep(0.02)
    return [master.control_path] if os.path.lexists(master.control_path) else []


def summary(result: Result) -> list[str]:
    """The lines to end with: a table of the two ways."""
    rows = [("holdfast", result.logins, result.seconds, "")]
    if result.plain_seconds:
        times = f"{result.ratio:.0f} times as long" if result.ratio else ""
        rows.append(("plain ssh", result.plain_logins, result.plain_seconds, times))
    lines = [f"{'':11}{'logins':>6}  {'commands':>8}  {'per command':>11}  {'in all':>8}"]
    for name, logins, seconds, note in rows:
        lines.append(
            f"{name:11}{logins:>6}  {len(seconds):>8}  {_ms(seconds):>11}  "
            f"{sum(seconds):>6.2f} s  {note}".rstrip()
        )
    if result.server_logins:
        ours, plain = result.server_logins
        lines.append(f"The server's own log has {ours} and {plain} logins.")
    if result.left:
        lines.append(f"Left behind: {', '.join(result.left)}")
    else:
        lines.append("Nothing is left: no process, no file.")
    return lines


def median(numbers: list[float]) -> float:
    ordered = sorted(numbers)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def _ms(seconds: list[float]) -> str:
    return f"{median(seconds) * 1000:.1f} ms"
