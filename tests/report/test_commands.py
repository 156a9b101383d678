"""The commands that a page gives to reproduce a run are safe to paste into a shell."""

import shlex

from uncseg.layout import RunFolder
from uncseg.report.run_report import _commands
from uncseg.tracking.manifest import update_manifest


def test_commands_to_reproduce_a_run_are_quoted_for_a_shell(tmp_path):
    run = RunFolder(tmp_path / "a run; $(touch x) 'of' \"mine\"")
    run.root.mkdir()
    commit = "abc; touch y-dirty"
    update_manifest(run.manifest, mlflow={"tags": {"git_commit": commit}})
    checkout, _install, again, side_by_side = (shlex.split(line, comments=True) for line in _commands(run).splitlines())
    assert checkout == ["git", "checkout", commit.removesuffix("-dirty")]
    assert again[:3] == ["uncseg", "cross-validate", str(run.experiment)]
    assert side_by_side == ["uncseg", "report", f"ELSEWHERE/{run.root.name}", str(run.root)]
