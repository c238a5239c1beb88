"""Signals for remote processes: the mux protocol has none, so a second session sends them."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Optional

from . import aside
from .link import Link, log
from .marker import Identity
from .openssh import command as ssh_command
from .openssh.mux_session import SessionNotOpened
from .openssh.quoting import remote_command

#: Seconds between TERM and KILL on the far side.
GRACE = 0.5
_REFUSED_PAUSE = 0.05  # seconds between two tries for a session
_KEEP_TRYING = 30.0  # seconds that a kill goes on in the background once its caller has gone

# $1 pid, $2 the sshd above it (0: the one above this script, on the same connection), $3 a signal or "end", $4 tenths of seconds of grace.
# is_ours: the pid is still our process: its parent is the same sshd. A leader that is gone while its
# group is not leaves only processes of ours in that group, for the number cannot be given away.
# The stat line of /proc is read behind the name, which may hold spaces.
_SCRIPT = r"""
p=$1 q=$2 s=$3 n=$4
[ "$q" = 0 ] && q=$PPID
look() {
  z= x= g=
  if [ -d /proc/self ]; then
    { read -r l < /proc/$p/stat; } 2>/dev/null && set -- ${l##*) } && z=$1 x=$2 g=$3
  else
    set -- $(ps -o stat= -o ppid= -o pgid= -p "$p" 2>/dev/null); z=$1 x=$2 g=$3
  fi
}
is_there() { look; case $z in ""|Z*|X*) kill -0 "-$p" 2>/dev/null;; *) true;; esac; }
look
case $z in
  ""|Z*|X*) k=-$p;;
  *) if [ "$x" != "$q" ]; then echo gone; exit; fi
     if [ "$g" = "$p" ]; then k=-$p; else k=$p; fi;;
esac
if [ "$s" != end ]; then kill -s "$s" -- "$k" 2>/dev/null && echo sent || echo gone; exit; fi
kill -s TERM -- "$k" 2>/dev/null || { echo gone; exit; }
i=0
while [ $i -lt $n ]; do
  is_there || { echo gone; exit; }
  sleep 0.1 2>/dev/null || { sleep 1; i=$n; }
  i=$((i+1))
done
kill -s KILL -- "$k" 2>/dev/null
i=0
while [ $i -lt 20 ]; do
  look
  case $z in ""|Z*|X*) echo gone; exit;; esac
  sleep 0.05 2>/dev/null || sleep 1
  i=$((i+1))
done
echo there
""".strip()


@dataclass(frozen=True)
class RemoteSignaller:
    """Signals for the processes of one connection; see :func:`end` and :func:`send`."""

    link: Link

    def end(self, who: Identity, timeout: float) -> Optional[bool]:
        return end(self.link, who, timeout)

    def send(self, who: Identity, number: int) -> bool:
        return send(self.link, who, number)


def end(link: Link, who: Identity, timeout: float) -> Optional[bool]:
    """TERM, then KILL, for the process and its group.

    :param timeout: seconds to wait for the word that it is gone; the far side, or a thread of this
        process, goes on after that.
    :returns: True: gone. False: it is still there. None: nobody knows.
    """
    answer: list[str] = []

    def work() -> None:
        with suppress(Exception):  # what went wrong is in the log; the answer is "unknown"
            answer.append(_over_any_session(link, who, "end"))

    worker = threading.Thread(target=work, daemon=True, name="holdfast-kill")
    worker.start()
    worker.join(timeout)
    return {"gone": True, "there": False}.get(answer[0] if answer else "")


def send(link: Link, who: Identity, number: int) -> bool:
    """One signal for the process and its group. False: it is gone, or nobody knows.

    :param number: as in :mod:`signal`.
    """
    return _over_any_session(link, who, signal.Signals(number).name[3:]) == "sent"


def _over_any_session(link: Link, who: Identity, what: str) -> str:
    script = remote_command(
        ["/bin/sh", "-c", _SCRIPT, "sh", str(who.pid), str(who.parent), what, str(int(GRACE * 10))]
    )
    deadline = time.monotonic() + _KEEP_TRYING
    refusals = 0
    while time.monotonic() < deadline:
        master = link.control_master().find() if link.why_no_sharing() is None else None
        if master is None or refusals > 3:
            # No session is to be had on a master: a login of its own, if nobody has to be asked.
            return _over_a_login(link, script) if who.parent else ""
        try:
            return _word(aside.output(master, script, deadline))
        except SessionNotOpened as error:
            log.debug("a signal for %s:%d waits: %s", link.name, who.pid, error)
            refusals += 1 if error.refused else 0
            time.sleep(_REFUSED_PAUSE)
    return ""


def _over_a_login(link: Link, script: str) -> str:
    log.info("login to %s: a signal for a process, as no session is free", link.name)
    argv = ssh_command.run_plain(
        link.ssh,
        link.destination,
        script,
        log="/dev/null",
        config_file=link.config_file,
        options=link.login_options() + link.session_options(),
    )
    with link.ledger.login(link.name, link.key, "plain") as entry:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=link.settings.login_timeout,
            check=False,
        )
        if done.returncode == 255:
            entry.failed("lost")
        else:
            entry.succeeded()
    return _word(done.stdout)


def _word(said: bytes) -> str:
    return said.decode("ascii", "replace").strip()
