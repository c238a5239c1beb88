"""Whole command lines, compared as lists."""

from __future__ import annotations

from typing import Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.openssh import command, forwarding
from holdfast.openssh.destination import Destination
from holdfast.openssh.options import Options

HOST = Destination("cluster1")
FULL = Destination("login.example.org", "alice", 2222)
SIX = Destination("::1", "alice", 2222)
SOCKET = "/run/user/1000/holdfast/s"
GUARD = ["-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "BatchMode=yes"]
PLAIN = ["-o", "ControlMaster=no", "-o", "ControlPath=none", "-o", "BatchMode=yes"]
NO_FORWARDS = ["-o", "ClearAllForwardings=yes"]
ERRORS = ["-o", "LogLevel=ERROR"]


def test_print_config() -> None:
    assert command.print_config("ssh", HOST) == ["ssh", "-v", "-G", "--", "cluster1"]
    assert command.print_config(
        "/usr/bin/ssh", FULL, config_file="/c", options=Options.of(User="bob")
    ) == [
        *("/usr/bin/ssh", "-F", "/c", "-v", "-G", "-o", "User=bob"),
        *("-p", "2222", "--", "alice@login.example.org"),
    ]


def test_start_master_in_the_background() -> None:
    assert command.start_master("ssh", HOST, control_path=SOCKET, persist=600, log="/l") == [
        *("ssh", "-M", "-N", "-f", "-T", "-S", SOCKET, "-E", "/l"),
        *("-o", "ControlPersist=600", "-o", "ClearAllForwardings=yes", "-o", "BatchMode=yes"),
        *("--", "cluster1"),
    ]


def test_start_master_for_ever_with_everything() -> None:
    assert command.start_master(
        "ssh",
        FULL,
        control_path=SOCKET,
        persist=0,
        log="/l",
        config_file="/c",
        options=Options.of(ServerAliveInterval=15, BatchMode=False),
    ) == [
        *("ssh", "-F", "/c", "-M", "-N", "-f", "-T", "-S", SOCKET, "-E", "/l"),
        *("-o", "ControlPersist=yes", "-o", "ClearAllForwardings=yes", "-o", "BatchMode=yes"),
        *("-o", "ServerAliveInterval=15", "-o", "BatchMode=no"),
        *("-p", "2222", "--", "alice@login.example.org"),
    ]


def test_start_master_with_a_human_asks_on_the_terminal() -> None:
    assert command.start_master(
        "ssh", HOST, control_path=SOCKET, persist=600, log=None, interactive=True
    ) == [
        *("ssh", "-M", "-N", "-f", "-T", "-S", SOCKET),
        *("-o", "ControlPersist=600", "-o", "ClearAllForwardings=yes", "--", "cluster1"),
    ]


def test_run_over_master() -> None:
    assert command.run_over_master("ssh", HOST, "a | b", control_path=SOCKET, log="/l") == [
        *("ssh", "-S", SOCKET, "-T", "-E", "/l", *GUARD, *NO_FORWARDS),
        *("-o", "LogLevel=DEBUG3", "--", "cluster1", "a | b"),
    ]


def test_run_over_master_with_a_terminal_and_everything() -> None:
    assert command.run_over_master(
        "ssh",
        SIX,
        "top",
        control_path=SOCKET,
        log=None,
        config_file="/c",
        options=Options.of(Compression=True),
        tty=True,
    ) == [
        *("ssh", "-F", "/c", "-S", SOCKET, "-tt", *GUARD, *NO_FORWARDS),
        *("-o", "Compression=yes"),
        *("-p", "2222", "--", "alice@::1", "top"),
    ]


def test_run_plain() -> None:
    assert command.run_plain("ssh", HOST, "true", log="/l") == [
        *("ssh", "-T", "-E", "/l", *PLAIN, "-o", "LogLevel=DEBUG1", "--", "cluster1", "true")
    ]
    assert command.run_plain(
        "ssh", FULL, "-x", log=None, config_file="/c", options=Options.of(User="b"), tty=True
    ) == [
        *("ssh", "-F", "/c", "-tt", *PLAIN, "-o", "User=b"),
        *("-p", "2222", "--", "alice@login.example.org", "-x"),
    ]


@pytest.mark.parametrize("operation", ["check", "stop", "exit"])
def test_control(operation: str) -> None:
    assert command.control("ssh", FULL, operation, control_path=SOCKET, config_file="/c") == [
        *("ssh", "-F", "/c", "-S", SOCKET, "-O", operation),
        *("-p", "2222", "--", "alice@login.example.org"),
    ]


def test_a_login_shell_has_no_command() -> None:
    assert command.run_over_master("ssh", HOST, None, control_path=SOCKET, log=None, tty=True) == [
        *("ssh", "-S", SOCKET, "-tt", *GUARD, *NO_FORWARDS, "--", "cluster1")
    ]
    assert command.run_plain("ssh", HOST, None, log=None, tty=True, interactive=True) == [
        *("ssh", "-tt", "-o", "ControlMaster=no", "-o", "ControlPath=none", "--", "cluster1")
    ]


def test_forward_plain() -> None:
    debug = ["-o", "ExitOnForwardFailure=yes", "-o", "LogLevel=DEBUG1"]
    assert command.forward_plain("ssh", HOST, forwarding.local(8888, "node17", 80), log="/l") == [
        *("ssh", "-N", "-T", "-L", "127.0.0.1:8888:node17:80", "-E", "/l", *PLAIN, *debug),
        *("--", "cluster1"),
    ]
    assert command.forward_plain(
        "ssh",
        FULL,
        forwarding.dynamic(1080, bind="::1"),
        log="/l",
        config_file="/c",
        options=Options.of(Compression=True),
    ) == [
        *("ssh", "-F", "/c", "-N", "-T", "-D", "[::1]:1080", "-E", "/l", *PLAIN, *debug),
        *("-o", "Compression=yes", "-p", "2222", "--", "alice@login.example.org"),
    ]


def test_scp_over_a_master() -> None:
    assert command.scp("scp", ["a", "./b:c"], "h:d", ssh="/bin/ssh", control_path=SOCKET) == [
        *("scp", "-S", "/bin/ssh", *GUARD, "-o", f"ControlPath={SOCKET}"),
        *(*ERRORS, "--", "a", "./b:c", "h:d"),
    ]


def test_scp_with_everything() -> None:
    assert command.scp(
        "scp",
        ["a"],
        "h:b",
        ssh="ssh",
        control_path=SOCKET,
        port=2222,
        config_file="/c",
        options=Options.of(Compression=True),
        recursive=True,
        preserve=True,
        legacy=True,
        flags=["-v"],
    ) == [
        *("scp", "-S", "ssh", "-F", "/c", *GUARD, "-o", f"ControlPath={SOCKET}"),
        *(*ERRORS, "-o", "Compression=yes", "-v", "-P", "2222", "-r", "-p", "-O", "--", "a", "h:b"),
    ]


def test_scp_with_a_login_of_its_own() -> None:
    assert command.scp("scp", ["h:a"], "b", ssh="ssh", control_path=None) == [
        *("scp", "-S", "ssh", *PLAIN, *ERRORS, "--", "h:a", "b")
    ]


def test_sftp() -> None:
    assert command.sftp("sftp", SIX, ssh="ssh", control_path=SOCKET, config_file="/c") == [
        *("sftp", "-S", "ssh", "-F", "/c", *GUARD, "-o", f"ControlPath={SOCKET}"),
        *("-q", "-b", "-", "-P", "2222", "--", "alice@[::1]"),
    ]
    assert command.sftp(
        "sftp", HOST, ssh="ssh", control_path=None, options=Options.of(User="b"), batch_file="/b"
    ) == [*("sftp", "-S", "ssh", *PLAIN, "-o", "User=b", "-q", "-b", "/b", "--", "cluster1")]


@pytest.mark.parametrize(
    ("destination", "operand"),
    [
        (HOST, "cluster1:/x"),
        (FULL, "alice@login.example.org:/x"),
        (SIX, "alice@[::1]:/x"),
        (Destination("::1"), "[::1]:/x"),
    ],
)
def test_operands_of_scp_leave_the_port_out_and_bracket_addresses(
    destination: Destination, operand: str
) -> None:
    assert command.remote_operand(destination, "/x") == operand


# --- properties ---------------------------------------------------------------------------

_HOSTS = st.builds(
    Destination,
    host=st.from_regex(r"[a-z0-9.][a-z0-9.:%-]{0,9}", fullmatch=True),
    user=st.none() | st.from_regex(r"[a-z][a-z0-9@.-]{0,6}", fullmatch=True),
    port=st.none() | st.integers(1, 65535),
)
_HOSTILE = {"ControlMaster": "auto", "ProxyCommand": "nc %h %p", "BatchMode": "no", "User": "x"}
_OPTIONS = st.dictionaries(st.sampled_from(sorted(_HOSTILE)), st.just("x")).map(
    lambda chosen: Options.from_mapping({key: _HOSTILE[key] for key in chosen})
)
_FILES = st.none() | st.sampled_from(["/c", "/home/a b/config"])
_PATHS = st.sampled_from([SOCKET, "/tmp/x"])
_REMOTE = st.text(min_size=1, max_size=8)


def _first_of_each_option(line: list[str]) -> dict[str, str]:
    """As ssh reads it: the first value of a keyword wins, and options end at ``--``."""
    found: dict[str, str] = {}
    words = line[: line.index("--")]
    for flag, word in zip(words, words[1:]):
        if flag == "-o":
            key, _, value = word.partition("=")
            found.setdefault(key, value)
    return found


def _is_guarded(line: list[str]) -> bool:
    found = _first_of_each_option(line)
    return (found["ControlMaster"], found["ProxyCommand"], found["BatchMode"]) == (
        "no",
        "false",
        "yes",
    )


@given(_HOSTS, _REMOTE, _PATHS, _FILES, _OPTIONS, st.booleans(), st.none() | st.just("/l"))
def test_no_client_call_over_a_master_can_log_in(
    destination: Destination,
    remote: str,
    path: str,
    config_file: Optional[str],
    options: Options,
    tty: bool,
    log: Optional[str],
) -> None:
    line = command.run_over_master(
        "ssh",
        destination,
        remote,
        control_path=path,
        log=log,
        config_file=config_file,
        options=options,
        tty=tty,
    )
    assert _is_guarded(line)
    assert line[line.index("-S") + 1] == path
    assert line[-3:] == ["--", command.account_at_host(destination, brackets=False), remote]


@given(_HOSTS, _PATHS, _FILES, _OPTIONS, st.booleans(), st.booleans(), st.booleans())
def test_no_copy_over_a_master_can_log_in(
    destination: Destination,
    path: str,
    config_file: Optional[str],
    options: Options,
    recursive: bool,
    preserve: bool,
    legacy: bool,
) -> None:
    far = command.remote_operand(destination, "x")
    lines = [
        command.scp(
            "scp",
            ["-y", far],
            "z",
            ssh="ssh",
            control_path=path,
            port=destination.port,
            config_file=config_file,
            options=options,
            recursive=recursive,
            preserve=preserve,
            legacy=legacy,
        ),
        command.sftp(
            "sftp",
            destination,
            ssh="ssh",
            control_path=path,
            config_file=config_file,
            options=options,
        ),
    ]
    for line in lines:
        assert _is_guarded(line)
        assert _first_of_each_option(line)["ControlPath"] == path
    assert lines[0][-4:] == ["--", "-y", far, "z"]
    assert lines[1][-2:] == ["--", command.account_at_host(destination)]


@given(_HOSTS, _REMOTE, _FILES, _OPTIONS)
def test_a_plain_login_never_touches_a_master(
    destination: Destination, remote: str, config_file: Optional[str], options: Options
) -> None:
    line = command.run_plain(
        "ssh", destination, remote, log="/l", config_file=config_file, options=options
    )
    found = _first_of_each_option(line)
    assert (found["ControlMaster"], found["ControlPath"], found["BatchMode"]) == (
        "no",
        "none",
        "yes",
    )
    assert line[-3] == "--"


@given(_HOSTS, _FILES, _OPTIONS, st.booleans())
def test_the_host_always_stands_behind_two_dashes(
    destination: Destination, config_file: Optional[str], options: Options, interactive: bool
) -> None:
    for line in (
        command.print_config("ssh", destination, config_file=config_file, options=options),
        command.start_master(
            "ssh",
            destination,
            control_path=SOCKET,
            persist=5,
            log="/l",
            config_file=config_file,
            options=options,
            interactive=interactive,
        ),
        command.control("ssh", destination, "check", control_path=SOCKET),
    ):
        assert line[-2:] == ["--", command.account_at_host(destination, brackets=False)]
        assert line.count("--") == 1
