"""The versions and the machine that a run's figures belong to."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

_PEERS = ("fabric", "paramiko", "asyncssh", "parallel-ssh", "ssh2-python", "plumbum")


def about(root: Path) -> dict[str, str]:
    """Label -> words. :param root: of the work tree."""
    version = metadata.version("holdfast")
    commit = _words(["git", "-C", str(root), "describe", "--always", "--dirty"])
    return {
        "date": time.strftime("%Y-%m-%d"),
        "holdfast": f"{version} ({commit})" if commit else version,
        **{name: metadata.version(name) for name in _PEERS},
        "OpenSSH": _words(["ssh", "-V"]).split(",")[0].removeprefix("OpenSSH_"),
        "Python": platform.python_version(),
        "kernel": f"{platform.system()} {platform.release()}",
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "load before": " ".join(f"{load:.1f}" for load in os.getloadavg()),
    }


def _words(argv: list[str]) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True)
    except OSError:
        return ""
    return (done.stdout or done.stderr).strip() if done.returncode == 0 else ""
