"""The main job on ten real cases named as in 2018, at a coarse spacing; skipped where they are not available."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml

from support.commands import assert_same_geometry, run_uncseg
from uncseg.dataset.scan import scan_folder
from uncseg.tasks.built_in_tasks import paper_task

CASES = Path(__file__).resolve().parents[3] / "shared" / "brats18" / "cases"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CASES.is_dir(), reason="the real cases are not here")]

EXPERIMENT = {
    "name": "real",
    "dataset": {"path": str(CASES), "name": "Brats18", "id": 518, "expected_cases": 10},
    "split": {"folds": 2},
    "plan": {
        "target_spacing_mm": [4.0, 4.0, 4.0],
        "patch_size": [32, 32, 32],
        "batch_size": 2,
        "base_features": 8,
        "max_features": 64,
        "max_stages": 3,
        "foreground_samples": 1_000_000,
    },
    "loss": {"weight_ce": [0.2, 1, 0.2, 1], "warmup_epochs": 10},
    "training": {"epochs": 25, "iterations_per_epoch": 16, "val_iterations_per_epoch": 8},
    "resources": {"folds_at_once": 2, "cpus_per_fold": 1},
    "evaluation": {"last_epochs": 8, "tile_step": 1.0},
}


def test_two_folds_of_real_cases_are_trained_and_scored(tmp_path):
    file = tmp_path / "real.yaml"
    file.write_text(yaml.safe_dump(EXPERIMENT | {"storage": {"path": str(tmp_path / "runs")}}))
    print(run_uncseg("cross-validate", file, folder=tmp_path))
    run = tmp_path / "runs" / "real"
    per_case = pd.read_parquet(run / "tables" / "per_case.parquet").set_index("case")
    table = pd.read_parquet(run / "tables" / "table2.parquet")
    assert "oracle" not in set(table["estimator"])
    assert table["rmsd_failure"].notna().all()
    cases = scan_folder(CASES, task=paper_task()).cases
    assert len(per_case) == len(cases) == 10
    for case in cases:
        own = sitk.ReadImage(str(case.images[0]))
        files = sorted((run / "out_of_fold").glob(f"{case.case_id}*.nii.gz"))
        assert len(files) == 6
        for output in files:
            assert_same_geometry(output, own)
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(run / "out_of_fold" / f"{case.case_id}.nii.gz")))
        assert set(np.unique(found)) <= {0, 1, 2, 3}
    assert per_case["dice_wt"].mean() > 0.3
