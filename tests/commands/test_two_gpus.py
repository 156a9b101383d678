"""One fold on two GPUs that Ray believes in: the real process group, over gloo where torch finds no GPU."""

import subprocess
import sys

import pandas as pd
import pytest

from support.commands import environment
from uncseg.dataset.phantom import write_phantoms
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


def test_one_fold_on_two_gpus(tmp_path, experiment_file):
    write_phantoms(tmp_path / "cases", cases=4, size=28, seed=0)
    file = experiment_file(tmp_path / "cases", resources={"gpus_per_fold": 2, "cpus_per_fold": 2})
    command = [sys.executable, "-c", SCRIPT, str(file)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 GPUs each" in done.stdout
    run = tmp_path / "runs" / "small"
    history = read_history(run / "spool", 0)
    assert history.state == "finished"
    assert len(list((run / "folds").rglob("console_rank_1.log"))) == 1
    assert set(pd.read_parquet(run / "tables" / "epochs.parquet")["epoch"]) == {0, 1, 2, 3}
