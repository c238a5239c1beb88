"""rsync command lines over a live master, or over a login of its own: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from .errors import ConfigError
from .options import GUARD, PLAIN, Options

_NOTHING = Options()


def remote_shell(
    ssh: str,
    *,
    control_path: Optional[str],
    port: Optional[int] = None,
    config_file: Optional[str] = None,
    options: Options = _NOTHING,
) -> str:
    """The command for rsync's ``-e``.

    :param control_path: the master's socket; None logs in.
    :raises ConfigError: a word holds white space or quotes, at which rsync splits (rsync(1), -e).
    """
    sharing = GUARD + Options.of(ControlPath=control_path) if control_path else PLAIN
    words = [ssh]
    if config_file:
        words += ["-F", config_file]
    words += (sharing + options).arguments()
    if port is not None:
        words += ["-p", str(port)]
    for word in words:
        if not word or any(c.isspace() or c in "'\"" for c in word):
            raise ConfigError(f"rsync cannot hand {word!r} to ssh: it holds white space or quotes")
    return " ".join(words)


def rsync(
    program: str,
    sources: Sequence[str],
    target: str,
    *,
    shell: str,
    flags: Sequence[str] = (),
) -> list[str]:
    """Copy between this machine and a destination.

    :param sources: operands, see :func:`command.remote_operand` and
        :func:`quoting.local_operand`. Remote paths are taken literally: ``--protect-args`` keeps
        them from the remote shell (rsync 3.0).
    :param shell: see :func:`remote_shell`. :param flags: what to copy, and how.
    """
    return [program, "--protect-args", "-e", shell, *flags, "--", *sources, target]
