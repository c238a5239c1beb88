"""Plain ssh, scp, rsync and git share holdfast's masters: the drop-in, put in place and taken out.

ssh takes the **first** value that it finds for an option. So that the user's own ControlMaster,
ControlPath and ControlPersist win wherever they stand, ours must be read last: the Include line
goes to the end of the user's configuration. There it would belong to the last ``Host`` block, so
a ``Match all`` line comes before it. These two lines and a comment are all that is added.

(An Include at the top would need ``Match final all`` in the drop-in, which makes ssh read the
whole configuration twice, the second time with the real host name for the ``Host`` patterns, and
does not exist before OpenSSH 8.0.)

Nothing is changed before :meth:`Plan.apply`::

    plan = ssh_include.install()
    print(plan.diff())
    plan.apply()
"""

from __future__ import annotations

import contextlib
import difflib
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from holdfast.errors import ConfigError
from holdfast.ssh_config_file import (
    default_config_file,
    parse_line,
    read_config,
    replace_file,
    split_lines,
)

__all__ = [
    "Change",
    "Plan",
    "drop_in",
    "install",
    "is_installed",
    "plan_install",
    "plan_uninstall",
    "uninstall",
]

_DEFAULT_INCLUDE = "~/.ssh/holdfast.conf"
_DEFAULT_SOCKETS = "~/.ssh/holdfast"
_COMMENT = "# Shared connections. Keep this last; holdfast config uninstall takes it out."

# OpenSSH binds PATH + "." + 16 characters; sun_path holds 104 bytes on macOS, 108 on Linux.
_LONGEST_CONTROL_PATH = 86
_LENGTH_OF_C = 40  # %C is a SHA-1 in hexadecimal


@dataclass(frozen=True)
class Change:
    """One file before and after; None means that there is no such file."""

    path: Path
    before: Optional[str]
    after: Optional[str]


@dataclass(frozen=True)
class Plan:
    """What would be changed.

    :ivar changes: files, in the order in which they are written.
    :ivar directory: where the control sockets of plain ssh live, 0700.
    :ivar keeps_directory: True if the directory is made, False if it is removed when empty.
    """

    changes: tuple[Change, ...]
    directory: Path
    keeps_directory: bool

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.changes) or self.keeps_directory != self.directory.is_dir()

    def diff(self) -> str:
        """The changes as a unified diff; empty if there are none."""
        parts = []
        for change in self.changes:
            before, after = (split_lines(text or "") for text in (change.before, change.after))
            old, new = (
                "/dev/null" if text is None else str(change.path)
                for text in (change.before, change.after)
            )
            for line in difflib.unified_diff(before, after, old, new):
                parts.append(
                    line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"
                )
        return "".join(parts).encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def apply(self) -> None:
        """Do it. Each file is replaced whole or not at all.

        :raises ConfigError: a file changed since the plan was made or cannot be written, or the
            directory cannot hold sockets; files that come later are as they were then.
        """
        if self.keeps_directory:
            # First of all: with a ControlPath in a directory that is missing or cannot hold
            # sockets, every plain ssh of this user would fail.
            _make_socket_directory(self.directory)
        for change in self.changes:
            if change.after is None:
                with contextlib.suppress(FileNotFoundError):
                    change.path.unlink()
            else:
                replace_file(change.path, change.after, expected=change.before)
        if not self.keeps_directory:
            with contextlib.suppress(OSError):  # live masters keep their sockets
                self.directory.rmdir()


def drop_in() -> str:
    """The text of ``ssh_config.d/holdfast.conf``, from the wheel or from the source tree.

    :raises ConfigError: the installation is incomplete.
    """
    package = Path(__file__).resolve().parent
    for base in (package, package.parent.parent):
        path = base / "ssh_config.d" / "holdfast.conf"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise ConfigError(f"no ssh_config.d/holdfast.conf in {package}: reinstall holdfast")


def plan_install(text: str, include: str = _DEFAULT_INCLUDE) -> str:
    """The configuration *text* with the Include of the drop-in at its end.

    Lines of ours that stand elsewhere (the user has added something below them) move to the end.
    Where *text* has no newline at its end the result has none either, so that
    :func:`plan_uninstall` can give back exactly what was there.

    :param include: the argument of the Include line.
    """
    ours = _our_lines(include)
    if text.endswith((ours, ours.rstrip("\n"))) and _find(split_lines(text), include) is not None:
        return text
    text = plan_uninstall(text, include)
    if text and not text.endswith("\n"):
        return text + "\n" + ours.rstrip("\n")
    return text + ours


def plan_uninstall(text: str, include: str = _DEFAULT_INCLUDE) -> str:
    """The configuration *text* without our lines, otherwise byte for byte as it is.

    ``Match all`` stays if settings were added below it: they hold for all hosts, and without it
    they would become part of the block before.
    """
    lines = split_lines(text)
    while True:
        start = _find(lines, include)
        if start is None:
            return "".join(lines)
        stop = start + 3
        at_end = stop == len(lines)
        if at_end and not lines[-1].endswith("\n") and start > 0:
            # It was put on behind a last line without newline.
            lines[start - 1] = lines[start - 1][:-1]
        following = next((line for line in map(parse_line, lines[stop:]) if line), None)
        keeps_match = following is not None and following.keyword not in ("host", "match")
        lines[start:stop] = [lines[start + 1]] if keeps_match else []


