"""rsync command lines, whole."""

from __future__ import annotations

import pytest

from holdfast.errors import ConfigError
from holdfast.openssh.options import Options
from holdfast.openssh.rsync import remote_shell, rsync


def test_over_a_live_master_the_guard_comes_first() -> None:
    shell = remote_shell(
        "/usr/bin/ssh",
        control_path="/run/s",
        port=2222,
        config_file="/etc/c",
        options=Options.of(Compression=True),
    )
    assert shell == (
        "/usr/bin/ssh -F /etc/c -o ControlMaster=no -o ProxyCommand=false -o BatchMode=yes "
        "-o ControlPath=/run/s -o Compression=yes -p 2222"
    )


def test_with_a_login_of_its_own_nothing_is_shared() -> None:
    assert remote_shell("ssh", control_path=None) == (
        "ssh -o ControlMaster=no -o ControlPath=none -o BatchMode=yes"
    )


@pytest.mark.parametrize("path", ["/run/a b", "/run/a'b", '/run/a"b', "/run/a\tb"])
def test_what_rsync_would_split_is_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="white space or quotes"):
        remote_shell("ssh", control_path=path)


def test_the_whole_line() -> None:
    assert rsync("rsync", ["./-a", "b"], "host:c d", shell="ssh -S x", flags=["-a"]) == [
        "rsync",
        "--protect-args",
        "-e",
        "ssh -S x",
        "-a",
        "--",
        "./-a",
        "b",
        "host:c d",
    ]
