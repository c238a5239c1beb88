"""A real SSH server for tests and demonstrations: no port, no root, no daemon, no network.

:class:`LocalSshd` writes an ``ssh_config`` whose ``ProxyCommand`` is ``sshd -i``: every login
starts a server process of its own that talks over the client's pipes. Keys, exit statuses,
ControlMaster, scp, sftp, rsync and forwards are all real. :func:`fake_ssh` is for the opposite
need, an ``ssh`` that lacks or breaks something.

With pytest, the fixtures ``local_sshd`` and ``local_sshd_factory`` (:mod:`holdfast.pytest_plugin`)
give started servers.

Needs a POSIX system with the OpenSSH server (7.8 or later, for ``SetEnv``) and ssh-keygen.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Callable, Optional, Union

from holdfast.errors import ConfigError, HoldfastError

__all__ = ["LocalSshd", "end_clients", "fake_ssh", "find_clients", "find_sshd"]

# Every session of a server carries this variable, so that what a test left running on the
# "remote" side can be told from everything else on the machine.
_MARKER = "HOLDFAST_LOCAL_SSHD"

# sshd is in a directory that is in root's PATH only.
_SSHD_DIRECTORIES = ("/usr/sbin", "/usr/local/sbin", "/sbin", "/opt/homebrew/sbin")

# sshd starts a command in the home directory that passwd names, whatever HOME says. These files
# are what each shell reads even for `SHELL -c COMMAND` over ssh (and as a login shell): they
# bring the command to the private home. dash and ksh read none for `-c`.
_CD_HOME = {
    ".bashrc": "cd\n",
    ".profile": "cd\n",
    ".zshenv": "cd\n",
    ".cshrc": "cd\n",
    ".config/fish/config.fish": "cd\n",
}


def find_sshd() -> str:
    """Absolute path of the OpenSSH server; sshd refuses to run under a relative one.

    :raises ConfigError: there is none; the message says what to install.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *_SSHD_DIRECTORIES])
    found = shutil.which("sshd", path=path)
    if found is None:
        raise ConfigError(
            "no sshd on this machine (looked in PATH, "
            + ", ".join(_SSHD_DIRECTORIES)
            + "): apt-get install openssh-server, or the like of it here"
        )
    return str(Path(found).absolute())


def fake_ssh(directory: Union[str, Path], script: str, name: str = "ssh") -> Path:
    """Write an executable that stands in for ``ssh`` and return its path.

    Put *directory* first in ``PATH`` to have it found.

    :param directory: where to write it; must exist.
    :param script: the program; without a ``#!`` line of its own it is run by ``/bin/sh``.
    :param name: file name, for a fake ``scp`` or ``rsync``.
    """
    path = Path(directory) / name
    path.write_text(script if script.startswith("#!") else "#!/bin/sh\n" + script)
    path.chmod(0o700)
    return path


def find_clients(path: Union[str, Path]) -> list[int]:
    """Process IDs of living ``ssh`` processes whose command line names *path*.

    A control master does: by its arguments, or by the title ``ssh: CONTROLPATH [mux]``.
    """
    if not _has_proc():
        return _by_command_line(Path(path), "ssh")
    needle = os.fsencode(str(path))
    return [pid for pid in _pids() if needle in _read(pid, "cmdline") and _name(pid) == "ssh"]


def end_clients(path: Union[str, Path]) -> list[int]:
    """End the ``ssh`` processes that :func:`find_clients` finds, stopped and hung ones too.

    SIGTERM first, which lets a control master remove its socket; SIGKILL after 2.5 seconds.

    :return: the process IDs that were ended.
    :raises HoldfastError: some are still there after 5 seconds.
    """
    return _end(lambda: find_clients(path), signal.SIGTERM)


