"""One session kept open as a worker: commands go in, exit statuses and both streams come back.

For polling, and for many small commands: a command costs one round trip and no session; a builtin not
even a process.
"""

from __future__ import annotations

import select
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any, Optional, Union

from . import sessions
from .errors import CommandTimeout, ConfigError, ConnectionLost
from .exchange import read_below_buffer
from .link import Link
from .marker import is_posix, new_nonce
from .openssh.quoting import Word, assignments, enter, quote, remote_command, single_quoted
from .remote_process import Completed, RemoteProcess

_END_PATIENCE = 0.9  # seconds for the word that a worker is gone

# Reads a word, then lines until that word comes again; runs them; tells the word and the status on
# stdout, and the word on stderr. `command` keeps dash and ksh alive after a syntax error; zsh has it
# for programs only, and does not need it.
_LOOP = r"""while IFS= read -r _hf_n; do _hf_c=; while IFS= read -r _hf_l && [ "$_hf_l" != "$_hf_n" ]
do _hf_c="$_hf_c$_hf_l
"; done; {eval} "$_hf_c" </dev/null; printf '%s %s\n' "$_hf_n" "$?"; printf '%s\n' "$_hf_n" >&2; done
"""


class Shell:
    """A worker on the far side; :meth:`Connection.shell` makes one. Safe for threads, one at a time.

    It is the account's login shell (``/bin/sh`` where that is no POSIX shell), with its rc files
    read. It is one shell: a directory or a variable that a command changes stays changed for the
    next, ``exit`` ends it, and so does an error under ``set -e``. Commands have an empty stdin. What
    a command leaves in the background and prints later, the next command gets.

    :ivar destination: where it runs.
    """

    def __init__(self, link: Link) -> None:
        self.destination = link.name
        self._link = link
        self._lock = threading.Lock()
        self._why_ended = ""
        shell = link.shell or _ask_shell(link)
        loop = _LOOP.format(eval="eval" if PurePosixPath(shell).name == "zsh" else "command eval")
        script = loop if is_posix(shell) else remote_command(["/bin/sh", "-c", loop])
        pipe = subprocess.PIPE
        self._process: RemoteProcess = sessions.start(link, "shell", script, (pipe, pipe, pipe))
        self._out, self._err = bytearray(), bytearray()

    @property
    def alive(self) -> bool:
        """Whether it can still run commands, as far as this side knows."""
        return not self._why_ended and not self._process.carrier_ended()

    def run(
        self,
        command: Union[str, list[Word]],
        *,
        cwd: Optional[Word] = None,
        env: Optional[Mapping[str, str]] = None,
        timeout: Optional[float] = None,
        check: bool = False,
        text: bool = True,
    ) -> Completed:
        """Run a command in this shell and wait for it.

        :param command: a string for the shell, or words that are quoted for it.
        :param cwd, env: for this command only, which then runs in a subshell.
        :param timeout: seconds; then the shell is ended with the command, as it is the one at work.
        :param check, text: as in :meth:`Connection.run`.
        :returns: as :meth:`Connection.run`. ``exit`` gives its status, and the shell has ended.
        :raises ConnectionLost: the shell has ended before (``started`` is False) or went away.
        :raises CommandTimeout: :raises CommandFailed: as :meth:`Connection.run`.
        """
        line = _line(command, cwd, env)
        begin = time.monotonic()
        with self._lock:
            if not self.alive:
                why = self._why_ended or "its session has ended"
                raise ConnectionLost(
                    f"the shell on {self.destination} is no more ({why}); open a new one",
                    started=False,
                )
            try:
                status, out, err = self._exchange(
                    line, None if timeout is None else begin + timeout
                )
            except TimeoutError:
                self._why_ended = "a command timed out"
                raise CommandTimeout(
                    command,
                    timeout or 0.0,
                    _decoded(bytes(self._out), text),
                    _decoded(bytes(self._err), text),
                    remote_ended=self._process.end(_END_PATIENCE),
                    destination=self.destination,
                ) from None
            except BaseException as error:
                self._why_ended = f"{type(error).__name__} under a command"
                self._process.end(_END_PATIENCE)
                raise
        done = Completed(
            command,
            status,
            _decoded(out, text),
            _decoded(err, text),
            self._process.signal,
            time.monotonic() - begin,
            self.destination,
        )
        if check:
            done.check_returncode()
        return done

    def close(self) -> None:
        """End the shell; its session is free again."""
        with self._lock:
            if not self._why_ended:
                self._why_ended = "it was closed"
                self._process.close_streams()
                self._process.let_go()
                self._process.verdict()

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def _exchange(self, line: str, deadline: Optional[float]) -> tuple[int, bytes, bytes]:
        """Send one command; its status and what it wrote. :raises TimeoutError:"""
        nonce = new_nonce()
        process, out, err = self._process, self._out, self._err
        stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        out.clear()
        err.clear()
        try:
            stdin.write(f"{nonce}\n{line}\n{nonce}\n".encode("utf-8", "surrogateescape"))
            stdin.flush()
        except BrokenPipeError:
            return self._ended()
        word = nonce.encode()
        poll = select.poll()
        poll.register(stdout.fileno(), select.POLLIN)
        poll.register(stderr.fileno(), select.POLLIN)
        streams = {stdout.fileno(): (stdout, out), stderr.fileno(): (stderr, err)}
        found = {stdout.fileno(): -1, stderr.fileno(): -1}
        while min(found.values()) < 0:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            # In slices: an exception that is meant for this thread waits for the end of one.
            for descriptor, _ in poll.poll(500 if left is None else min(left, 0.5) * 1000):
                stream, kept = streams[descriptor]
                chunk = read_below_buffer(stream)
                if chunk == b"":
                    return self._ended()
                if chunk:
                    start = max(0, len(kept) - len(word) - 8)
                    kept += chunk
                    at = kept.find(word, start)
                    if at >= 0 and kept.endswith(b"\n"):
                        found[descriptor] = at
        at = found[stdout.fileno()]
        status = int(out[at + len(word) :])
        return status, bytes(out[:at]), bytes(err[: found[stderr.fileno()]])

    def _ended(self) -> tuple[int, bytes, bytes]:
        """The worker has ended under a command: by ``exit``, or it was killed, or the link is lost."""
        for stream, kept in ((self._process.stdout, self._out), (self._process.stderr, self._err)):
            while stream is not None:
                chunk = read_below_buffer(stream)
                if chunk == b"":
                    break
                kept += chunk or b""
        self._why_ended = "its shell has ended"
        status = self._process.wait()
        self._process.close_streams()
        return status, bytes(self._out), bytes(self._err)


def _ask_shell(link: Link) -> str:
    """The account's login shell, by a command that tells it."""
    nothing = subprocess.DEVNULL
    with sessions.start(
        link, "true", "true", (nothing, subprocess.PIPE, subprocess.PIPE)
    ) as process:
        process.communicate(timeout=link.settings.login_timeout)
    return link.shell


def _line(
    command: Union[str, list[Word]], cwd: Optional[Word], env: Optional[Mapping[str, str]]
) -> str:
    if isinstance(command, str):
        if not command.strip() or "\0" in command:
            raise ConfigError("the command is empty or holds a NUL")
        line = command
    elif command:
        line = " ".join(quote(word) for word in command)
    else:
        raise ConfigError("the command is empty")
    if cwd is None and not env:
        return line
    exports = f"export {assignments(env)}; " if env else ""
    return f"( {enter(cwd)}{exports}eval {single_quoted(line)} )"


def _decoded(data: bytes, text: bool) -> Any:
    return data.decode("utf-8", "surrogateescape") if text else data
