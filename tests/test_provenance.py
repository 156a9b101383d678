import platform
import subprocess

import torch

from uncseg.provenance import describe_versions, git_commit


def test_versions_are_those_of_the_installed_packages():
    versions = describe_versions()
    assert set(versions) == {"uncseg", "torch", "nnunetv2", "ray", "mlflow", "python"}
    assert versions["python"] == platform.python_version()
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]


def _git(folder, *command):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    answer = subprocess.run(["git", "-C", folder, *identity, *command], check=True, capture_output=True, text=True)
    return answer.stdout.strip()


def test_the_commit_says_whether_files_were_changed_since(tmp_path):
    assert git_commit(tmp_path) is None
    _git(tmp_path, "init")
    (tmp_path / "a").write_text("1")
    _git(tmp_path, "add", "a")
    _git(tmp_path, "commit", "-m", "first")
    head = _git(tmp_path, "rev-parse", "HEAD")
    assert git_commit(tmp_path) == head
    (tmp_path / "a").write_text("2")
    assert git_commit(tmp_path) == f"{head}-dirty"


def test_without_git_there_is_no_commit(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) is None
