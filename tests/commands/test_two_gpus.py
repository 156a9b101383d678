"""One fold on two GPUs that Ray is told about: a real process group, over gloo where torch finds no GPU."""

import sys

import pandas as pd
import pytest

from support.commands import run_process
from uncseg.tracking.spool import read_history

pytestmark = pytest.mark.slow

SCRIPT = """
import sys, ray
from pathlib import Path
from uncseg.commands.cross_validate import cross_validate
from uncseg.config.experiment import load_experiment
ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=True, log_to_driver=False)
sys.exit(cross_validate(load_experiment(Path(sys.argv[1])), [0]))
"""


def test_one_fold_is_trained_on_two_gpus(tmp_path, four_cases, experiment_file):
    file = experiment_file(four_cases, resources={"gpus_per_fold": 2, "cpus_per_fold": 2})
    output = run_process(sys.executable, "-c", SCRIPT, file, folder=tmp_path, RAY_AUTH_MODE="disabled")
    assert "2 GPUs each" in output
    run = tmp_path / "runs" / "small"
    history = read_history(run / "spool", 0)
    assert history.state == "finished"
    assert len(list((run / "folds").rglob("console_rank_1.log"))) == 1
    assert set(pd.read_parquet(run / "tables" / "epochs.parquet")["epoch"]) == {0, 1, 2, 3}
