"""Sessions opened ahead of time, so that a command costs one round trip instead of two.

A ready session is the account's login shell, waiting in ``read`` for a command on its stdin. It gets
``exec env -i ENVIRONMENT SHELL -c COMMAND`` and becomes exactly what sshd would have started: the same
process id, arguments and environment, and rc files read once more, by the shell that runs the
command. For that the environment that sshd gives must be known: the first ready session tells it,
from /proc; where there is no /proc there are no ready sessions.

A session that has not been given a command runs nothing; it ends with its stdin.
"""

from __future__ import annotations

import math
import os
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Optional

from .link import Link, log
from .marker import new_nonce
from .openssh.control_master import Master
from .openssh.mux_session import Session, SessionNotOpened
from .openssh.quoting import quote, single_quoted
from .pipes import Pipes

#: Seconds that a ready session is kept without use.
KEPT = 30.0
#: Seconds of a round trip from which one pays: below, the server's work for it costs more.
WORTH = 0.005
#: Bytes of a command: longer ones go the usual way, as the shell reads byte by byte.
LONGEST = 16 * 1024
#: How many wait at once. sshd gives a session no window before its exec, so a command can be sent
#: two round trips after its session was asked for: one each for this command and the next.
DEPTH = 2
_SHELLS = frozenset({"bash", "zsh", "ksh", "ksh93", "dash", "sh"})
_GREETING_TIMEOUT = 20.0  # seconds for the first one, whose rc files may be slow
_AFTER_REFUSAL = 60.0  # seconds without ready sessions once the server has refused one
_FORGET = 5.0  # seconds between two looks for sessions that were kept too long

# Reads lines up to the nonce; the variables are gone with exec.
_READ = """echo {nonce} $$ $PPID $SHELL; echo {nonce} 0 0 - >&2
c=; while IFS= read -r l && [ "$l" != {nonce} ]; do c="$c$l
"; done; [ "$l" = {nonce} ] && eval "$c"
"""

# Before that, the first one tells its environment, and whether the name of the shell alone finds it:
# sshd calls it by its name, which is in its messages.
_TELL = """p=$(tr '\\000' '\\n' </proc/$$/environ | sed -n s/^PATH=//p); b=${{SHELL##*/}}
[ "$(PATH=$p; command -v "$b")" -ef "$SHELL" ] || b=$SHELL
echo {nonce}-environment; echo "$b"; cat /proc/$$/environ; echo; """


@dataclass(frozen=True)
class Template:
    """What sshd starts a session with. :ivar master: the pid of the master it is known of.

    :ivar sent: the environment that this process sends. :ivar shell: the word that starts it.
    """

    master: int
    sent: tuple[bytes, ...]
    shell: str
    environment: tuple[str, ...]

    def line(self, command: str) -> str:
        """What makes a waiting shell the session of a command."""
        words = " ".join(quote(word) for word in self.environment)
        # Back to where sshd starts it: the waiting shell's rc files may have gone elsewhere.
        home = next((word[5:] for word in self.environment if word.startswith("HOME=")), "/")
        return (
            f"cd {quote(home)}; exec env -i {words} {quote(self.shell)} -c {single_quoted(command)}"
        )


@dataclass
class Ready:
    """A session that waits for its command."""

    session: Session
    pipes: Pipes
    nonce: str
    master: Master
    since: float

    def drop(self) -> None:
        self.session.close()
        self.pipes.close_ours()


