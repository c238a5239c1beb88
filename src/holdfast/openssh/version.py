"""The installed OpenSSH, and the one table of what each version can do."""

from __future__ import annotations

import functools
import os
import re
import subprocess
from dataclasses import dataclass
from enum import Enum
from typing import Optional

from . import processes
from .errors import ConfigError

_TIMEOUT = 10.0  # seconds for `ssh -V`, which reads no configuration and no network


@dataclass(frozen=True, order=True)
class Version:
    """An OpenSSH version; portable patch levels (``p1``) make no difference here."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


class Feature(Enum):
    """What a version can do: the first one that can, from OpenSSH's release notes."""

    MULTIPLEXING = Version(3, 9)  # ControlMaster, ControlPath
    MUX_PROTOCOL_4 = Version(5, 4)  # the documented protocol (PROTOCOL.mux), and -O stop
    CONTROL_PERSIST = Version(5, 6)
    PRINT_CONFIG = Version(6, 8)  # ssh -G
    PROXY_JUMP = Version(7, 3)
    ACCEPT_NEW_HOST_KEYS = Version(7, 6)  # StrictHostKeyChecking=accept-new
    LOGS_SESSION_ID = Version(8, 3)  # "master session id" (mux.c); 7.8 to 8.2 lack it
    SCP_LEGACY_FLAG = Version(8, 7)  # scp -O, where the default may be SFTP
    SCP_OVER_SFTP = Version(9, 0)  # scp transfers over SFTP unless told otherwise

    def in_version(self, version: Version) -> bool:
        return version >= self.value


#: The oldest client that holdfast is made for (RHEL 7's).
OLDEST = Version(7, 4)


def parse_version(text: str) -> Version:
    """Read what ``ssh -V`` prints (on stderr), e.g. ``OpenSSH_9.2p1 Debian-2, OpenSSL 3.0``.

    :raises ConfigError: this is not OpenSSH.
    """
    found = re.search(r"OpenSSH(?:_for_Windows)?_(\d+)\.(\d+)", text)
    if not found:
        words = text.strip().splitlines()[0][:80] if text.strip() else "nothing"
        raise ConfigError(
            f"ssh -V says {words!r}: this is not OpenSSH; install it "
            "(Debian: apt-get install openssh-client, RHEL: dnf install openssh-clients)"
        )
    return Version(int(found[1]), int(found[2]))


def find_program(name: str) -> str:
    """The absolute path of ssh, scp, sftp or rsync.

    :param name: a name to look up in PATH, or a path.
    :raises ConfigError: it is not there, with the package to install.
    """
    from shutil import which  # 3 ms to import

    found = which(name)
    if found is None:
        base = os.path.basename(name)
        package = "rsync" if base == "rsync" else "openssh-client (RHEL: openssh-clients)"
        raise ConfigError(f"{name} was not found; install {package}, or put it on PATH")
    return os.path.abspath(found)


def installed_version(ssh: str) -> Version:
    """The version of the ssh at this path, asked once per process and file.

    :raises ConfigError: it cannot be run, or is not OpenSSH.
    """
    try:
        return _asked(ssh, os.stat(ssh).st_mtime_ns)
    except OSError as error:
        raise ConfigError(f"{ssh} cannot be run: {error.strerror}") from None


@functools.lru_cache(maxsize=16)
def _asked(ssh: str, mtime_ns: int) -> Version:
    del mtime_ns  # a part of the key: an upgraded ssh is asked again
    try:
        done = processes.run([ssh, "-V"], _TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ConfigError(f"{ssh} -V gave no answer within {_TIMEOUT:g} s") from None
    return parse_version((done.stderr + done.stdout).decode("utf-8", "replace"))


def why_no_multiplexing(ssh: str) -> Optional[str]:
    """Why this ssh cannot share connections; None if it can.

    Asked once per process and file: a version that is too old, Windows (whose ssh has no
    ControlMaster), or a build that refuses the options.
    """
    found = installed_version(ssh)
    if not Feature.MUX_PROTOCOL_4.in_version(found):
        return f"OpenSSH {found} is older than {Feature.MUX_PROTOCOL_4.value}"
    if os.name != "posix":
        return "OpenSSH on Windows has no ControlMaster"
    return _refusal(ssh, os.stat(ssh).st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _refusal(ssh: str, mtime_ns: int) -> Optional[str]:
    del mtime_ns
    options = ["ControlMaster=auto", "ControlPersist=yes", "ControlPath=/x"]
    argv = [ssh, "-F", "none", *(word for option in options for word in ("-o", option)), "-G", "h"]
    try:
        done = processes.run(argv, _TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"{ssh} -G gave no answer within {_TIMEOUT:g} s"
    if done.returncode == 0:
        return None
    words = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"this ssh refuses the options of multiplexing ({words[-1] if words else 'no reason given'})"
