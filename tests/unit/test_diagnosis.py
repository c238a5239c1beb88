"""True logs of OpenSSH 9.2 in fixtures/logs; older and newer wordings from OpenSSH's sources.

The words were looked up in ssh.c, sshconnect.c, sshconnect2.c, mux.c, misc.c, kex.c, packet.c and
clientloop.c of V_7_4_P1, V_8_0_P1, V_8_9_P1, V_9_6_P1 and HEAD (10.5).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast import errors
from holdfast.openssh import diagnosis
from holdfast.openssh.diagnosis import Kind, Verdict

LOGS = Path(__file__).parent / "fixtures" / "logs"


def captured(name: str) -> tuple[int, str]:
    """Exit status and log of a real ssh."""
    first, _, log = (LOGS / f"{name}.txt").read_text().partition("\n")
    return int(first.split()[-1]), log


# --- logins ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "error"),
    [
        ("password_only", Kind.AUTHENTICATION, errors.AuthenticationRequired),
        ("banner_then_denied", Kind.AUTHENTICATION, errors.AuthenticationRequired),
        ("key_permissions", Kind.AUTHENTICATION, errors.AuthenticationRequired),
        ("too_many_failures", Kind.AUTHENTICATION, errors.AuthenticationRequired),
        ("host_key_unknown", Kind.HOST_KEY_UNKNOWN, errors.HostKeyRejected),
        ("host_key_ask", Kind.HOST_KEY_UNKNOWN, errors.HostKeyRejected),
        ("host_key_changed", Kind.HOST_KEY_CHANGED, errors.HostKeyRejected),
        ("host_key_revoked", Kind.HOST_KEY_CHANGED, errors.HostKeyRejected),
        ("revoked_file", Kind.HOST_KEY_CHANGED, errors.HostKeyRejected),
        ("unknown_host", Kind.UNKNOWN_HOST, errors.HostUnreachable),
        ("refused_port", Kind.UNREACHABLE, errors.HostUnreachable),
        ("banner_timeout", Kind.UNREACHABLE, errors.HostUnreachable),
        ("proxy_fails", Kind.LOST, errors.HostUnreachable),
        ("not_ssh", Kind.LOST, errors.HostUnreachable),
        ("no_negotiation", Kind.CONFIGURATION, errors.ConfigError),
        ("bad_option", Kind.CONFIGURATION, errors.ConfigError),
        ("bad_port", Kind.CONFIGURATION, errors.ConfigError),
        ("missing_argument", Kind.CONFIGURATION, errors.ConfigError),
        ("no_config_file", Kind.CONFIGURATION, errors.ConfigError),
        ("socket_no_directory", Kind.SOCKET, errors.MultiplexingUnsupported),
        ("socket_too_long", Kind.SOCKET, errors.MultiplexingUnsupported),
        ("socket_too_long_to_link", Kind.SOCKET, errors.MultiplexingUnsupported),
        ("socket_taken", Kind.SOCKET_TAKEN, errors.ConnectionFailed),
    ],
)
def test_a_failed_login_of_openssh_9_2_is_told_apart(
    name: str, kind: Kind, error: type[errors.HoldfastError]
) -> None:
    _, log = captured(name)
    assert diagnosis.classify(diagnosis.without_debug(log))[0] is kind
    assert type(diagnosis.connection_error(log, "cluster1")) is error


OTHER_VERSIONS = [
    # 7.4: no user@host in front
    ("Permission denied (publickey,gssapi-keyex,gssapi-with-mic).", Kind.AUTHENTICATION),
    ("alice@h: Permission denied (publickey,password).", Kind.AUTHENTICATION),
    (
        "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures\n"
        "Disconnected from 10.0.0.1 port 22",
        Kind.AUTHENTICATION,
    ),
    (
        "Host key verification failed.\nssh_exchange_identification: Connection closed by remote host",
        Kind.HOST_KEY_UNKNOWN,  # the jump host's, in 7.4
    ),
    ("ssh: Could not resolve hostname h: Name or service not known", Kind.UNKNOWN_HOST),
    (
        "ssh: Could not resolve hostname h: nodename nor servname provided, or not known",
        Kind.UNKNOWN_HOST,  # macOS
    ),
    ("ssh: Could not resolve hostname h: Temporary failure in name resolution", Kind.UNKNOWN_HOST),
    ("ssh: connect to host h port 22: Connection timed out", Kind.UNREACHABLE),
    ("ssh: connect to host h port 22: Operation timed out", Kind.UNREACHABLE),  # macOS
    ("ssh: connect to host h port 22: No route to host", Kind.UNREACHABLE),
    ("ssh: connect to host h port 22: Network is unreachable", Kind.UNREACHABLE),
    ("ssh: connect to host h port 22: Host is down", Kind.UNREACHABLE),
    ("Connection to 10.0.0.1 port 22 timed out", Kind.UNREACHABLE),
    ("banner exchange: Connection to 10.0.0.1 port 22: Connection refused", Kind.UNREACHABLE),
    ("ssh_exchange_identification: Connection closed by remote host", Kind.LOST),  # to 7.9
    ("ssh_exchange_identification: read: Connection reset by peer", Kind.LOST),
    ("kex_exchange_identification: read: Connection reset by peer", Kind.LOST),
    ("Connection closed by 10.0.0.1 port 22", Kind.LOST),  # all that 9.6 and later say
    ("Connection reset by 10.0.0.1 port 22", Kind.LOST),
    ("banner exchange: Connection to UNKNOWN port 65535: invalid format", Kind.LOST),
    (
        "channel 0: open failed: connect failed: No route to host\nstdio forwarding failed\n"
        "kex_exchange_identification: Connection closed by remote host",
        Kind.UNREACHABLE,  # the bastion cannot reach it
    ),
    (
        "channel 0: open failed: administratively prohibited: open failed\n"
        "stdio forwarding failed\nConnection closed by UNKNOWN port 65535",
        Kind.UNREACHABLE,
    ),
    (
        "Unable to negotiate with 10.0.0.1 port 22: no matching host key type found. "
        "Their offer: ssh-rsa,ssh-dss",
        Kind.CONFIGURATION,
    ),
    ("Bad owner or permissions on /home/alice/.ssh/config", Kind.CONFIGURATION),
    ('/c line 3: unsupported option "maybe".', Kind.CONFIGURATION),
    ("/c line 3: Missing argument.", Kind.CONFIGURATION),  # 7.4 and 8.0
    ("unix_listener: cannot bind to path: /x/s.aB3", Kind.SOCKET),  # 7.4
    ("unix_listener: cannot listen on path /x/s: Operation not supported", Kind.SOCKET),
    ("muxserver_listen: link mux listener /x/s.a => /x/s: Operation not permitted", Kind.SOCKET),
    ("ControlPath too long ('/x' >= 108 bytes)", Kind.SOCKET),
    ("getsockname failed: Not a socket", Kind.SOCKET),  # Windows
    ("ControlSocket /x/s already exists, disabling multiplexing", Kind.SOCKET_TAKEN),
    ("something that nobody has seen before", Kind.OTHER),
]


@pytest.mark.parametrize(("log", "kind"), OTHER_VERSIONS)
def test_the_words_of_other_versions_and_systems_are_known(log: str, kind: Kind) -> None:
    assert diagnosis.classify(log)[0] is kind


@pytest.mark.parametrize("log", ["", "\n", "\r\n", " ", "\n\n"])
def test_a_silent_ssh_is_survived(log: str) -> None:
    assert diagnosis.classify(log)[0] is Kind.OTHER
    assert "cluster1" in str(diagnosis.connection_error(log, "cluster1"))


def test_the_line_that_tells_is_given() -> None:
    log = "channel 0: open failed: connect failed: No route to host\nstdio forwarding failed\nx"
    assert diagnosis.classify(log)[1].endswith("No route to host")
    log = "Warning: Permanently added x.\nalice@h: Permission denied (password).\nbye"
    assert diagnosis.classify(log)[1] == "alice@h: Permission denied (password)."


def test_the_error_names_the_destination_and_what_to_type() -> None:
    _, log = captured("password_only")
    error = diagnosis.connection_error(log, "alice@cluster1", config_file="/c")
    assert isinstance(error, errors.AuthenticationRequired)
    assert str(error).endswith("type: holdfast open --config-file /c alice@cluster1")
    assert (error.destination, error.detail) == ("alice@cluster1", log.strip())
    assert "holdfast open cluster1" in str(
        diagnosis.connection_error(captured("host_key_ask")[1], "cluster1")
    )


def test_nobody_is_told_to_accept_a_changed_or_revoked_key() -> None:
    for name in ("host_key_changed", "host_key_revoked", "revoked_file"):
        message = str(diagnosis.connection_error(captured(name)[1], "cluster1"))
        assert "holdfast open" not in message
        assert "administrators" in message


def test_debug_lines_are_no_reason() -> None:
    log = (
        "OpenSSH_9.2p1 Debian-2, OpenSSL 3.0\r\n"
        "debug1: connect to address ::1 port 22: Connection refused\r\n"
        "debug1: No more authentication methods to try.\r\n"
        'Authenticated to h ([10.0.0.1]:22) using "publickey".\r\n'
        "Transferred: sent 1, received 2 bytes, in 0.1 seconds\r\n"
        "Bytes per second: sent 1, received 2\r\n"
        "debug3: x\r\n"
        "what counts\r\n"
    )
    assert diagnosis.without_debug(log) == "what counts"


@given(st.text(max_size=200))
def test_any_log_gives_an_error_and_never_a_crash(log: str) -> None:
    assert isinstance(diagnosis.connection_error(log, "h"), errors.HoldfastError)
    assert isinstance(diagnosis.of_shared_session(255, log, master_alive=True), Verdict)
    assert isinstance(diagnosis.of_plain_session(255, log), Verdict)


# --- sessions over a master -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "alive", "verdict"),
    [
        ("shared_exit_0", True, Verdict(returncode=0)),
        ("shared_exit_3", True, Verdict(returncode=3)),
        ("shared_exit_255", True, Verdict(returncode=255)),
        ("shared_killed", True, Verdict(by_signal=True)),
        ("shared_killed", False, Verdict(lost=True, started=True)),
        ("shared_master_exits", False, Verdict(lost=True, started=True)),
        ("shared_no_master", False, Verdict(lost=True, started=False)),
        ("shared_refused", True, Verdict(refused=True, started=False)),
    ],
)
def test_four_meanings_of_255_are_told_apart(name: str, alive: bool, verdict: Verdict) -> None:
    status, log = captured(name)
    found = diagnosis.of_shared_session(status, log, master_alive=alive)
    assert (found.returncode, found.by_signal, found.lost, found.refused, found.started) == (
        verdict.returncode,
        verdict.by_signal,
        verdict.lost,
        verdict.refused,
        verdict.started,
    )


SENT = "debug3: mux_client_request_session: session request sent\n"


@pytest.mark.parametrize(
    ("log", "started"),
    [
        ("", False),
        ('debug1: Control socket "/s" does not exist\n', False),
        (SENT, None),
        (SENT + "mux_client_request_session: read from master failed: Broken pipe\n", None),
        (SENT + "debug1: mux_client_request_session: master session id: 2\n", True),
    ],
)
def test_whether_a_lost_command_has_started(log: str, started: object) -> None:
    found = diagnosis.of_shared_session(255, log, master_alive=False)
    assert (found.lost, found.started) == (True, started)


@pytest.mark.parametrize(
    "line",
    [
        "mux_client_request_session: session request failed: Session open refused by peer",
        "Master refused session request: Permission denied",
    ],
)
def test_a_refusal_is_a_refusal_in_every_version(line: str) -> None:
    found = diagnosis.of_shared_session(255, SENT + line + "\n", master_alive=True)
    assert (found.refused, found.lost, found.started) == (True, False, False)


def test_a_status_of_its_own_is_believed_without_a_log() -> None:
    assert diagnosis.of_shared_session(3, "", master_alive=True) == Verdict(returncode=3)
    assert diagnosis.of_shared_session(0, "", master_alive=False) == Verdict(returncode=0)


def test_a_client_that_was_killed_gave_no_status() -> None:
    found = diagnosis.of_shared_session(-9, SENT, master_alive=True)
    assert (found.returncode, found.lost, found.started) == (None, True, None)


def test_7_8_to_8_2_tell_of_their_session_by_its_request_only() -> None:
    assert not diagnosis.session_opened(SENT)
    assert diagnosis.session_opened(SENT, tells_id=False)
    assert diagnosis.session_opened("debug1: x: master session id: 2\n")


# --- sessions with a login of their own -----------------------------------------------------


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("plain_exit_0", Verdict(returncode=0)),
        ("plain_exit_255", Verdict(returncode=255)),
        ("plain_killed", Verdict(by_signal=True)),
        ("plain_connection_killed", Verdict(lost=True, started=None)),
        ("plain_refused", Verdict(refused=True, started=False)),
        ("password_only", Verdict(lost=True, started=False)),
        ("refused_port", Verdict(lost=True, started=False)),
    ],
)
def test_what_became_of_a_plain_command(name: str, verdict: Verdict) -> None:
    status, log = captured(name)
    found = diagnosis.of_plain_session(status, log)
    assert (found.returncode, found.by_signal, found.lost, found.refused, found.started) == (
        verdict.returncode,
        verdict.by_signal,
        verdict.lost,
        verdict.refused,
        verdict.started,
    )


@pytest.mark.parametrize(
    "command",
    [
        "echo debug1: client_input_channel_req: channel 0 rtype exit-status reply 0",
        "grep 'rtype exit-status ' log",
        "grep 'rtype exit-signal ' log",
        "echo channel 0: open failed: x",
    ],
)
def test_the_text_of_a_command_is_not_its_fate(command: str) -> None:
    log = f"debug1: Sending command: {command}\r\nclient_loop: send disconnect: Broken pipe\r\n"
    found = diagnosis.of_plain_session(255, log)
    assert (found.returncode, found.by_signal, found.lost, found.started) == (
        None,
        False,
        True,
        None,
    )


@pytest.mark.parametrize(
    "line",
    [
        "debug1: Authentication succeeded (publickey).",  # to 8.7
        "Authenticated to h ([10.0.0.1]:22).",
        'Authenticated to h (via proxy) using "publickey".',
        "debug1: Authenticated to h.",
    ],
)
def test_a_login_that_worked_is_seen_in_every_version(line: str) -> None:
    assert diagnosis.authenticated(f"debug1: x\n{line}\n")
    assert not diagnosis.authenticated(f"debug1: Sending command: echo {line}\n")


def test_whether_the_command_was_sent() -> None:
    assert diagnosis.command_sent(captured("plain_exit_0")[1])
    assert diagnosis.authenticated(captured("plain_exit_0")[1])
    assert not diagnosis.command_sent(captured("plain_refused")[1])
    assert not diagnosis.authenticated(captured("password_only")[1])
