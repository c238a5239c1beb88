"""The ``holdfast`` command: finds the verb, imports that one alone, and is the one place where
errors become exit statuses."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, NoReturn, Optional

from holdfast.errors import HoldfastError

from .arguments import add_logging_options

#: Verb -> its line in ``holdfast --help``. The order is that of a first day with it.
VERBS = {
    "demo": "one login against fifty, on a server of its own or on yours",
    "doctor": "what works, what does not, and what to do",
    "open": "log in, on this terminal if need be, and keep the connection open",
    "run": "run a command: its output, its stdin, its exit status",
    "shell": "a shell of your own there, or a command that wants a terminal",
    "put": "copy a file or directory there",
    "get": "copy a file or directory here",
    "forward": "ports of one side that lead to the other",
    "ls": "the connections that are open",
    "check": "whether a connection is open",
    "close": "end a connection",
    "clean": "remove what dead connections have left",
    "hosts": "list and edit the hosts of ~/.ssh/config",
    "config": "the settings in force; share connections with plain ssh, scp, rsync and git",
    "bench": "what a command costs on a host of yours, against an ssh process each",
}

FAILED = 255  # as ssh(1): not a status of the remote command
INTERRUPTED = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE = 141  # 128 + SIGPIPE

_DESCRIPTION = "Commands and files over one SSH login that stays open."
_EPILOG = """\
examples:
  holdfast open cluster1                  log in once, with password and code if need be
  holdfast run cluster1 squeue --me       every later command takes milliseconds
  holdfast put cluster1 input.nc runs/    files too
  holdfast close cluster1                 or let it close itself after a while

HOST is whatever ssh takes: an alias of ~/.ssh/config, [user@]host[:port], ssh://user@host:port.
holdfast VERB --help explains a verb.

exit status: that of the remote command, or 255 with the reason on stderr.
"""


class Parser(argparse.ArgumentParser):
    """An argparse parser that leaves statuses below 255 to remote commands."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **arguments
        )

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"holdfast: {message}\n")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command line. :returns: the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    _open_standard_streams()
    with _signals_as_exits():
        return _guarded(words)


def _guarded(words: list[str]) -> int:
    try:
        status = _dispatch(words)
        sys.stdout.flush()
        return status
    except HoldfastError as error:
        return _failed(str(error))
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has had enough. What is still buffered has nowhere to go.
        _nowhere(1)
        return BROKEN_PIPE
    except SystemExit as request:
        return request.code if isinstance(request.code, int) else FAILED
    except Exception as error:
        hint = "" if _debugging() else "; run it again with -vv for the whole story"
        return _failed(f"internal error: {type(error).__name__}: {error}{hint}")


def _failed(message: str) -> int:
    if _debugging():
        import traceback

        traceback.print_exc()
    with suppress(OSError):
        print(f"holdfast: {message}", file=sys.stderr)
    return FAILED


def _dispatch(words: list[str]) -> int:
    leading: list[str] = []
    while words and words[0] in ("-v", "-vv", "-q", "--verbose", "--quiet"):
        leading.append(words.pop(0))  # `holdfast -v run ...` means `holdfast run -v ...`
    if not words or words[0] not in VERBS:
        return _without_verb(words)
    name, rest = words[0], leading + words[1:]
    module = importlib.import_module(f"holdfast.cli.verbs.{name}")
    parser = verb_parser(name, module)
    parse = getattr(module, "parse", None)
    args = parse(parser, rest) if parse else parser.parse_args(rest)
    _set_up_logging(args.verbose, args.quiet)
    return int(args.main(args))


def verb_parser(name: str, module: ModuleType) -> Parser:
    """The parser of one verb. :param module: of ``cli/verbs``."""
    parser = Parser(
        prog=f"holdfast {name}",
        description=module.DESCRIPTION,
        epilog=module.EPILOG,
        usage=getattr(module, "USAGE", None),
    )
    parser.set_defaults(main=getattr(module, "main", None), verbose=0, quiet=False)
    module.configure(parser)
    add_logging_options(parser)
    return parser


def _without_verb(words: list[str]) -> int:
    parser = Parser(
        prog="holdfast", usage="holdfast VERB ...", description=_DESCRIPTION, epilog=_epilog()
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("verb", nargs="?", metavar="VERB", help=argparse.SUPPRESS)
    args, _ = parser.parse_known_args(words)
    if args.verb:
        import difflib

        near = difflib.get_close_matches(args.verb, VERBS, 1)
        hint = f"did you mean {near[0]}?" if near else "holdfast --help lists the verbs"
        parser.error(f"there is no verb {args.verb!r}; {hint}")
    if words:
        parser.error(f"no verb in {' '.join(words)!r}; holdfast --help lists them")
    parser.print_help()
    return 0


def _epilog() -> str:
    verbs = "\n".join(f"  {name:8} {line}" for name, line in VERBS.items())
    return f"verbs:\n{verbs}\n\n{_EPILOG}"


def _version() -> str:
    from holdfast import __version__

    return f"holdfast {__version__}"


def _set_up_logging(verbose: int, quiet: bool) -> None:
    level = logging.WARNING
    if quiet:
        level = logging.ERROR
    elif verbose or _debugging():
        level = logging.DEBUG if verbose > 1 or _debugging() else logging.INFO
    log = logging.getLogger("holdfast")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("holdfast: %(message)s"))
    log.handlers[:] = [handler]
    log.setLevel(level)
    log.propagate = False


def _debugging() -> bool:
    """-vv, or the variable; then errors come with their tracebacks."""
    if logging.getLogger("holdfast").level == logging.DEBUG:
        return True
    return os.environ.get("HOLDFAST_DEBUG", "0") not in ("", "0")


def _open_standard_streams() -> None:
    """Give a closed stdin, stdout or stderr something harmless, as ssh itself does.

    Otherwise the next file that is opened becomes our stdout.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _nowhere(descriptor)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (for the life of the process)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a test's own stream
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _nowhere(descriptor: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)


@contextmanager
def _signals_as_exits() -> Iterator[None]:
    """TERM and HUP unwind the stack, so that the ssh of a command ends with us."""
    import signal

    def leave(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            with suppress(ValueError):  # not the main thread
                before[number] = signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    sys.exit(main())
