from __future__ import annotations

import re
from typing import Optional

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pytest_subprocess import FakeProcess

import holdfast
from holdfast.errors import ConfigError
from holdfast.openssh.destination import Destination

ALLOWED = re.compile(r"[A-Za-z0-9._:%@-]+", re.ASCII)
_ALPHABET = "abcXYZ019._:%@-[]/ \n\t\0$`'\"\\;&|<>(){}*?~#!=+,é\u2028"
_LIKELY = st.text(alphabet="ab1.:%@-[]/", max_size=12)


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("cluster1", None, "cluster1", None),
        ("alice@cluster1", "alice", "cluster1", None),
        ("alice@login.example.org:2222", "alice", "login.example.org", 2222),
        ("login:22", None, "login", 22),
        ("login:65535", None, "login", 65535),
        ("login:00022", None, "login", 22),
        ("10.0.0.1", None, "10.0.0.1", None),
        ("::1", None, "::1", None),
        ("[::1]", None, "::1", None),
        ("[::1]:2222", None, "::1", 2222),
        ("alice@[fe80::1%eth0]:22", "alice", "fe80::1%eth0", 22),
        ("fe80::1%eth0", None, "fe80::1%eth0", None),
        ("alice@REALM.ORG@login", "alice@REALM.ORG", "login", None),
        ("under_score", None, "under_score", None),
        ("ssh://login", None, "login", None),
        ("SSH://login/", None, "login", None),
        ("ssh://alice@login:2222", "alice", "login", 2222),
        ("ssh://alice@login:2222/", "alice", "login", 2222),
        ("ssh://alice%40REALM@login", "alice@REALM", "login", None),
        ("ssh://[::1]:22", None, "::1", 22),
    ],
)
def test_a_destination_is_read_as_ssh_reads_it(
    text: str, user: Optional[str], host: str, port: Optional[int]
) -> None:
    assert Destination.parse(text) == Destination(host, user, port)


BAD = [
    "",
    "-oProxyCommand=id",
    "-",
    "alice@-host",
    "-alice@host",
    "alice@",
    "@host",
    ":22",
    "host:",
    "host:0",
    "host:65536",
    "host:-1",
    "host:22a",
    "host:999999",
    "host:\u0662\u0662",  # digits, but not ASCII ones
    "[::1",
    "[::1]22",
    "[::1]:",
    "[]",
    "[-a]",
    "a b",
    " host",
    "host ",
    "host\n",
    "host\r",
    "ho\tst",
    "host\0",
    "host\x1b[31m",
    "host\x7f",
    "$(id)",
    "`id`",
    "host;id",
    "host|id",
    "host&id",
    "a>b",
    "a<b",
    "'host'",
    '"host"',
    "ho\\st",
    "ho$st",
    "h*st",
    "h?st",
    "~host",
    "h(o)st",
    "h{o}st",
    "host#",
    "host!",
    "host/path",
    "hôst",
    "host\u2028",
    "ssh://",
    "ssh:///",
    "ssh://host/path",
    "ssh://host//",
    "ssh://-host",
    "ssh://%2Doption@host",
    "ssh://a%0Ab@host",
    "ssh://a%20b@host",
    "ssh://a%24(id)@host",
    "ssh://ho%73t%00",
    "scp://host",
    "x" * 1026,
]


@pytest.mark.parametrize("text", BAD)
def test_a_destination_that_cannot_be_right_is_refused(text: str) -> None:
    if text == "ssh://ho%73t%00":  # only the user of a URI is unquoted: % is legal in a host
        assert Destination.parse(text).host == "ho%73t%00"
        return
    with pytest.raises(ConfigError):
        Destination.parse(text)


@pytest.mark.parametrize("text", ["-oProxyCommand=id", "a b", "host\n", "$(id)", "host;id", ""])
def test_connect_with_a_bad_destination_starts_no_process(text: str, fp: FakeProcess) -> None:
    with pytest.raises(ConfigError):
        holdfast.connect(text)
    assert not fp.calls


@pytest.mark.parametrize("wrong", [None, 5, b"host", ["host"]])
def test_what_is_no_text_is_refused(wrong: object) -> None:
    with pytest.raises(ConfigError):
        Destination.parse(wrong)  # type: ignore[arg-type]


def test_the_message_names_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="' ' has no place in a host"):
        Destination.parse("a b")
    with pytest.raises(ConfigError, match="starts with '-'"):
        Destination.parse("-oX")
    with pytest.raises(ConfigError, match="'99999' is not between 1 and 65535"):
        Destination.parse("h:99999")


@pytest.mark.parametrize(
    ("host", "user", "port"),
    [("", None, None), ("-h", None, None), ("h", "", None), ("h", "-u", None), ("h", None, 0)],
)
def test_no_destination_is_made_around_the_checks(
    host: str, user: Optional[str], port: Optional[int]
) -> None:
    with pytest.raises(ConfigError):
        Destination(host, user, port)


@given(st.one_of(_LIKELY, st.text(alphabet=_ALPHABET, max_size=20), st.text(max_size=20)))
@example("ssh://-x@h")
def test_nothing_is_accepted_that_a_shell_or_an_option_parser_could_read(text: str) -> None:
    try:
        found = Destination.parse(text)
    except ConfigError:
        return
    for name in (found.host, found.user):
        if name is not None:
            assert ALLOWED.fullmatch(name)
            assert not name.startswith("-")
    assert found.port is None or 1 <= found.port <= 65535


@given(st.one_of(_LIKELY, st.builds("[{}]".format, st.text(alphabet="a1:", max_size=5))))
@example("[a:1]")
@example("[a:b]")
def test_the_written_form_is_read_back_as_the_same(text: str) -> None:
    try:
        found = Destination.parse(text)
    except ConfigError:
        return
    assert Destination.parse(str(found)) == found