class LocalSshd:
    """An SSH server of its own, reachable through ``ssh -F server.config_file server.host``.

    ::

        with LocalSshd(sshd_config=["MaxSessions 1"]) as server:
            subprocess.run(["ssh", "-F", server.config_file, server.host, "hostname"])

    Commands run as the current user, by the login shell that passwd names, with ``HOME`` set to
    a private directory: neither the user's rc files nor ``~/.ssh`` are read, nothing is written
    there. bash, zsh, tcsh and fish sessions, sftp and scp also start in that directory; a
    ``/bin/sh`` (dash) login shell starts commands in the real home directory, as sshd has it.

    :param sshd_config: lines for sshd_config; they win over the defaults, ``Match`` included.
        Set variables with *environment*, not with ``SetEnv``.
    :param hosts: the aliases that the client configuration defines; the first, which must be a
        plain name, becomes ``server.host``. Each looks like a host of its own to ssh (``%C``).
    :param ssh_config: lines for the client configuration, before the hosts' own (so they win).
    :param environment: variables of every session, "remote" side.
    :param home: ``HOME`` of the sessions, an existing directory in which nothing is changed;
        None for a fresh private one.
    :param sftp: False for a server without the sftp subsystem.
    """

    def __init__(
        self,
        sshd_config: Sequence[str] = (),
        hosts: Sequence[str] = ("localsshd",),
        ssh_config: Sequence[str] = (),
        environment: Optional[Mapping[str, str]] = None,
        home: Union[str, Path, None] = None,
        sftp: bool = True,
    ) -> None:
        if isinstance(hosts, str) or not hosts or not re.fullmatch(r"[A-Za-z0-9._-]+", hosts[0]):
            raise ConfigError(f"hosts={hosts!r}: a sequence that starts with a plain name")
        for line in sshd_config:
            if line.split()[:1] and line.split()[0].lower() == "setenv":
                # sshd keeps the first SetEnv line only: a second one would lose HOME silently.
                raise ConfigError(f"sshd_config line {line!r}: use environment={{...}}")
        self._sshd_lines = list(sshd_config)
        self._hosts = list(hosts)
        self._ssh_lines = list(ssh_config)
        self._environment = dict(environment or {})
        self._given_home = None if home is None else Path(home).absolute()
        self._sftp = sftp
        self._directory: Optional[Path] = None

    # ------------------------------------------------------------------ what it is

    @property
    def host(self) -> str:
        """The alias to connect to."""
        return self._hosts[0]

    @property
    def directory(self) -> Path:
        """The private directory (mode 0700, short path) that holds everything.

        Sockets and files of tests may be put there; it goes when the server stops.

        :raises HoldfastError: the server is not started, or stopped already.
        """
        if self._directory is None:
            raise HoldfastError("this LocalSshd is not running: use it in a with statement")
        return self._directory

    @property
    def config_file(self) -> str:
        """Path of the client configuration, for ``ssh -F`` and ``config_file=``."""
        return str(self.directory / "ssh_config")

    @property
    def known_hosts(self) -> Path:
        """The client's known_hosts file; it has the server's key under ``HostKeyAlias``."""
        return self.directory / "known_hosts"

    @property
    def identity_file(self) -> Path:
        """The private key that the server accepts."""
        return self.directory / "user_key"

    @property
    def home(self) -> Path:
        """``HOME`` of the sessions."""
        return self._given_home or self.directory / "home"

    # ------------------------------------------------------------------ life

    def start(self) -> LocalSshd:
        """Write keys and configuration; a ``with`` statement does it. Starts no process.

        :raises ConfigError: no sshd or ssh-keygen here, or sshd refuses *sshd_config* (its own
            words are in the message).
        """
        if self._directory is not None:
            return self
        sshd = find_sshd()
        # /tmp, not $TMPDIR: sockets below it must stay within a control path's 86 bytes.
        parent = "/tmp" if os.access("/tmp", os.W_OK) else None  # noqa: S108 - made by mkdtemp
        self._directory = Path(tempfile.mkdtemp(prefix="hf", dir=parent))  # mode 0700
        try:
            self._make_home()
            self._make_keys()
            self._write_sshd_config()
            self._write_ssh_config(sshd)
            self._check_sshd(sshd)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the masters, server processes and remote commands that are left; remove the directory.

        May be called any number of times.
        """
        if self._directory is None:
            return
        for socket in self._sockets():
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                subprocess.run(
                    ["ssh", "-F", self.config_file, "-S", str(socket), "-O", "exit", self.host],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=5,
                )
        try:
            # Clients first: a client that loses its server may try to log in again.
            _end(self.clients, signal.SIGTERM)
            _end(self.processes, signal.SIGKILL)
            _end(self.commands, signal.SIGKILL)
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def __enter__(self) -> LocalSshd:
        return self.start()

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.stop()

    # ------------------------------------------------------------------ what it saw and does

    def log(self) -> str:
        """The server's own log (LogLevel VERBOSE unless *sshd_config* says otherwise)."""
        try:
            return (self.directory / "sshd.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def logins(self) -> int:
        """How many logins the server has accepted, by its own log.

        A login is in the log before its first session opens; with a bare ``ssh -N`` the client
        may be a moment ahead of the log.
        """
        return len(re.findall(r"^Accepted (?!key )\S+ for ", self.log(), re.MULTILINE))

    def processes(self) -> list[int]:
        """Process IDs of this server's sshd processes that live (zombies do not count)."""
        return self._server_pipes()[0]

    def clients(self) -> list[int]:
        """Process IDs of living ssh clients of this server, masters included.

        They are known by a command line that names the directory, and on Linux also by holding
        the other end of the server's pipes (a master in the background may have another title).
        """
        found = find_clients(self.directory)
        pipes = self._server_pipes()[1]
        if pipes:
            found += [
                pid
                for pid in _pids()
                if pid not in found and _name(pid) == "ssh" and pipes & _open_files(pid)
            ]
        return found

    def commands(self) -> list[int]:
        """Process IDs of what runs "remotely": commands of sessions and their descendants.

        Known by their environment, so also when their session is long gone. Empty on systems
        without /proc.
        """
        if not _has_proc():
            return []
        needle = f"{_MARKER}={self.directory}".encode()
        return [
            pid
            for pid in _pids()
            if pid != os.getpid() and needle in _read(pid, "environ").split(b"\0")
        ]

    def kill_sessions(self) -> list[int]:
        """Kill the server's processes at once, which clients see as a dropped connection.

        Commands that they had started run on, as they would on a real machine.

        :return: the process IDs that were killed, all gone by now.
        """
        return _end(self.processes, signal.SIGKILL)

    def pause(self) -> list[int]:
        """Stop (SIGSTOP) the server's processes: connections hang as behind a dead network.

        :return: their process IDs. :meth:`resume` lets them go on.
        """
        return _send(self.processes(), signal.SIGSTOP)

    def resume(self) -> list[int]:
        """Let paused server processes go on; returns their process IDs."""
        return _send(self.processes(), signal.SIGCONT)

    # ------------------------------------------------------------------ files

    def _make_home(self) -> None:
        if self._given_home is not None:
            if not self._given_home.is_dir():
                raise ConfigError(f"home={self._given_home}: no such directory")
            return
        for name, text in _CD_HOME.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def _make_keys(self) -> None:
        if shutil.which("ssh-keygen") is None:
            raise ConfigError("no ssh-keygen on this machine: apt-get install openssh-client")
        for name in ("host_key", "user_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", name]
            subprocess.run(
                command, cwd=self.directory, stdin=subprocess.DEVNULL, check=True, timeout=60
            )
        shutil.copyfile(self.directory / "user_key.pub", self.directory / "authorized_keys")
        key = (self.directory / "host_key.pub").read_text()
        self.known_hosts.write_text(f"{self.directory.name} {key}")

    def _write_sshd_config(self) -> None:
        # The first value counts, so the caller's lines come first; what stands after a Match line
        # belongs to it, so the defaults must come before that.
        first_match = next(
            (i for i, s in enumerate(self._sshd_lines) if s.split()[:1] and _keyword(s) == "match"),
            len(self._sshd_lines),
        )
        lines = self._sshd_lines[:first_match]
        has_sftp = any(_keyword(s) == "subsystem" and s.split()[1:2] == ["sftp"] for s in lines)
        environment = {"HOME": str(self.home), _MARKER: str(self.directory), **self._environment}
        lines += [
            f"HostKey {self.directory}/host_key",
            f"AuthorizedKeysFile {self.directory}/authorized_keys",
            # The directory is private; sshd would look at /tmp above it, and at umask's work.
            "StrictModes no",
            # PAM needs root and would read the machine's own policy (motd, nologin, limits).
            "UsePAM no",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin yes",
            "PermitUserRC no",
            "PrintMotd no",
            "PrintLastLog no",
            "PidFile none",
            "LogLevel VERBOSE",
            # Not ForceCommand (replaces the command) nor authorized_keys environment= (reads the
            # user's ~/.ssh/environment too): SetEnv is applied last, and HOME may be in it.
            "SetEnv " + " ".join(_quoted_variable(k, v) for k, v in environment.items()),
        ]
        if self._sftp and not has_sftp:
            lines.append(f"Subsystem sftp internal-sftp -d {self.home}")
        lines += self._sshd_lines[first_match:]
        (self.directory / "sshd_config").write_text("\n".join(lines) + "\n")

    def _write_ssh_config(self, sshd: str) -> None:
        import pwd  # not on Windows, where this module must still import

        files = self.directory
        command = [sshd, "-i", "-f", f"{files}/sshd_config", "-E", f"{files}/sshd.log"]
        lines = [
            *self._ssh_lines,
            "Host " + " ".join(self._hosts),
            "    ProxyCommand " + " ".join(map(shlex.quote, command)),
            f"    User {pwd.getpwuid(os.getuid()).pw_name}",
            f"    HostKeyAlias {files.name}",
            f"    UserKnownHostsFile {self.known_hosts}",
            "    GlobalKnownHostsFile /dev/null",
            "    StrictHostKeyChecking yes",
            f"    IdentityFile {self.identity_file}",
            "    IdentitiesOnly yes",
            "    IdentityAgent none",
        ]
        (files / "ssh_config").write_text("\n".join(lines) + "\n")

    def _check_sshd(self, sshd: str) -> None:
        """Have sshd read its configuration: better now than as "Connection closed" later."""
        command = [sshd, "-t", "-f", f"{self.directory}/sshd_config"]
        for _ in range(2):
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
            )
            if done.returncode == 0:
                return
            # Where sshd never ran as a service (a container), root's sshd misses this directory.
            missing = re.search(r"Missing privilege separation directory: (\S+)", done.stderr)
            if missing is None or os.getuid() != 0:
                break
            Path(missing.group(1)).mkdir(mode=0o755, parents=True, exist_ok=True)
        raise ConfigError(f"sshd refuses its configuration:\n{done.stderr.strip()}")

    # ------------------------------------------------------------------ processes

    def _sockets(self) -> list[Path]:
        return [p for p in self.directory.rglob("*") if stat.S_ISSOCK(p.lstat().st_mode)]

    def _server_pipes(self) -> tuple[list[int], set[str]]:
        """This server's sshd processes, and the pipes that they hold.

        sshd overwrites its command line, so on Linux a process is known by the log that it
        keeps open. Where sshd cannot do that (macOS), the command line still tells.
        """
        if not _has_proc():
            return _by_command_line(self.directory, "sshd"), set()
        log = str(self.directory / "sshd.log")
        pids: list[int] = []
        pipes: set[str] = set()
        for pid in _pids():
            if _name(pid).startswith("sshd"):  # from 9.8 also sshd-session and sshd-auth
                files = _open_files(pid)
                if log in files:
                    pids.append(pid)
                    pipes.update(name for name in files if name.startswith("pipe:"))
        return pids, pipes


