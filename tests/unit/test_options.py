from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.errors import ConfigError
from holdfast.openssh.options import GUARD, PLAIN, Options, Value, keepalive


def test_options_render_themselves_in_the_order_given() -> None:
    options = Options.of(BatchMode=True, Compression=False, ServerAliveInterval=15, User="alice")
    assert options.arguments() == [
        *("-o", "BatchMode=yes"),
        *("-o", "Compression=no"),
        *("-o", "ServerAliveInterval=15"),
        *("-o", "User=alice"),
    ]


def test_a_value_with_spaces_is_one_argument() -> None:
    assert Options.of(ProxyCommand="nc %h %p").arguments() == ["-o", "ProxyCommand=nc %h %p"]


def test_the_guard_is_all_that_keeps_a_client_from_logging_in() -> None:
    assert GUARD.arguments() == [
        *("-o", "ControlMaster=no"),
        *("-o", "ProxyCommand=false"),
        *("-o", "BatchMode=yes"),
    ]


def test_a_plain_login_shares_nothing_and_asks_nothing() -> None:
    assert PLAIN.arguments() == [
        *("-o", "ControlMaster=no"),
        *("-o", "ControlPath=none"),
        *("-o", "BatchMode=yes"),
    ]


def test_the_keepalive_is_interval_and_count() -> None:
    assert keepalive(15, 3).arguments() == [
        *("-o", "ServerAliveInterval=15"),
        *("-o", "ServerAliveCountMax=3"),
    ]


@pytest.mark.parametrize(
    "keyword", ["ControlMaster", "controlmaster", "CONTROLPATH", "ControlPath", "ControlPersist"]
)
def test_what_decides_the_sharing_is_not_the_callers_to_set(keyword: str) -> None:
    with pytest.raises(ConfigError, match="holdfast sets it itself"):
        Options.from_user({keyword: "auto"})


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "\n", ""])
def test_a_value_that_would_be_another_line_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match="User"):
        Options.from_user({"User": value})


@pytest.mark.parametrize("keyword", ["", "-o", "Batch Mode", "User=x", "a\n", "Üser", "1x", "a-b"])
def test_what_is_no_keyword_is_refused(keyword: str) -> None:
    with pytest.raises(ConfigError, match="not a keyword"):
        Options.from_user({keyword: "x"})


def test_keywords_are_found_whatever_their_case() -> None:
    assert "connecttimeout" in Options.of(ConnectTimeout=5)
    assert "User" not in Options.of(ConnectTimeout=5)


def test_the_sum_has_the_left_ones_first() -> None:
    both = Options.of(User="a") + Options.of(User="b")
    assert both.arguments() == ["-o", "User=a", "-o", "User=b"]


def test_equal_options_are_one_key_of_a_dictionary() -> None:
    assert len({Options.of(User="a"), Options.from_user({"User": "a"})}) == 1


@given(st.dictionaries(st.text(max_size=6), st.one_of(st.text(max_size=6), st.integers())))
def test_whatever_is_accepted_is_pairs_of_o_and_one_line(values: dict[str, Value]) -> None:
    try:
        words = Options.from_user(values).arguments()
    except ConfigError:
        return
    assert len(words) == 2 * len(values)
    for flag, word in zip(words[::2], words[1::2]):
        assert flag == "-o"
        assert not set(word) & set("\n\r\0")
        assert word.split("=")[0].lower() not in ("controlmaster", "controlpath", "controlpersist")
