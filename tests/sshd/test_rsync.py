"""The rsync command line over a live master."""

from __future__ import annotations

import subprocess
from pathlib import Path

import holdfast
from holdfast.openssh import rsync
from holdfast.openssh.command import remote_operand
from holdfast.openssh.version import find_program
from holdfast.testing import LocalSshd


def test_rsync_shares_the_login_and_takes_names_literally(
    conn: holdfast.Connection, local_sshd: LocalSshd, tmp_path: Path
) -> None:
    source = tmp_path / "a b"
    source.mkdir()
    (source / "it's $HOME *").write_text("x")
    link = conn._link
    master = link.control_master().find()
    assert master is not None
    shell = rsync.remote_shell(
        link.ssh, control_path=master.control_path, config_file=link.config_file
    )
    far = f"{local_sshd.home}/far $dir"
    argv = rsync.rsync(
        find_program("rsync"),
        [f"{source}/"],
        remote_operand(link.destination, far),
        shell=shell,
        flags=["-a"],
    )
    subprocess.run(argv, check=True, timeout=30)
    assert (Path(far) / "it's $HOME *").read_text() == "x"
    assert local_sshd.logins() == 1
