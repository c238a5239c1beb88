"""What ``holdfast doctor HOST`` looks at on the far side. One login at most, for all of it."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Optional

from holdfast.connection import Connection
from holdfast.errors import AuthenticationRequired, HoldfastError, SessionRefused
from holdfast.link import Link
from holdfast.openssh import command, config, version
from holdfast.remote_process import RemoteProcess
from holdfast.settings import Settings

from .doctor_local import FAIL, OK, WARN, Check

_TIMEOUT = 30.0  # seconds for one look at the far side
_MOST_SESSIONS = 12  # sshd's default is 10; nobody needs to know what is beyond this

# Run by sh, whatever the login shell is. Markers, as rc files may print before.
_SCRIPT = """
echo "holdfast:shell=$SHELL"
echo "holdfast:system=$(uname -srm 2>/dev/null)"
echo "holdfast:rsync=$(rsync --version 2>/dev/null | head -n 1)"
"""


def checks(
    host: str, config_file: Optional[str], options: dict[str, str], settings: Settings
) -> Iterator[Check]:
    """Everything about a host, as far as one login reaches."""
    try:
        link = Link(host, "main", config_file, options, settings)
    except HoldfastError as error:
        yield Check("destination", FAIL, str(error))
        return
    yield _destination(link)
    # A short patience with refused sessions: to find their limit is the point.
    conn = Connection(
        host,
        config_file=config_file,
        options=options,
        settings=replace(settings, session_timeout=1.0),
    )
    before = _attempts(conn)
    opened = _login(conn, link)
    yield opened
    if opened.status == FAIL:
        return
    # Asked after the login: only then it is known.
    yield _mode(conn, link)
    if conn.mode == "multiplexed":
        yield from _true(conn)
        yield from _far_side(conn, noise_is_known=True)
        yield _sftp(link)
        yield _session_limit(conn)
    elif _attempts(conn) == before:
        # In plain mode each look is a login: one look.
        yield from _far_side(conn, noise_is_known=False)


def _attempts(conn: Connection) -> int:
    stats = conn.stats()
    return stats.logins + stats.login_failures


def _destination(link: Link) -> Check:
    from .verbs.config import why_own

    found = config.resolve(
        link.ssh, link.destination, config_file=link.config_file, options=link.options
    )
    jump = f" through {found.proxy_jump}" if found.proxy_jump else ""
    detail = f"{found.user}@{found.hostname} port {found.port}{jump}"
    spec = link.control_master().spec
    own = why_own(found.control_path, spec.user_path)
    if found.control_path and not own.endswith("None"):
        return Check(
            "destination",
            WARN,
            f"{detail}; the control path is {own}",
            "plain ssh cannot share this connection until your ControlPath is mended",
        )
    if found.control_path:
        detail += f"; shared with plain ssh on {found.control_path}"
    return Check("destination", OK, detail)


def _login(conn: Connection, link: Link) -> Check:
    if conn.is_alive():
        return Check("login", OK, "was open already; no login was needed")
    begin = time.monotonic()
    try:
        conn.open()
    except AuthenticationRequired as error:
        return Check(
            "login",
            FAIL,
            str(error),
            "log in once by hand with the command above; everything after that goes over it",
        )
    except HoldfastError as error:
        return Check("login", FAIL, str(error))
    if conn.mode == "plain":
        return Check("login", OK, "each command logs in by itself")
    return Check("login", OK, f"without a human, in {(time.monotonic() - begin) * 1000:.0f} ms")


def _mode(conn: Connection, link: Link) -> Check:
    if conn.mode == "multiplexed":
        return Check("mode", OK, "multiplexed: one login, then every command over it")
    reason = link.why_no_sharing() or "the login could not be shared (the warning says why)"
    return Check(
        "mode", WARN, f"plain: every command logs in, as connections cannot be shared: {reason}"
    )


def _true(conn: Connection) -> Iterator[Check]:
    """The round trip of `true`, and what rc files say to it."""
    times = []
    for _ in range(3):
        begin = time.monotonic()
        try:
            done = conn.run("true", timeout=_TIMEOUT)
        except HoldfastError as error:
            yield Check("round trip", FAIL, str(error))
            return
        times.append(time.monotonic() - begin)
    if done.returncode != 0:
        yield Check("round trip", FAIL, f"`true` ended with {done.returncode}: {done.stderr}")
    else:
        yield Check("round trip", OK, f"`true` takes {min(times) * 1000:.0f} ms")
    yield _noise(done.stdout, done.stderr)


def _noise(stdout: str, stderr: str) -> Check:
    if stdout:
        return Check(
            "rc files",
            FAIL,
            f"print on stdout: {_first(stdout)}",
            "this breaks rsync, scp and sftp: in the rc file of your shell there (~/.bashrc, "
            "~/.cshrc, ...) print only where a terminal is: [ -t 1 ] && echo ...",
        )
    if stderr:
        return Check("rc files", WARN, f"print on stderr with every command: {_first(stderr)}")
    return Check("rc files", OK, "print nothing")


def _far_side(conn: Connection, *, noise_is_known: bool) -> Iterator[Check]:
    """Shell, system and rsync, in one session."""
    try:
        done = conn.run(["/bin/sh", "-c", _SCRIPT], timeout=_TIMEOUT)
    except HoldfastError as error:
        yield Check("shell", FAIL, str(error))
        return
    found = dict(re.findall(r"^holdfast:(\w+)=(.*)$", done.stdout, re.MULTILINE))
    if "shell" not in found:
        yield Check(
            "shell",
            FAIL,
            f"commands do not run there (status {done.returncode}): "
            f"{_first(done.stdout + done.stderr)}",
            "does the account have a real login shell, or a menu that wants a terminal?",
        )
        return
    if not noise_is_known:
        yield _noise(done.stdout.partition("holdfast:shell=")[0], done.stderr)
    system = found.get("system") or "unknown system"
    yield Check("shell", OK, f"{found['shell'] or 'unknown'}, on {system}")
    yield _rsync(found.get("rsync", ""))


def _rsync(far: str) -> Check:
    words = far.split()
    there = words[2] if len(words) > 2 else far
    try:
        version.find_program("rsync")
    except HoldfastError:
        return Check(
            "rsync", WARN, f"not on this machine ({'there: ' + there if there else 'nor there'})",
            "install rsync; put and get work without it",
        )  # fmt: skip
    if not far:
        return Check("rsync", WARN, "not there", "ask for it; put and get work without it")
    return Check("rsync", OK, f"here and there ({there})")


def _sftp(link: Link) -> Check:
    master = link.control_master().find()
    if master is None:
        return Check("sftp", WARN, "the connection was gone before it could be asked")
    argv = command.sftp(
        version.find_program("sftp"),
        link.destination,
        ssh=link.ssh,
        control_path=master.control_path,
        config_file=link.config_file,
        options=link.options,
    )
    try:
        done = subprocess.run(
            argv,
            input=b"pwd\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Check("sftp", WARN, f"no answer within {_TIMEOUT:g} s")
    if done.returncode == 0:
        return Check("sftp", OK, "works")
    return Check(
        "sftp",
        WARN,
        f"does not work: {_first(done.stdout.decode('utf-8', 'replace'))}",
        "put and get use scp's old protocol; names with newlines cannot travel",
    )


def _session_limit(conn: Connection) -> Check:
    """Sessions are opened until the server refuses one; all end at once when stdin closes."""
    held: list[RemoteProcess] = []
    refused = False
    try:
        while len(held) < _MOST_SESSIONS and not refused:
            try:
                # cat ends with its stdin: a sleep would go on there, and keep its session.
                held.append(conn.popen("cat", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            except SessionRefused:
                refused = True
    except HoldfastError as error:
        return Check("sessions", WARN, f"after {len(held)}: {error}")
    finally:
        for process in held:
            assert process.stdin is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
        for process in held:
            with contextlib.suppress(HoldfastError, subprocess.TimeoutExpired):
                process.wait(_TIMEOUT)
    if not refused:
        return Check("sessions", OK, f"at least {len(held)} at once")
    if len(held) < 4:
        return Check(
            "sessions",
            WARN,
            f"only {len(held)} at once (MaxSessions, or others hold some)",
            "commands wait for each other; nothing is lost",
        )
    return Check("sessions", OK, f"{len(held)} at once (MaxSessions)")


def _first(text: str) -> str:
    lines = text.strip().splitlines()
    more = f" (and {len(lines) - 1} lines more)" if len(lines) > 1 else ""
    return f"{lines[0][:100]!r}{more}" if lines else "nothing"
