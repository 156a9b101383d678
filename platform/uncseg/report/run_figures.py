"""The figures of a run, into its folder of figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from uncseg.dataset.brats import BratsCase
from uncseg.layout import RunFolder
from uncseg.report.case_figure import draw_case
from uncseg.report.case_images import CaseImages, read_case
from uncseg.report.case_level import draw_folds, draw_risk_coverage
from uncseg.report.overlay import overlay
from uncseg.report.training_curves import Training, draw_training


def draw_run(
    run: RunFolder,
    cases: Sequence[BratsCase],
    per_case: pd.DataFrame,
    scores: pd.DataFrame,
    epochs: pd.DataFrame,
    last_epochs: int,
) -> None:
    """Write what there is to draw of a run, in its folder ``figures``.

    ``figure2.png``: metrics over epochs. ``folds.png``, ``risk_coverage.png``: of the cases' scores.
    ``overlay.png``: the case of median Dice. ``cases/figure1_CASE.png``: the worst, the median and the best case by
    mean Dice, and the most uncertain one.

    Args:
        run: its folder, with the out-of-fold images.
        cases: those whose images are at hand.
        per_case: out-of-fold scores, a row a case; empty before the evaluation.
        scores: the same, a row a case and region.
        epochs: a row a fold and epoch; empty before the training.
        last_epochs: at the end, that Table 2 averages.
    """
    if len(epochs):
        draw_training(run.figures / "figure2.png", Training(run.root.name, epochs, last_epochs))
    if not len(per_case):
        return
    draw_folds(run.figures / "folds.png", per_case)
    if "mean_uncertainty" in scores:
        draw_risk_coverage(run.figures / "risk_coverage.png", scores)
    by_id, rows = {case.case_id: case for case in cases}, dict(per_case.set_index("case").iterrows())
    drawn = {case: why for case, why in telling_cases(per_case, scores).items() if case in by_id}
    for case, why in drawn.items():
        images, row = read_case(run, by_id[case]), rows[case]
        dice = ", ".join(f"{region.upper()} {row[f'dice_{region}']:.3f}" for region in ("wt", "tc", "et"))
        title = f"{case}, fold {row['fold']}: {', '.join(why)}. Dice {dice}"
        draw_case(figure1(run, case), images, title)
        if "median Dice" in why:
            _overlay(run, images, f"{case}, fold {row['fold']} (median Dice {row['dice_mean']:.2f})")
    for file in figure1(run, "").parent.glob("figure1_*.png"):
        if drawn and file not in {figure1(run, case) for case in drawn}:
            file.unlink()  # of an earlier evaluation


def figure1(run: RunFolder, case_id: str) -> Path:
    """Where Figure 1 of a case lies."""
    return run.figures / "cases" / f"figure1_{case_id}.png"


def telling_cases(per_case: pd.DataFrame, scores: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    """The cases that Figure 1 shows, and what each of them is; one may be several things.

    Args:
        per_case, scores: as :func:`draw_run` takes them, per_case not empty.
    """
    ranked = per_case.dropna(subset=["dice_mean"]).sort_values(["dice_mean", "case"], ignore_index=True)["case"]
    chosen: dict[str, list[str]] = {}
    if len(ranked):
        for place, what in ((0, "lowest mean Dice"), (len(ranked) // 2, "median Dice"), (-1, "highest mean Dice")):
            chosen.setdefault(str(ranked.iloc[place]), []).append(what)
    if "mean_uncertainty" in scores:
        wt = scores[scores["region"] == "WT"].dropna(subset=["mean_uncertainty"])
        if len(wt):
            most = wt["case"].iloc[int(wt["mean_uncertainty"].argmax())]
            chosen.setdefault(str(most), []).append("the most uncertain")
    return chosen


def _overlay(run: RunFolder, images: CaseImages, title: str) -> None:
    shown = "uncertainty" if "uncertainty" in images.maps else "variance_stable"
    overlay(
        run.figures / "overlay.png",
        images.image,
        images.reference,
        images.prediction,
        images.maps["error memory"],
        images.maps[shown],
        title,
        uncertainty_name=shown,
    )
