"""Words for the remote login shell, and operands for scp.

sshd hands one string to the account's login shell with ``-c``. That may be a POSIX shell, csh,
tcsh or fish, and nobody tells which; so what is written here means the same to all of them.
"""

from __future__ import annotations

import os
import re
import string
from collections.abc import Mapping, Sequence
from typing import Optional, Union

from .errors import ConfigError

Word = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]"]

_SAFE = re.compile(r"[A-Za-z0-9_@+:,./-]+", re.ASCII)  # no %: fish reads %self
# What means nothing to any shell inside double quotes, nor to printf's %b.
_PLAIN = frozenset(string.ascii_letters + string.digits + " _@+:,./=-")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_HOME = re.compile(r"~[A-Za-z0-9._-]*(?=/|$)", re.ASCII)


def quote(word: Word) -> str:
    """One word as bash, dash, zsh, ksh, tcsh and fish all read it.

    Inside single quotes fish reads backslashes and csh reads ``!``; so these and the single
    quote itself stand outside, each behind a backslash. A newline has no common spelling;
    :func:`remote_command` finds a way around.

    :param word: text, bytes or a path; bytes that are no UTF-8 travel unharmed.
    :raises ConfigError: it holds a NUL, which no argument can.
    """
    text = os.fsdecode(word)
    if "\0" in text:
        raise ConfigError(f"a remote argument cannot hold a NUL: {text!r}")
    if _SAFE.fullmatch(text):
        return text
    return "'" + re.sub(r"['\\!]", lambda m: f"'\\{m[0]}'", text) + "'"


def _for_any_shell(line: str) -> str:
    """A simple command of quoted words, with newlines inside the quotes if need be.

    csh wants a backslash before a newline inside quotes where POSIX shells would keep it. So
    such a line is spelled in octal, and ``/bin/sh`` puts it together and becomes the command.
    """
    if "\n" not in line:
        return line
    octal = "".join(
        chr(byte) if chr(byte) in _PLAIN else f"\\0{byte:03o}" for byte in os.fsencode(line)
    )
    # POSIX has printf(1), whose %b reads \0ooo. $( ) drops newlines at the end, but the line ends
    # with a quote or a word.
    return f"""exec /bin/sh -c 'eval "$(printf %b "{octal}")"'"""


def quote_path(path: Word) -> str:
    """A path as one word; ``~`` and ``~user`` at its start mean what they mean to the shell."""
    text = os.fsdecode(path)
    home = _HOME.match(text)
    if not home:
        return quote(text if text[:1] != "-" else f"./{text}")
    rest = text[home.end() :].lstrip("/")
    return f"{home[0]}/{quote(rest)}" if rest else home[0]


def remote_command(
    command: Union[str, Sequence[Word]],
    *,
    cwd: Optional[Word] = None,
    env: Optional[Mapping[str, str]] = None,
) -> str:
    """The string that sshd hands to the login shell.

    :param command: a string is the shell's to read; a sequence is quoted word by word.
    :param cwd: where it runs: absolute, relative to the home directory, or with ``~``. If it
        cannot be entered the shell says so and nothing else runs; the exit status is 1.
    :param env: variables to add. They go in front of the command (through ``env(1)``) because
        sshd drops what its AcceptEnv does not name. They stand in the remote process's
        arguments: no place for secrets, which belong on stdin.
    :raises ConfigError: an empty command, a NUL, or a name that no shell takes as a variable.
    """
    if isinstance(command, str):
        if not command.strip() or "\0" in command:
            raise ConfigError("the command is empty or holds a NUL")
        line = enter(cwd) + command
        if env:
            # A variable must reach every part of the string, in whatever shell reads it: that
            # shell starts again under env(1), and reads its rc files again.
            line = _for_any_shell(f'exec env {assignments(env)} "$SHELL" -c {quote(line)}')
        return line
    if not command:
        raise ConfigError("the command is empty")
    # The first word in quotes is never a reserved word of the shell, an alias, or an option to it.
    first = quote(command[0])
    first = first if first.startswith("'") else f"'{first}'"
    line = " ".join([first, *(quote(word) for word in command[1:])])
    if env:
        if "=" in first:
            raise ConfigError(f"env(1) would read {first} as a variable; run it without env")
        line = f"exec env {assignments(env)} {line}"
    return enter(cwd) + _for_any_shell(line)


def single_quoted(text: str) -> str:
    """One word for POSIX shells alone, whatever is in it."""
    return "'" + text.replace("'", "'\\''") + "'"


def enter(cwd: Optional[Word]) -> str:
    """What goes to a directory or ends the shell with status 1, for any shell.

    :raises ConfigError: as :func:`remote_command`.
    """
    if cwd is None:
        return ""
    where = os.fsdecode(cwd)
    if not where or "\0" in where or "\n" in where:
        raise ConfigError(f"cwd {where!r} is empty or holds a newline or a NUL")
    # A leading ./ keeps CDPATH out of it and a leading dash from being an option.
    target = where if where[0] in "/~" else f"./{where}"
    # Not `|| exit 1`: in csh that only ends the reading, and the rest of the line still runs. A
    # newline, not `;`: a `&` in the command would take the cd into csh's background with it.
    return f"cd {quote_path(target)} || exec /bin/sh -c 'exit 1'\n"


def assignments(env: Mapping[str, str]) -> str:
    """``NAME=value`` words, quoted. :raises ConfigError: a name that no shell takes."""
    return " ".join(quote(_assignment(name, value)) for name, value in env.items())


def _assignment(name: str, value: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ConfigError(f"{name!r} is not the name of an environment variable")
    return f"{name}={value}"


def scp_operand(path: Word, *, remote_shell: bool, fetch: bool) -> str:
    """The path part of ``host:path`` for scp(1).

    :param remote_shell: the old protocol (``scp -O``, or before OpenSSH 9.0): the remote shell
        reads the path. With SFTP nobody does, but scp itself globs it when fetching.
    :param fetch: the remote path is the source.
    """
    text = os.fsdecode(path)
    if "\0" in text:
        raise ConfigError(f"a path cannot hold a NUL: {text!r}")
    if remote_shell:
        return quote_path(text)
    if fetch:
        return re.sub(r"([\\*?\[\]])", r"\\\1", text)
    return text


def local_operand(path: Word) -> str:
    """A local path that scp and rsync take neither for an option nor for ``host:path``."""
    text = os.fsdecode(path)
    if text.startswith(("/", "./", "../")) or (":" not in text and not text.startswith("-")):
        return text
    return f"./{text}"