class ReadySessions:
    """The ready sessions of one link, oldest first; safe for threads."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._ready: deque[Ready] = deque()
        self._template: Optional[Template] = None
        self._not_before = -math.inf
        self.hits = 0
        self.misses = 0

    def take(self, master: Master, command: str) -> Optional[Ready]:
        """A session to which this command has been given; None: go the usual way."""
        if not self._wanted() or len(command) > LONGEST or "\0" in command:
            return None
        with self._lock:
            ready = self._ready.popleft() if self._ready else None
            template = self._template
        if ready is None or ready.master.pid != master.pid:
            self._miss(ready)
            return None
        if template is None:
            template = self._learn(ready)
        if template is None or template != self._current(template, master):
            with self._lock:
                self._template = None
            self._miss(ready)
            return None
        try:
            ready.session.await_opened(time.monotonic() + _GREETING_TIMEOUT)
            if ready.session.read(0):
                raise SessionNotOpened("the session has ended while it waited")
            line = f"{template.line(command)}\n{ready.nonce}\n".encode("utf-8", "surrogateescape")
            stdin = ready.pipes.ours[0]
            assert stdin is not None
            os.write(stdin.fileno(), line)
        except SessionNotOpened as error:
            self._refused(error)
        except (OSError, TimeoutError):
            pass
        else:
            self.hits += 1
            return ready
        self._miss(ready)
        return None

    def prepare(self, master: Master) -> None:
        """Ask for as many as are wanted; does not wait for the server."""
        if not self._wanted() or time.monotonic() < self._not_before:
            return
        with self._lock:
            # Until the first has told, nobody can say what to give to a second one.
            while len(self._ready) < (DEPTH if self._template else 1):
                fresh = self._asked(master)
                if fresh is None:
                    return
                self._ready.append(fresh)
        _reaper.watch(self)

    def _asked(self, master: Master) -> Optional[Ready]:
        """A session that is on its way; None if the master takes no request."""
        nonce = new_nonce()
        script = _READ.format(nonce=nonce)
        if self._template is None:
            script = _TELL.format(nonce=nonce) + script
        pipe = subprocess.PIPE
        pipes = Pipes(pipe, pipe, pipe, nonce, set_aside=True)
        try:
            session = Session.request(
                master.control_path,
                script.encode(),
                pipes.theirs,
                time.monotonic() + 1.0,
                environment=self._link.session_environment(),
                agent=self._link.forwards_agent(),
            )
        except (SessionNotOpened, ValueError, OSError):
            pipes.close_ours()
            return None
        finally:
            pipes.close_theirs()
        return Ready(session, pipes, nonce, master, time.monotonic())

    def drop(self, older_than: float = 0.0) -> bool:
        """Let go of those there are. True if nothing is left to drop later."""
        old: list[Ready] = []
        with self._lock:
            before = time.monotonic() - older_than
            while self._ready and self._ready[0].since <= before:
                old.append(self._ready.popleft())
            left = bool(self._ready)
        for ready in old:
            ready.drop()
        return not left

    def refused(self) -> None:
        """The server gives no more sessions: others need this one more."""
        self._not_before = time.monotonic() + _AFTER_REFUSAL
        self.drop()

    def _wanted(self) -> bool:
        mode = self._link.settings.ready_sessions
        if mode == "off" or not self._link.settings.track_processes:
            return False
        if PurePosixPath(self._link.shell).name not in _SHELLS:
            return False
        return mode == "on" or self._link.round_trip >= WORTH

    def _miss(self, ready: Optional[Ready]) -> None:
        self.misses += 1
        if ready is not None:
            ready.drop()

    def _refused(self, error: SessionNotOpened) -> None:
        if error.refused:
            self._not_before = time.monotonic() + _AFTER_REFUSAL

    def _current(self, template: Template, master: Master) -> Optional[Template]:
        """The same template, if it holds for this master and what this process sends now."""
        sent = tuple(self._link.session_environment())
        return template if (template.master, template.sent) == (master.pid, sent) else None

    def _learn(self, ready: Ready) -> Optional[Template]:
        """Wait for the greeting of the first one, and read the environment in it."""
        marked = ready.pipes.marked
        assert marked is not None
        found = None
        with suppress(SessionNotOpened, TimeoutError, OSError):
            ready.session.await_opened(time.monotonic() + _GREETING_TIMEOUT)
            found = marked.identity(time.monotonic() + _GREETING_TIMEOUT)
        sent = tuple(self._link.session_environment())
        template = found and parse_greeting(marked.before, ready.nonce, ready.master.pid, sent)
        if not template:
            log.debug(
                "%s: no ready sessions; its shell has not told what it needs", self._link.name
            )
            self._not_before = math.inf
            return None
        with self._lock:
            self._template = template
        return template


def parse_greeting(
    before: bytes, nonce: str, master: int, sent: Sequence[bytes]
) -> Optional[Template]:
    """The template in what the first ready session has written; None if it is not there."""
    _, found, told = before.partition(f"{nonce}-environment\n".encode())
    shell, newline, environ = told.partition(b"\n")
    items = tuple(os.fsdecode(item) for item in environ.rstrip(b"\n").split(b"\0") if item)
    if not found or not newline or not any(item.startswith("PATH=") for item in items):
        return None
    if not all("=" in item for item in items):
        return None
    return Template(master, tuple(sent), os.fsdecode(shell), items)


_of_links: weakref.WeakKeyDictionary[Link, ReadySessions] = weakref.WeakKeyDictionary()


def ready_sessions(link: Link) -> ReadySessions:
    """The ready sessions of a link."""
    found = _of_links.get(link)
    if found is None:
        found = _of_links.setdefault(link, ReadySessions(link))
    return found


class _Reaper:
    """One thread for all links: lets go of what was kept for too long."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: set[ReadySessions] = set()
        self._thread: Optional[threading.Thread] = None

    def watch(self, sessions: ReadySessions) -> None:
        with self._lock:
            self._watched.add(sessions)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, daemon=True, name="holdfast-reaper"
                )
                self._thread.start()

    def _work(self) -> None:
        while True:
            time.sleep(_FORGET)
            with self._lock:
                self._watched = {each for each in self._watched if not each.drop(KEPT)}
                if not self._watched:
                    self._thread = None
                    return


_reaper = _Reaper()


def _after_fork() -> None:
    global _reaper
    _reaper = _Reaper()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
