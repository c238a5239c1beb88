"""The hosts of the user's ssh configuration: listed, looked up, and edited with sshconf.

Reading follows Include. Editing changes the lines in question, in the file that holds them, and
keeps everything else byte for byte; a file is replaced whole or not at all. What ssh really uses
for a host, with every ``Match``, is for ``ssh -G`` to say (:mod:`holdfast.openssh.config`).

Option names are keyword arguments, in any case, with or without underscores: ``hostname=``,
``identity_file=``, ``ProxyJump=``. A value is written as ssh_config(5) has it; numbers, paths,
True and False are spelled out, and a list or tuple gives one line for each.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional, Union

from holdfast.errors import ConfigError
from holdfast.ssh_config_file import (
    Block,
    Line,
    Setting,
    default_config_file,
    parse_blocks,
    parse_line,
    read_config,
    replace_file,
    settings,
    split_lines,
)

__all__ = [
    "HostEntry",
    "add_host",
    "get_host",
    "list_hosts",
    "remove_host",
    "rename_host",
    "set_host",
]

ConfigFile = Union[str, Path, None]

# The same set as for destinations (openssh/destination.py); wildcards are not names.
_NAME = re.compile(r"[A-Za-z0-9._:%@][A-Za-z0-9._:%@-]*")

# ssh adds these up, where of all others the first one counts.
_REPEATABLE = frozenset(
    (
        "certificatefile",
        "dynamicforward",
        "identityfile",
        "localforward",
        "remoteforward",
        "sendenv",
    )
)

# One argument that may hold blanks: quoted if need be. Commands take the rest of the line.
_PATHS = frozenset(
    ("certificatefile", "controlpath", "identityagent", "identityfile", "pkcs11provider")
)


@dataclass(frozen=True)
class HostEntry:
    """A host that the configuration names.

    :ivar name: the alias, what one types after ``ssh``.
    :ivar hostname: the real name, or the alias where none is set.
    :ivar user: None where none is set (ssh takes the local user's name).
    :ivar port: TCP port.
    :ivar proxyjump: the jump hosts, as written; None for a direct connection.
    :ivar identity_file: the first identity file, as written; None where none is set.
    :ivar source: the file that holds the entry.

    ``Host`` blocks with wildcards count, as for ssh; ``Match`` blocks other than ``all`` do not,
    for only ssh can decide them.
    """

    name: str
    hostname: str
    user: Optional[str]
    port: int
    proxyjump: Optional[str]
    identity_file: Optional[str]
    source: Path


def list_hosts(config_file: ConfigFile = None) -> list[HostEntry]:
    """Every host that the configuration names without a wildcard, in its order.

    :param config_file: None for ``~/.ssh/config``; a file that does not exist has no hosts.
    :raises ConfigError: a file cannot be read.
    """
    config = _Configuration(config_file)
    return [config.entry(name) for name in config.names]


def get_host(name: str, config_file: ConfigFile = None) -> HostEntry:
    """The entry of one host.

    :raises ConfigError: the configuration does not name it, or a file cannot be read.
    """
    return _Configuration(config_file).entry(name)


def add_host(name: str, config_file: ConfigFile = None, **options: Any) -> HostEntry:
    """Add a ``Host`` block.

    It is put before the first block with wildcards that matches the name and before any
    ``Match``, since with ssh the first value counts; else at the end.

    :param config_file: None for ``~/.ssh/config``; made (0600, in a 0700 directory) if missing.
    :raises ConfigError: an impossible name, option or value, a name that is there already, or an
        earlier line that overrides an option. Nothing is changed then.
    """
    _check_name(name)
    wanted = _spelled(options)
    config = _Configuration(config_file)
    if name in config.names:
        raise ConfigError(f"host {name} is in {config.source(name)} already: use set_host")
    path = config.path

    def edit(lines: list[str]) -> list[str]:
        at = len(lines)
        for block in parse_blocks(lines)[1:]:
            if not block.patterns or _matches(block.patterns, name):
                at = _start_with_comments(lines, block)
                break
        return _insert_block(lines, at, name, wanted)

    _edit(path, edit, config.path, name, wanted)
    return get_host(name, config_file)


def set_host(name: str, config_file: ConfigFile = None, **options: Any) -> HostEntry:
    """Change, add or (value None) remove options of a host.

    Where the host shares its ``Host`` line with others, new values go into a block of its own
    before it, and the others keep theirs.

    :raises ConfigError: an unknown host, an impossible option or value, an option to remove that
        the host shares with others, or an earlier line that overrides an option. Nothing is
        changed then.
    """
    removed = [_key(k) for k, v in options.items() if v is None]
    wanted = _spelled({k: v for k, v in options.items() if v is not None})
    config = _Configuration(config_file)
    path = config.source(name)

    def edit(lines: list[str]) -> list[str]:
        blocks = [block for block in parse_blocks(lines) if name in block.patterns]
        own = next((block for block in blocks if block.patterns == (name,)), None)
        if own is not None:
            return _edit_block(lines, own, name, wanted, removed)
        if removed:
            shared = " ".join(blocks[0].patterns)
            raise ConfigError(f"{path}: 'Host {shared}' is shared, so no option can be removed")
        at = _start_with_comments(lines, blocks[0])
        return _insert_block(lines, at, name, wanted)

    _edit(path, edit, config.path, name, wanted)
    return get_host(name, config_file)


def remove_host(name: str, config_file: ConfigFile = None) -> None:
    """Remove a host: its blocks, or its name where it shares a ``Host`` line with others.

    :raises ConfigError: an unknown host, or a file that cannot be written.
    """

    def edit(lines: list[str]) -> list[str]:
        for block in reversed(parse_blocks(lines)):
            if name in block.patterns:
                if set(block.patterns) == {name}:
                    lines = _without_block(lines, block)
                else:
                    lines[block.start] = _with_words(lines[block.start], name, None)
        return lines

    config = _Configuration(config_file)
    for path in config.sources(name):
        _edit(path, edit, config.path, name, {})


def rename_host(name: str, new_name: str, config_file: ConfigFile = None) -> HostEntry:
    """Give a host another name, on every ``Host`` line that has it.

    :raises ConfigError: an unknown host, an impossible new name or one that is taken.
    """
    _check_name(new_name)
    config = _Configuration(config_file)
    sources = config.sources(name)
    if new_name in config.names:
        raise ConfigError(f"host {new_name} is in {config.source(new_name)} already")

    def edit(lines: list[str]) -> list[str]:
        for block in parse_blocks(lines):
            if name in block.patterns:
                lines[block.start] = _with_words(lines[block.start], name, new_name)
        return lines

    for path in sources:
        _edit(path, edit, config.path, new_name, {})
    return get_host(new_name, config_file)


# ---------------------------------------------------------------------- reading


class _Configuration:
    """The configuration's lines, found by host name: thousands of hosts are no rarity."""

    def __init__(self, config_file: ConfigFile, texts: Optional[Mapping[Path, str]] = None) -> None:
        self.path = default_config_file() if config_file is None else Path(config_file)
        self.names: dict[str, list[Path]] = {}
        self._general: list[tuple[int, Setting]] = []
        self._by_name: dict[str, list[tuple[int, Setting]]] = {}
        for index, setting in enumerate(settings(self.path, texts)):
            if setting.line.keyword == "host":
                for word in setting.line.words:
                    if not re.search(r"[*?!]", word):
                        files = self.names.setdefault(word, [])
                        if setting.file not in files:
                            files.append(setting.file)
            elif setting.decidable and setting.line.keyword not in ("match", "include"):
                words = setting.conditions[-1] if setting.conditions else ("*",)
                if re.search(r"[*?!]", "".join(words)):
                    self._general.append((index, setting))
                else:
                    for word in words:
                        self._by_name.setdefault(word, []).append((index, setting))

    def sources(self, name: str) -> list[Path]:
        if name not in self.names:
            raise ConfigError(f"no host {name!r} in {self.path} or the files that it includes")
        return list(self.names[name])

    def source(self, name: str) -> Path:
        return self.sources(name)[0]

    def settings(self, name: str) -> Iterator[Setting]:
        """The lines that apply to a host, in ssh's order."""
        candidates = self._general + self._by_name.get(name, [])
        for _, setting in sorted(candidates, key=lambda pair: pair[0]):
            if all(_matches(patterns, name) for patterns in setting.conditions):
                yield setting

    def entry(self, name: str) -> HostEntry:
        source = self.source(name)
        found: dict[str, str] = {}
        for setting in self.settings(name):
            line = setting.line
            found.setdefault(line.keyword, line.words[0] if line.words else line.value)
        jump = found.get("proxyjump")
        try:
            port = int(found.get("port", 22))
        except ValueError as error:
            raise ConfigError(f"host {name} in {source}: port {found['port']!r}") from error
        return HostEntry(
            name=name,
            hostname=found.get("hostname", name).replace("%h", name),
            user=found.get("user"),
            port=port,
            proxyjump=None if jump is None or jump.lower() == "none" else jump,
            identity_file=found.get("identityfile"),
            source=source,
        )


def _matches(patterns: tuple[str, ...], name: str) -> bool:
    """Whether a ``Host`` line with these patterns applies; one negated match excludes."""
    positive = False
    for pattern in patterns:
        expression = re.escape(pattern.lstrip("!")).replace(r"\*", ".*").replace(r"\?", ".")
        if re.fullmatch(expression, name, re.DOTALL):
            if pattern.startswith("!"):
                return False
            positive = True
    return positive


# ---------------------------------------------------------------------- editing


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} cannot be a host's name: letters, digits and . _ : % @ - only, no leading -"
        )


