"""Table 3's second opinions: several passes that judge the run's own decisions, recomputed from the files of maps."""

import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from scipy import ndimage
from sklearn.metrics import average_precision_score

from support.commands import uncseg
from uncseg.console import console
from uncseg.layout import RunFolder

KINDS = ("auprc", "brier", "corr")


def voxels(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


def test_second_opinions_judge_the_decisions_of_the_run(root, run, tmp_path, monkeypatch):
    """What a run's Table 3 says of estimators of several passes, from their files, by scikit-learn."""
    monkeypatch.setattr(console, "width", 300)
    copied = RunFolder(shutil.copytree(run.root, tmp_path / "small"))
    said = uncseg("evaluate", copied.root, "--set", "evaluation.estimators.augmentation={samples: 2, noise_sd: 0}")
    assert "second opinions, of several predictions" in said
    per_case = pd.read_parquet(copied.tables / "per_case.parquet").set_index("case")
    assert (per_case["dice_wt/augmentation"] != per_case["dice_wt"]).any(), "the passes decide otherwise together"
    third = pd.read_parquet(copied.tables / "table3.parquet").set_index("estimator")
    for case in per_case.index:
        reference = voxels(root / "cases" / case / f"{case}-seg.nii.gz") > 0
        decided = voxels(copied.out_of_fold / f"{case}.nii.gz") > 0
        near = ndimage.binary_dilation(reference | decided, np.ones((3, 3, 3)), iterations=2)
        wrong = (reference != decided)[near]
        # 4p̄(1 − p̄) tells the mean p of both passes but for its side of 1/2, on which the run's own p says enough
        maps = {name: voxels(copied.out_of_fold / f"{case}_augmentation_{name}.nii.gz")[near] for name in ("variance",)}
        own = voxels(copied.out_of_fold / f"{case}_wt_probability.nii.gz").astype(float)
        total = voxels(copied.out_of_fold / f"{case}_augmentation_total.nii.gz").astype(float)
        root_of = np.sqrt((1 - total).clip(0, 1))
        candidates = np.stack([(1 + root_of) / 2, (1 - root_of) / 2])
        mean = np.take_along_axis(candidates, np.abs(candidates - own).argmin(0)[None], 0)[0]
        maps["against_decision"] = np.abs(mean - decided)[near]
        for name, values in maps.items():
            found = {
                kind: per_case.loc[case, f"second_opinion/augmentation_{name}/union/{kind}_failure"] for kind in KINDS
            }
            if name == "variance":  # a voxel on the wrong side of 1/2 changes the order, and little else
                assert found["auprc"] == pytest.approx(average_precision_score(wrong, values), abs=1e-3)
            assert found["brier"] == pytest.approx(np.mean((values - wrong) ** 2), abs=0.002)
            assert found["corr"] == pytest.approx(np.corrcoef(values, wrong)[0, 1], abs=0.01)
    for name in ("variance", "against_decision"):
        columns = [f"second_opinion/augmentation_{name}/union/{kind}_failure" for kind in KINDS]
        shown = third.loc[f"augmentation_{name}", [f"{kind}_failure" for kind in KINDS]]
        np.testing.assert_allclose(shown.to_numpy(float), per_case[columns].mean(), rtol=1e-9)
