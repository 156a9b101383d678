"""Where a run came from: the commit of the code and the versions of what it ran on."""

import contextlib
import getpass
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

DISTRIBUTIONS = ("uncseg", "torch", "nnunetv2", "ray", "mlflow")


def describe_versions() -> dict[str, str]:
    """Versions of uncseg, torch, nnunetv2, ray, mlflow (those installed) and python."""
    versions = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_commit(folder: Path) -> str | None:
    """Full hash of the commit checked out in ``folder``, with ``-dirty`` where tracked files were changed since.

    The environment variable ``UNCSEG_GIT_COMMIT`` comes first, for copies of the code that have no repository (those
    of ``ray job submit``). None where ``folder`` lies in no repository, or git is not installed.
    """
    if told := os.environ.get("UNCSEG_GIT_COMMIT"):
        return told
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def describe_source(command: str, commit: str | None) -> dict[str, str]:
    """Tags from which MLflow's UI fills its columns: source, version, user.

    Args:
        command: that made the run, as ``uncseg cross-validate``.
        commit: of the code, where it is known.
    """
    tags = {"mlflow.source.name": command, "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})
