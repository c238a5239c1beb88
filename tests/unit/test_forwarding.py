"""Forwards as values: checked, parsed, spelled."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError
from holdfast.openssh import forwarding
from holdfast.openssh.forwarding import Endpoint, Forwarding


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("local", "8888:node17:80", forwarding.local(8888, "node17", 80)),
        ("local", "0:node17:80", forwarding.local(0, "node17", 80)),
        ("local", "localhost:8888:node17:80", forwarding.local(8888, "node17", 80, "localhost")),
        ("local", ":8888:node17:80", forwarding.local(8888, "node17", 80, "*")),
        ("local", "*:8888:node17:80", forwarding.local(8888, "node17", 80, "*")),
        (
            "local",
            "[::1]:8888:[fe80::1%eth0]:80",
            forwarding.local(8888, "fe80::1%eth0", 80, "::1"),
        ),
        ("local", "/run/s:node17:80", forwarding.local("/run/s", "node17", 80)),
        ("local", "8888:/run/s", forwarding.local(8888, "/run/s", None)),
        ("local", "::1:80", None),
        ("local", "/run/a:/run/b", forwarding.local("/run/a", "/run/b", None)),
        ("remote", "8888:node17:80", forwarding.remote(8888, "node17", 80)),
        ("remote", "*:8888:node17:80", forwarding.remote(8888, "node17", 80, "*")),
        ("remote", "/run/s:/run/t", forwarding.remote("/run/s", "/run/t", None)),
        ("remote", "8888", None),
        ("dynamic", "1080", forwarding.dynamic(1080)),
        ("dynamic", "[::1]:1080", forwarding.dynamic(1080, "::1")),
        ("dynamic", "1080:x:1", None),
        ("dynamic", "", None),
        ("local", "", None),
        ("local", "8888", None),
        ("local", "8888:node17", None),
        ("local", "8888:node17:", None),
        ("local", "x:8888:node17:80:9", None),
        ("local", "eight:node17:80", None),
        ("local", "8888:node17:99999", None),
        ("local", "127.0.0.1:/run/s:node17:80", None),
        ("local", "[::1:8888:node17:80", None),
        ("local", "8888:-oProxyCommand=x:80", None),
    ],
)
def test_arguments_of_ssh(kind: str, text: str, expected: Forwarding) -> None:
    if expected is None:
        with pytest.raises(ConfigError):
            forwarding.parse(kind, text)
    else:
        assert forwarding.parse(kind, text) == expected


@pytest.mark.parametrize(
    ("value", "flag", "text"),
    [
        (forwarding.local(1, "h", 2), "-L", "127.0.0.1:1:h:2"),
        (forwarding.local(1, "[::1]", 2, ""), "-L", "1:[::1]:2"),
        (forwarding.local("/a", "/b", None), "-L", "/a:/b"),
        (forwarding.remote(0, "h", 2), "-R", "0:h:2"),
        (forwarding.remote(0, "h", 2, "*"), "-R", "*:0:h:2"),
        (forwarding.dynamic(3), "-D", "127.0.0.1:3"),
    ],
)
def test_spelled_as_ssh_takes_it(value: Forwarding, flag: str, text: str) -> None:
    assert (value.flag, str(value)) == (flag, text)


_HOSTS = st.from_regex(r"\A[a-zA-Z0-9][a-zA-Z0-9._-]{0,20}\Z") | st.ip_addresses().map(str)
_BINDS = _HOSTS | st.just("*")
_PATHS = st.from_regex(r"\A/[a-zA-Z0-9._~ -]{1,30}\Z").filter(
    lambda path: os.path.abspath(path) == path
)
_LISTENERS = st.integers(0, 65535) | _PATHS
_TARGETS = st.tuples(_HOSTS, st.integers(1, 65535)) | st.tuples(_PATHS, st.none())


@given(st.sampled_from([forwarding.local, forwarding.remote]), _LISTENERS, _TARGETS, _BINDS)
def test_what_is_spelled_is_parsed_to_the_same(
    make: Any, listen: Any, target: tuple[str, Any], bind: str
) -> None:
    value = make(listen, *target, bind)
    assert forwarding.parse(value.kind, str(value)) == value


@given(st.sampled_from(["local", "remote", "dynamic"]), st.text(max_size=40))
def test_any_text_is_a_forward_or_a_config_error(kind: str, text: str) -> None:
    try:
        value = forwarding.parse(kind, text)
    except ConfigError:
        return
    for end in (value.listen, value.connect):
        assert end is None or not any(character in end.host for character in "\n\r\0$")


def test_a_path_of_this_side_is_made_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/alice")
    assert forwarding.local("~/s", "h", 1).listen == Endpoint("/home/alice/s")
    assert forwarding.remote("/s", "./t", None).connect == Endpoint(os.path.abspath("t"))
    for path in ("~/s", "s", "./s"):
        with pytest.raises(ConfigError, match="absolute path"):
            forwarding.remote(path, "h", 1)
    with pytest.raises(ConfigError, match="absolute path"):
        forwarding.local(1, "./t", None)