def _key(option: str) -> str:
    key = option.replace("_", "")
    if not re.fullmatch(r"[A-Za-z0-9]+", key) or key.lower() in ("host", "match", "include"):
        raise ConfigError(f"{option!r} is not an option of a host")
    return key


def _spelled(options: dict[str, Any]) -> dict[str, list[str]]:
    """Options as they stand in the file: names without underscores, a list of values each."""
    return {
        _key(option): [
            _value(option, v) for v in (value if isinstance(value, (list, tuple)) else [value])
        ]
        for option, value in options.items()
    }


def _value(option: str, value: Any) -> str:
    text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    if not text.strip() or re.search(r"[\x00-\x08\x0a-\x1f\x7f]", text):
        raise ConfigError(f"{option}={text!r}: an empty value, a newline or control character")
    if text.count('"') % 2:
        raise ConfigError(f"{option}={text!r}: an unmatched quote")
    text = text.strip()
    if _key(option).lower() in _PATHS and re.search(r"\s", text) and not text.startswith('"'):
        return f'"{text}"'
    return text


def _edit(
    path: Path,
    edit: Callable[[list[str]], list[str]],
    config_file: Path,
    name: str,
    wanted: dict[str, list[str]],
) -> None:
    """Change one file, after ssh has read the result and found no fault in it."""
    before = read_config(path)
    after = "".join(edit(split_lines(before or "")))
    if after == before:
        return
    overriding = _overriding(_Configuration(config_file, {path: after}), name, wanted)
    if overriding is not None:
        raise ConfigError(
            f"host {name}: {overriding.file} line {overriding.number} comes first and sets "
            f"{overriding.line.name} to {overriding.line.value}; nothing was changed"
        )
    _check_with_ssh(before or "", after, name, path)
    replace_file(path, after, expected=before)


