"""Where a run came from: the commit of the code and the versions of the libraries."""

import contextlib
import getpass
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

DISTRIBUTIONS = ("uncseg", "torch", "nnunetv2", "ray", "mlflow")


def describe_versions() -> dict[str, str]:
    """Return the versions of Python, uncseg, torch, nnunetv2, ray and mlflow (those that are installed)."""
    versions = {"python": platform.python_version()}
    for name in DISTRIBUTIONS:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions


def git_commit(folder: Path) -> str | None:
    """Return the full hash of the commit checked out in ``folder``, with ``-dirty`` if tracked files were changed.

    The environment variable ``UNCSEG_GIT_COMMIT`` comes first, for copies of the code without a repository (those of
    ``ray job submit``). None if ``folder`` lies in no repository, or git is not installed.
    """
    if given := os.environ.get("UNCSEG_GIT_COMMIT"):
        return given
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def describe_source(command: str, commit: str | None) -> dict[str, str]:
    """Return the tags from which MLflow's UI fills its columns: source (``uncseg cross-validate``), version, user."""
    tags = {"mlflow.source.name": command, "mlflow.source.type": "LOCAL"}
    with contextlib.suppress(OSError, KeyError):  # a container's user may have no name
        tags["mlflow.user"] = getpass.getuser()
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})
