"""Where control sockets live, whether that place is safe, and what they are called."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Optional

from .config import EffectiveConfig
from .errors import ConfigError
from .options import Options

#: Bytes of a control path. ssh binds PATH + "." + 16 characters and links that to PATH; sun_path
#: holds 108 bytes on Linux and 104 on macOS, with the NUL: 90 and 86 are the longest that work.
MAX_LENGTH = 86

#: Filesystems that one machine has for itself: there a refused connection proves that the socket
#: is dead. On any other, another login node may have bound it.
_LOCAL = frozenset(
    [
        "apfs",
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "hfs",
        "jfs",
        "overlay",
        "ramfs",
        "reiserfs",
        "tmpfs",
        "ufs",
        "xfs",
        "zfs",
    ]
)


def runtime_directory(
    chosen: Optional[str] = None, environ: Optional[Mapping[str, str]] = None
) -> Path:
    """The private directory for sockets, locks, the login ledger and the logs of masters.

    :param chosen: the setting ``runtime_dir`` / ``HOLDFAST_RUNTIME_DIR``. Otherwise
        ``$XDG_RUNTIME_DIR/holdfast`` if that directory exists and is ours, else
        ``/tmp/holdfast-<uid>``.
    :returns: the directory, made (0700) if it was not there.
    :raises ConfigError: it is a symbolic link, another user's, writable by others, or cannot be
        made; with the reason.
    """
    environ = os.environ if environ is None else environ
    if chosen:
        # Not Path.expanduser, which raises on an unknown user.
        path = Path(os.path.expanduser(chosen))
        if not path.is_absolute():
            raise ConfigError(f"the runtime directory {chosen!r} is not an absolute path")
        return private_directory(path)
    xdg = environ.get("XDG_RUNTIME_DIR")
    if xdg and os.path.isabs(xdg) and _is_ours(Path(xdg)):
        return private_directory(Path(xdg) / "holdfast")
    return private_directory(short_directory())


def short_directory() -> Path:
    """The place whose name is always short enough: ``/tmp/holdfast-<uid>``."""
    temporary = "/tmp"  # noqa: S108
    if os.name != "posix":
        import tempfile

        temporary = tempfile.gettempdir()
    return Path(temporary) / f"holdfast-{_uid()}"


def private_directory(path: Path) -> Path:
    """Make a directory that only its owner may enter, or make sure that it is one.

    :raises ConfigError: see :func:`runtime_directory`.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        pass  # no directory: refused below, with the reason
    except OSError as error:
        raise ConfigError(
            f"the runtime directory {path} cannot be made: {error.strerror}; "
            "set HOLDFAST_RUNTIME_DIR to a private directory on a local disk"
        ) from None
    reason = why_unsafe(path)
    if reason:
        raise ConfigError(
            f"the runtime directory {path} {reason}; "
            "remove it, or set HOLDFAST_RUNTIME_DIR to a private directory on a local disk"
        )
    return path


def why_unsafe(path: Path) -> Optional[str]:
    """Why a directory must not hold control sockets; None if it may."""
    try:
        status = path.lstat()
    except OSError as error:
        return f"cannot be examined: {error.strerror}"
    if stat.S_ISLNK(status.st_mode):
        return "is a symbolic link"
    if not stat.S_ISDIR(status.st_mode):
        return "is not a directory"
    if os.name != "posix":
        return None
    if status.st_uid != _uid():
        return f"belongs to another user (uid {status.st_uid})"
    if stat.S_IMODE(status.st_mode) & 0o022:
        return (
            f"is writable by others (mode {stat.S_IMODE(status.st_mode):04o}); chmod 700 mends it"
        )
    return None


def socket_directory(runtime: Path) -> Path:
    """Where sockets go: the runtime directory, or a short and plain one if its name is neither."""
    if fits(str(runtime / ("x" * _NAME_LENGTH))) and is_plain(str(runtime)):
        return runtime
    digest = hashlib.sha256(os.fsencode(runtime)).hexdigest()[:8]
    return private_directory(private_directory(short_directory()) / digest)


def fits(path: str) -> bool:
    """Whether ssh can bind this path on every system."""
    return len(os.fsencode(path)) <= MAX_LENGTH


def is_plain(path: str) -> bool:
    """Whether ssh, scp and rsync all read a control path as it stands.

    ssh expands ``%`` and ``${``, its ``-o`` reads quotes and spaces, rsync's ``-e`` splits at these.
    """
    return not re.search(r"[\s%$\"'\\#]", path)


_NAME_LENGTH = len("hhhh-cccccccccccc.wdd99")


def host_tag() -> str:
    """Four characters for this machine: a socket works only where it was bound.

    Login nodes that share a home directory must not take each other's sockets for dead ones.
    """
    return hashlib.sha256(os.fsencode(socket.gethostname())).hexdigest()[:4]


def connection_key(config: EffectiveConfig, options: Options, config_file: Optional[str]) -> str:
    """Twelve characters for what decides a connection.

    Resolved user, host name, port, jump chain, identity and certificate settings, and the
    options and file that the caller adds (the jump hosts are resolved through that file).
    """
    parts = repr((config.identity, sorted(options.items), config_file or ""))
    return hashlib.sha256(parts.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def socket_name(key: str, purpose: str, slot: int = 0) -> str:
    """``<host tag>-<connection key>.<purpose: its initial and two digits of a hash><slot>``"""
    digest = hashlib.sha256(purpose.encode()).hexdigest()[:2]
    return f"{host_tag()}-{key}.{purpose[:1]}{digest}{slot}"


def of_this_host(name: str) -> bool:
    """Whether a file of the runtime directory was made on this machine."""
    return name.startswith(f"{host_tag()}-")


def why_unusable(path: str) -> Optional[str]:
    """Why a master of ours must not listen on the user's own ControlPath; None if it may."""
    if not os.path.isabs(path):
        return "is not absolute"
    if not fits(path):
        return f"is longer than {MAX_LENGTH} bytes"
    if not is_plain(path):
        return "holds a space, a quote or another character that ssh, scp or rsync reads"
    parent = Path(path).parent
    reason = why_unsafe(parent)
    return f"lies in {parent}, which {reason}" if reason else None


def on_local_filesystem(path: Path) -> bool:
    """Whether only this machine can have bound a socket here; False where nobody can tell."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    return _filesystem(mounts, os.path.realpath(path)) in _LOCAL


def can_hold_sockets(directory: Path) -> bool:
    """Whether a socket can be bound and linked here; some network filesystems cannot."""
    unique = os.urandom(6).hex()  # other threads and processes look, too
    first = directory / f".t{unique}"
    second = directory / f".u{unique}"
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.bind(str(first))
            os.link(first, second)
    except OSError:
        return False
    finally:
        for path in (first, second):
            with suppress(OSError):
                path.unlink()
    return True


def _filesystem(mountinfo: str, path: str) -> str:
    """The type of the filesystem that holds a path, from /proc/PID/mountinfo (proc(5))."""
    best, kind = "", ""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        # Spaces are written \040; what is not ASCII stands as it is.
        point = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[4])
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def _is_ours(path: Path) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and (os.name != "posix" or status.st_uid == _uid())


def _uid() -> int:
    return os.getuid() if hasattr(os, "getuid") else 0