def _overriding(
    config: _Configuration, name: str, wanted: dict[str, list[str]]
) -> Optional[Setting]:
    """The line, if any, that counts instead of one that was asked for."""
    first: dict[str, Setting] = {}
    for setting in config.settings(name):
        first.setdefault(setting.line.keyword, setting)
    for key, values in wanted.items():
        winner = first.get(key.lower())
        if key.lower() not in _REPEATABLE and winner and winner.line.value not in values:
            return winner
    return None


def _check_with_ssh(before: str, after: str, name: str, path: Path) -> None:
    """Have ``ssh -G`` read the new text.

    :raises ConfigError: with ssh's words, unless the old text had a fault already.
    """
    complaint = _complaint(after, name)
    if complaint and not _complaint(before, name):
        raise ConfigError(f"{path} is left unchanged, for ssh would say: {complaint}")


def _complaint(text: str, name: str) -> str:
    with tempfile.NamedTemporaryFile(prefix="holdfast-", suffix=".conf") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
        file.flush()
        command = ["ssh", "-G", "-F", file.name, "--", name]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20
            )
        except (OSError, subprocess.TimeoutExpired):  # no ssh here; a Match exec that hangs
            return ""
        message = done.stderr.strip().replace(file.name + ": ", "").replace(file.name, "")
        return message if done.returncode else ""


