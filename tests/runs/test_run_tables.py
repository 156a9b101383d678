"""The run without the head that Table 1 shows beside another one."""

import pandas as pd
import pytest

from support.small_experiment import small_experiment
from uncseg.config.experiment import Experiment, save_experiment
from uncseg.layout import RunFolder
from uncseg.runs.run_tables import baseline_table
from uncseg.table_files import write_table


@pytest.mark.parametrize(("task", "is_shown"), [("ped-2024", True), ("ped-2023", False)])
def test_a_baseline_of_other_labels_is_left_out(tmp_path, capsys, task, is_shown):
    """Both tasks name the same cases and the regions WT, TC and ET, which hold other labels."""
    small = small_experiment(tmp_path, dataset={"task": "ped-2024"}, loss={"weight_ce": None})
    small["evaluation"] = {"baseline": "plain"}
    experiment = Experiment.model_validate(small)
    small["dataset"]["task"] = task
    plain = RunFolder(tmp_path / "runs" / "plain")
    plain.tables.mkdir(parents=True)
    save_experiment(Experiment.model_validate(small), plain.experiment)
    columns = dict.fromkeys(("dice_wt", "dice_tc", "dice_et", "dice_mean"), 0.5)
    table = pd.DataFrame([{"case": "BraTS-PED-00001-000", "patient": "1", "fold": 0, **columns}])
    write_table(table, plain.tables, "per_case")
    assert (baseline_table(experiment, table) is not None) == is_shown
    said = " ".join(capsys.readouterr().err.split())
    assert ("holds other regions or labels" in said) != is_shown
