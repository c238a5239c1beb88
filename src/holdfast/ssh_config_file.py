"""ssh_config files read without loss, and written whole or not at all.

sshconf, which edits the entries (:mod:`holdfast.hosts`), splits lines at characters that ssh
does not, takes ``key=value`` for a word, ``#`` inside a value for a comment and a ``Match`` block
for a part of the ``Host`` before it, drops the final newline, and looks for Include files beside
the file instead of in ``~/.ssh``. So lines, blocks and Include are found here, by the rules of
OpenSSH's readconf.c, and sshconf gets one block at a time.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

from holdfast.errors import ConfigError

__all__ = [
    "Block",
    "Line",
    "Setting",
    "default_config_file",
    "parse_blocks",
    "parse_line",
    "read_config",
    "replace_file",
    "settings",
    "split_lines",
]

# readconf.c: READCONF_MAX_DEPTH
_MAX_DEPTH = 16

_KEYWORD = re.compile(r'\s*"?([A-Za-z0-9]+)"?(?:\s*=\s*|\s+)')
_WORD = re.compile(r"""(?:[^\s"']|"[^"]*"|'[^']*')+""")


def home_directory() -> Path:
    """The home directory that OpenSSH uses: the one in passwd, not ``$HOME``."""
    try:
        import pwd

        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except (ImportError, KeyError):  # Windows; an account that passwd does not know
        return Path.home()


def default_config_file() -> Path:
    """The user's ``~/.ssh/config``, whether it exists or not."""
    return home_directory() / ".ssh" / "config"


@dataclass(frozen=True)
class Line:
    """One line of a file that says something.

    :ivar keyword: in lower case.
    :ivar name: the keyword as written.
    :ivar value: the rest of the line, as written, without surrounding blanks.
    :ivar words: the value's words, unquoted, without a comment at the end.
    :ivar spans: where each word stands in the line, quotes included.
    """

    keyword: str
    name: str
    value: str
    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Block:
    """A ``Host`` or ``Match`` line and what belongs to it, or what stands before the first.

    :ivar header: the line, None before the first.
    :ivar start, stop: indices of the block's lines, the header first.
    """

    header: Optional[Line]
    start: int
    stop: int

    @property
    def patterns(self) -> tuple[str, ...]:
        """The words of a ``Host`` line; none for other blocks."""
        if self.header is None or self.header.keyword != "host":
            return ()
        return self.header.words


@dataclass(frozen=True)
class Setting:
    """One line of the configuration as ssh goes through it, with what it depends on.

    :ivar conditions: lists of ``Host`` patterns, each of which must match.
    :ivar decidable: False below a ``Match`` that only ssh can decide.
    """

    file: Path
    number: int
    line: Line
    conditions: tuple[tuple[str, ...], ...] = ()
    decidable: bool = True


def split_lines(text: str) -> list[str]:
    """Lines with their ends; only a newline ends one (str.splitlines knows ten other ends)."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def parse_line(text: str) -> Optional[Line]:
    """What a line says; None for a comment, an empty line, and one without a value."""
    match = _KEYWORD.match(text)
    if match is None:
        return None
    words, spans = [], []
    for word in _WORD.finditer(text, match.end()):
        if word.group().startswith("#"):
            break
        words.append(re.sub(r"""["']""", "", word.group()))
        spans.append(word.span())
    value = text[match.end() :].strip()
    if not value:
        return None
    return Line(match.group(1).lower(), match.group(1), value, tuple(words), tuple(spans))


def parse_blocks(lines: list[str]) -> list[Block]:
    """The file's blocks in order; the first has no header and may be empty."""
    headers: list[tuple[int, Optional[Line]]] = [(0, None)]
    for index, text in enumerate(lines):
        line = parse_line(text)
        if line is not None and line.keyword in ("host", "match"):
            headers.append((index, line))
    stops = [start for start, _ in headers[1:]] + [len(lines)]
    return [Block(header, start, stop) for (start, header), stop in zip(headers, stops)]


def read_config(path: Path) -> Optional[str]:
    """The file's text, any bytes preserved; None if it does not exist.

    :raises ConfigError: it cannot be read.
    """
    try:
        # bytes, for open() in text mode would turn \r\n into \n
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error


def settings(
    path: Path,
    texts: Optional[Mapping[Path, str]] = None,
    conditions: tuple[tuple[str, ...], ...] = (),
    decidable: bool = True,
    depth: int = 0,
) -> Iterator[Setting]:
    """Every line of *path* and of the files it includes, in the order in which ssh sees them.

    Host lines come too. A file that does not exist says nothing, as with ssh.

    :param texts: what to take for the content of some files instead of reading them.
    :param conditions, decidable, depth: what the Include line that leads here depends on.
    :raises ConfigError: a file cannot be read; Include nested deeper than ssh allows.
    """
    if depth > _MAX_DEPTH:
        raise ConfigError(f"{path}: Include nested more than {_MAX_DEPTH} deep; a loop?")
    text = texts[path] if texts and path in texts else read_config(path)
    lines = split_lines(text or "")
    for block in parse_blocks(lines):
        inner, known = conditions, decidable
        if block.patterns:
            inner = (*conditions, block.patterns)
        elif block.header is not None and [w.lower() for w in block.header.words] != ["all"]:
            known = False
        for index in range(block.start, block.stop):
            line = parse_line(lines[index])
            if line is None:
                continue
            yield Setting(path, index + 1, line, inner, known)
            if line.keyword == "include":
                for included in _included(line.words):
                    yield from settings(included, texts, inner, known, depth + 1)


def _included(words: tuple[str, ...]) -> Iterator[Path]:
    # Relative to ~/.ssh, wherever the including file is (also one given with -F).
    base = home_directory() / ".ssh"
    for word in words:
        if word == "~" or word.startswith("~/"):
            word = str(home_directory()) + word[1:]
        # The results of each pattern sorted, as glob(3) gives them to ssh.
        for name in sorted(glob.glob(os.path.join(base, Path(word).expanduser()))):
            if not Path(name).is_dir():
                yield Path(name)


def replace_file(path: Union[str, Path], text: str, expected: Optional[str]) -> None:
    """Write a file whole or not at all: another file beside it, flushed to disk, then renamed.

    A symbolic link stays one: its target is written. The mode stays; a new file is 0600. Missing
    directories are made with 0700.

    :param expected: the text that was read before (None: no such file).
    :raises ConfigError: the file changed since it was read, or cannot be written.
    """
    target = Path(os.path.realpath(path))
    temporary = None
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)  # 0600
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
            with contextlib.suppress(FileNotFoundError):
                old = target.stat()
                if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
                    # Only root may give files away; for others the rename makes it theirs.
                    with contextlib.suppress(PermissionError):
                        os.fchown(file.fileno(), old.st_uid, old.st_gid)
                os.fchmod(file.fileno(), old.st_mode & 0o7777)
            file.flush()
            os.fsync(file.fileno())
        if read_config(target) != expected:
            raise ConfigError(f"{path} was changed by someone else meanwhile: try again")
        os.replace(temporary, target)
        temporary = None
        _sync_directory(target.parent)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink()


def _sync_directory(path: Path) -> None:
    # Some network filesystems cannot; the rename itself is done.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