def _newline(lines: list[str]) -> str:
    return "\r\n" if lines and lines[0].endswith("\r\n") else "\n"


def _start_with_comments(lines: list[str], block: Block) -> int:
    """Where a block starts, comments directly above its header included."""
    start = block.start
    while start > 0 and lines[start - 1].strip().startswith("#"):
        start -= 1
    return start


def _body_end(lines: list[str], block: Block) -> int:
    """One past the block's last setting: comments after that may belong to the next block."""
    end = block.stop
    while end > block.start + 1 and parse_line(lines[end - 1]) is None:
        end -= 1
    return end


def _indent(lines: list[str]) -> str:
    """The indentation that most lines below a Host or Match line have."""
    seen: dict[str, int] = {}
    for block in parse_blocks(lines)[1:]:
        for text in lines[block.start + 1 : block.stop]:
            if parse_line(text) is not None:
                blanks = text[: len(text) - len(text.lstrip())]
                seen[blanks] = seen.get(blanks, 0) + 1
    return max(seen, key=seen.__getitem__) if seen else "    "


def _insert_block(lines: list[str], at: int, name: str, wanted: dict[str, list[str]]) -> list[str]:
    import sshconf

    added = sshconf.empty_ssh_config_file()
    added.indent = _indent(lines)
    added.add(name, **wanted)
    newline = _newline(lines)
    new = [line.line + newline for line in added.lines_ if line.line]  # without its blank lines
    before, after = lines[:at], lines[at:]
    if before and not before[-1].endswith("\n"):
        before[-1] += newline
    # Blank lines as the neighbours have them, and so that remove_host takes them out again.
    if before and not after:
        new.insert(0, newline)
    elif before and not before[-1].strip():
        new.append(newline)
    return before + new + after


def _edit_block(
    lines: list[str], block: Block, name: str, wanted: dict[str, list[str]], removed: list[str]
) -> list[str]:
    import sshconf

    # sshconf edits what its ConfigLines say, so it gets ours: they know key=value, # in values
    # and Match. (Its own parser also warns, and some day fails, from Python 3.13.)
    file = sshconf.empty_ssh_config_file()
    file.indent = _indent(lines)
    file.hosts_ = [name]
    for text in lines[block.start : block.stop]:
        line = parse_line(text)
        if line is None:
            file.lines_.append(sshconf.ConfigLine(text))
        else:
            file.lines_.append(sshconf.ConfigLine(text, name, line.name, line.value))
    file.unset(name, *[key.lower() for key in removed])
    for key, values in wanted.items():
        if _present(file.lines_, key) != values:  # else a comment at the line's end would go
            # reversed: sshconf takes values from the end
            file.set(name, **{key: list(reversed(values))})
    newline = _newline(lines)
    edited = [c.line if c.line.endswith("\n") else c.line + newline for c in file.lines_]
    if block.stop == len(lines) and not lines[-1].endswith("\n"):
        edited[-1] = edited[-1].rstrip("\r\n")
    return lines[: block.start] + edited + lines[block.stop :]


def _present(config_lines: list[Any], key: str) -> list[str]:
    return [c.value for c in config_lines if c.key is not None and c.key.lower() == key.lower()]


def _without_block(lines: list[str], block: Block) -> list[str]:
    before, after = lines[: block.start], lines[_body_end(lines, block) :]
    if before and not before[-1].strip() and (not after or not after[0].strip()):
        del before[-1]  # one blank line between the neighbours is enough
    return before + after


def _with_words(text: str, name: str, replacement: Optional[str]) -> str:
    """A Host line with one of its words replaced, or taken out, and the rest as it is."""
    line: Optional[Line] = parse_line(text)
    assert line is not None
    for word, (start, stop) in reversed(list(zip(line.words, line.spans))):
        if word == name:
            if replacement is None:
                head, tail = text[:start], text[stop:]
                text = head.rstrip(" \t") + tail if not tail.strip() else head + tail.lstrip(" \t")
            else:
                text = text[:start] + replacement + text[stop:]
    return text
