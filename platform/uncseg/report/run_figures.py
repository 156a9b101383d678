"""The figures of a run, into its folder of figures."""

from collections.abc import Sequence

import pandas as pd

from uncseg.dataset.brats import MODALITIES, BratsCase, read_reference, read_voxels
from uncseg.layout import CaseFiles, RunFolder
from uncseg.report.figures import overlay
from uncseg.report.training_curves import Training, draw_training


def draw_run(
    run: RunFolder, cases: Sequence[BratsCase], per_case: pd.DataFrame, epochs: pd.DataFrame, last_epochs: int = 30
) -> None:
    """Write overlay.png and figure2.png into the run's figures.

    The overlay shows the case of median Dice: neither the best nor the worst.
    """
    ranked = per_case.sort_values("dice_mean", ignore_index=True)
    chosen = ranked.iloc[len(ranked) // 2]
    case = next(case for case in cases if case.case_id == chosen["case"])
    files = CaseFiles(run.out_of_fold, case.case_id)
    labels, _ = read_reference(case)
    shown = "uncertainty" if files.map("uncertainty").is_file() else "variance_stable"
    overlay(
        run.figures / "overlay.png",
        read_voxels(case.images[MODALITIES.index("t2f")]),
        labels,
        read_voxels(files.segmentation),
        read_voxels(files.map("error")),
        read_voxels(files.map(shown)),
        f"{case.case_id}, fold {chosen['fold']} (median Dice {chosen['dice_mean']:.2f})",
        uncertainty_name=shown,
    )
    draw_training(run.figures / "figure2.png", Training(run.root.name, epochs, last_epochs))