def install(config_file: Union[str, Path, None] = None) -> Plan:
    """What it takes to have plain ssh share connections; done by :meth:`Plan.apply`.

    The drop-in is put beside the configuration as ``holdfast.conf`` (0600), its sockets go into
    the directory ``holdfast`` beside it (0700).

    :param config_file: None for ``~/.ssh/config``; made if missing.
    :raises ConfigError: the configuration cannot be read, or the home directory has so long a
        name that no socket can be made below it.
    """
    config, include, target, sockets = _places(config_file)
    length = len(os.fsencode(str(sockets))) + 1 + _LENGTH_OF_C
    if length > _LONGEST_CONTROL_PATH:
        raise ConfigError(
            f"control sockets in {sockets} would have names of {length} bytes, and "
            f"{_LONGEST_CONTROL_PATH} are possible: plain ssh cannot share connections there"
        )
    text = drop_in()
    if config_file is not None:
        control_path = str(sockets).replace("%", "%%") + "/%C"
        text = text.replace(_DEFAULT_SOCKETS + "/%C", _quoted(control_path))
    before = read_config(config)
    return Plan(
        _changes(
            Change(target, read_config(target), text),
            Change(config, before, plan_install(before or "", include)),
        ),
        sockets,
        True,
    )


def uninstall(config_file: Union[str, Path, None] = None) -> Plan:
    """What it takes to undo :func:`install`; done by :meth:`Plan.apply`.

    The configuration becomes what it was; it is removed if nothing is left in it.

    :raises ConfigError: the configuration cannot be read.
    """
    config, include, target, sockets = _places(config_file)
    before = read_config(config)
    after: Optional[str] = plan_uninstall(before or "", include)
    if after == "" and before != "" and not config.is_symlink():
        after = None
    return Plan(
        _changes(Change(config, before, after), Change(target, read_config(target), None)),
        sockets,
        False,
    )


def is_installed(config_file: Union[str, Path, None] = None) -> bool:
    """Whether the configuration has our Include line, wherever it stands."""
    config, include, _, _ = _places(config_file)
    return _find(split_lines(read_config(config) or ""), include) is not None


def _places(config_file: Union[str, Path, None]) -> tuple[Path, str, Path, Path]:
    """The configuration, the Include argument, the drop-in, the directory for sockets."""
    if config_file is None:
        config = default_config_file()
        # ~ and not the path: homes are mounted under other names on other machines.
        return config, _DEFAULT_INCLUDE, config.parent / "holdfast.conf", config.parent / "holdfast"
    config = Path(config_file).absolute()
    target = config.parent / "holdfast.conf"
    if set("*?[\"'\\\n\r") & set(str(target)):
        raise ConfigError(f"{target}: ssh_config cannot include a path with these characters")
    return config, _quoted(str(target)), target, config.parent / "holdfast"


def _quoted(value: str) -> str:
    return f'"{value}"' if any(c in value for c in " \t#") else value


def _our_lines(include: str) -> str:
    return f"{_COMMENT}\nMatch all\nInclude {include}\n"


def _find(lines: list[str], include: str) -> Optional[int]:
    """Index of the first of our three lines, None if they are not there."""
    ours = split_lines(_our_lines(include))
    for index in range(len(lines) - 2):
        if [line.rstrip("\r\n") for line in lines[index : index + 3]] == [s[:-1] for s in ours]:
            return index
    return None


def _changes(*changes: Change) -> tuple[Change, ...]:
    return tuple(change for change in changes if change.before != change.after)


def _make_socket_directory(directory: Path) -> None:
    """Make it (0700) and do in it what ssh does for a control socket: bind, then link.

    :raises ConfigError: it is not a private directory of ours, or its filesystem has no sockets.
    """
    try:
        for path in (directory.parent, directory):  # parents= would ignore the mode
            path.mkdir(mode=0o700, exist_ok=True)
        status = directory.lstat()
        if directory.is_symlink() or status.st_uid != os.geteuid():
            raise ConfigError(f"{directory} is not a directory of this user's own")
        if status.st_mode & 0o077:
            directory.chmod(0o700)
        # realpath: no longer than what ssh will use, and a temporary name that nobody else has
        with (
            tempfile.TemporaryDirectory(prefix=".", dir=directory) as scratch,
            socket.socket(socket.AF_UNIX) as probe,
        ):
            path = Path(scratch, "s")
            probe.bind(str(path))
            os.link(path, Path(scratch, "l"))
    except OSError as error:
        raise ConfigError(
            f"{directory} cannot hold control sockets ({error.strerror or error}): "
            "plain ssh cannot share connections there"
        ) from error