def _keyword(line: str) -> str:
    words = line.replace("=", " ").split()
    return words[0].lower() if words else ""


def _quoted_variable(name: str, value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or re.search(r"[\r\n\0]", value):
        raise ConfigError(f"environment: {name!r}={value!r} cannot be passed")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}={escaped}"'


def _by_command_line(path: Path, name: str) -> list[int]:
    """Without /proc: processes of programs called *name*... whose command line has *path* in it."""
    done = subprocess.run(["ps", "-axwwo", "pid=,args="], capture_output=True, text=True)
    found = []
    for line in done.stdout.splitlines():
        pid, _, args = line.strip().partition(" ")
        program = Path(args.split()[0].rstrip(":")).name if args.strip() else ""
        matches = program.startswith("sshd") if name == "sshd" else program == name
        if matches and str(path) in args:
            found.append(int(pid))
    return found


def _send(pids: Sequence[int], number: signal.Signals) -> list[int]:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return list(pids)


def _end(find: Callable[[], list[int]], number: signal.Signals, timeout: float = 5.0) -> list[int]:
    """Signal what *find* finds until nothing is left; SIGKILL after half of *timeout* seconds.

    Again and again, because a process may fork between the search and the signal.
    """
    ended: list[int] = []
    start = time.monotonic()
    pids = find()
    while pids:
        waited = time.monotonic() - start
        if waited > timeout:
            raise HoldfastError(f"processes {pids} do not end")
        _send(pids, signal.SIGKILL if waited > timeout / 2 else number)
        _send(pids, signal.SIGCONT)  # a stopped process would not notice a SIGTERM
        ended += [pid for pid in pids if pid not in ended]
        time.sleep(0.01)
        pids = find()
    return ended


def _has_proc() -> bool:
    return Path("/proc/self/fd").is_dir()


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # gone, or another user's
        return b""


def _name(pid: int) -> str:
    return _read(pid, "comm").decode(errors="replace").strip()


def _open_files(pid: int) -> set[str]:
    """What the process has open, as the kernel spells it; empty for a zombie."""
    found: set[str] = set()
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(str(fd.readlink()))
    return found
