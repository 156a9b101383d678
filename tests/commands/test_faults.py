"""One fold cannot go on: the others finish, the command says so, and the next command trains that fold."""

import pandas as pd
import pytest

from support.commands import run_uncseg
from uncseg.tracking.spool import read_history

pytestmark = pytest.mark.slow


def test_a_failed_fold_stops_no_other(tmp_path, four_cases, experiment_file):
    file = experiment_file(four_cases, resources={"folds_at_once": 2, "cpus_per_fold": 1})
    model = tmp_path / "runs/small/folds/Dataset501_Small/UncertaintyTrainer__nnUNetPlans__3d_fullres"
    broken = model / "fold_1" / "checkpoint_latest.pth"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not a checkpoint")
    assert "failed folds: 1" in run_uncseg("cross-validate", file, folder=tmp_path, code=1)
    spool = tmp_path / "runs/small/spool"
    assert read_history(spool, 0).state == "finished"
    history = read_history(spool, 1)
    assert history.state == "failed"
    assert str(broken) in history.message  # what to delete or restore
    assert "fold_1_failure.txt" in history.message
    table = pd.read_parquet(tmp_path / "runs/small/tables/per_case.parquet")
    assert set(table["fold"]) == {0}

    broken.unlink()
    run_uncseg("cross-validate", file, folder=tmp_path)
    assert read_history(spool, 0).attempt == 1
    assert len(pd.read_parquet(tmp_path / "runs/small/tables/per_case.parquet")) == 4
