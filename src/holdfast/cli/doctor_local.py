"""What ``holdfast doctor`` looks at on this machine. Nothing here logs in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Optional

from holdfast.errors import ConfigError
from holdfast.openssh import config, control_path, version
from holdfast.openssh.control_path import can_hold_sockets
from holdfast.openssh.destination import Destination
from holdfast.openssh.version import Version
from holdfast.settings import Settings

OK, WARN, FAIL = "ok", "warn", "fail"

# Versions whose faults people meet, from OpenSSH's release notes and bug reports.
_KNOWN_BAD = {
    Version(10, 1): "10.1 breaks interactive programs over a shared connection (run --tty); "
    "use 10.2 or later",
    Version(9, 4): "9.4 may ignore ^C over a shared connection; use 9.5 or later",
}

_DEPENDENCIES = ("pexpect", "sshconf", "tqdm")


@dataclass(frozen=True)
class Check:
    """One finding. :ivar status: ok, warn or fail. :ivar advice: what to do about it."""

    name: str
    status: str
    detail: str
    advice: str = ""


def checks(config_file: Optional[str]) -> Iterator[Check]:
    """Everything about this machine, in the order in which one thing needs the other."""
    yield _python()
    try:
        settings = Settings.load()
    except ConfigError as error:
        yield Check("settings", FAIL, str(error), "correct the variable or the file")
        settings = Settings()
    yield from _ssh(settings, config_file)
    yield _runtime_directory(settings)
    yield _agent()


def _python() -> Check:
    from importlib import metadata

    from holdfast import __version__

    needed = [*_DEPENDENCIES, *(["tomli"] if sys.version_info < (3, 11) else [])]
    found, missing = [], []
    for name in needed:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    detail = f"holdfast {__version__}, Python {sys.version.split()[0]}, {', '.join(found)}"
    if missing:
        return Check(
            "python",
            FAIL,
            f"{detail}; not installed: {', '.join(missing)}",
            f"{sys.executable} -m pip install {' '.join(missing)}",
        )
    return Check("python", OK, detail)


def _ssh(settings: Settings, config_file: Optional[str]) -> Iterator[Check]:
    try:
        ssh = version.find_program(settings.ssh)
        found = version.installed_version(ssh)
    except ConfigError as error:
        yield Check("ssh", FAIL, str(error), "install the OpenSSH client")
        return
    detail = f"OpenSSH {found}, {ssh}"
    if found in _KNOWN_BAD:
        yield Check("ssh", WARN, detail, _KNOWN_BAD[found])
    elif found < version.OLDEST:
        yield Check("ssh", WARN, detail, f"holdfast is made for {version.OLDEST} and later")
    else:
        yield Check("ssh", OK, detail)
    reason = version.why_no_multiplexing(ssh)
    if reason:
        yield Check(
            "multiplexing",
            WARN if settings.fallback == "plain" else FAIL,
            f"connections cannot be shared: {reason}; every command would log in by itself",
            "install a newer OpenSSH client, or name one with HOLDFAST_SSH",
        )
    else:
        yield Check("multiplexing", OK, "this ssh can share connections")
    yield _configuration(ssh, config_file)
    yield _plain_ssh(config_file)


def _configuration(ssh: str, config_file: Optional[str]) -> Check:
    try:
        config.resolve(ssh, Destination("localhost"), config_file=config_file)
    except ConfigError as error:
        return Check("configuration", FAIL, str(error), "correct that line")
    return Check("configuration", OK, f"ssh reads {config_file or '~/.ssh/config'} without a fault")


def _plain_ssh(config_file: Optional[str]) -> Check:
    from holdfast import ssh_include

    try:
        installed = ssh_include.is_installed(config_file)
    except ConfigError as error:
        return Check("plain ssh", WARN, str(error))
    if installed:
        return Check("plain ssh", OK, "shares connections through the drop-in of holdfast")
    return Check(
        "plain ssh",
        OK,
        "has no drop-in of holdfast (holdfast config install has it share connections, too)",
    )


def _runtime_directory(settings: Settings) -> Check:
    name = "runtime directory"
    try:
        runtime = control_path.runtime_directory(settings.runtime_dir)
        sockets = control_path.socket_directory(runtime)
    except ConfigError as error:
        return Check(name, FAIL, str(error), "correct it, or set HOLDFAST_RUNTIME_DIR")
    advice = "set HOLDFAST_RUNTIME_DIR to a private directory on a local disk"
    if not can_hold_sockets(sockets):
        return Check(name, FAIL, f"{sockets}: its filesystem cannot hold sockets", advice)
    detail = f"{runtime}, private, holds sockets"
    if sockets != runtime:
        detail += f" (they are in {sockets}, as names here would be over 86 bytes)"
    if sys.platform.startswith("linux") and not control_path.on_local_filesystem(sockets):
        return Check(name, WARN, f"{detail}; on no local disk, so dead sockets stay", advice)
    return Check(name, OK, detail)


def _agent() -> Check:
    """ssh-add -l: 0 has keys, 1 has none, 2 cannot be reached."""
    if not os.environ.get("SSH_AUTH_SOCK"):
        return Check("agent", OK, "none (SSH_AUTH_SOCK is not set); ssh uses key files, or asks")
    try:
        done = subprocess.run(
            ["ssh-add", "-l"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Check("agent", WARN, f"cannot be asked: {error}", "start another ssh-agent")
    keys = len(done.stdout.splitlines())
    if done.returncode == 0:
        return Check("agent", OK, f"holds {keys} key{'' if keys == 1 else 's'}")
    if done.returncode == 1:
        return Check("agent", OK, "holds no keys", "ssh-add adds yours, if you log in with one")
    return Check(
        "agent",
        WARN,
        f"SSH_AUTH_SOCK is {os.environ['SSH_AUTH_SOCK']}, and no agent answers there",
        "start one, or unset SSH_AUTH_SOCK (an old tmux keeps the one of a session long gone)",
    )
