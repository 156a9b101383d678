"""Figure 2: every fold, their mean and the window that Table 2 averages, of one run or several."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as mpl_image
from matplotlib.colors import to_rgb

from uncseg.report.style import BLUE, VERMILION
from uncseg.report.training_curves import TrainedEpochs, draw_training, draw_trainings, floor_of_last_epochs
from uncseg.tasks.built_in_tasks import paper_task

WINDOW = "#e6e6e6"
PAPER = paper_task()


def epochs(folds=2, head=True):
    rows = []
    for fold in range(folds):
        for epoch in range(9):
            row = {"fold": fold, "epoch": epoch, "val_patch/dice_wt": epoch / 9, "train/loss": 1 - epoch / 9 - fold / 9}
            for protocol in ("reference", "union"):
                for name in ("uncertainty", "one_minus_p") if head else ("one_minus_p",):
                    row[f"uncertainty/{protocol}/corr_ema/{name}"] = epoch / 9 if fold or epoch > 2 else np.nan
            rows.append(row)
    return pd.DataFrame(rows)


def pixels(path):
    return mpl_image.imread(path)[..., :3]


def share(path, colour):
    return float((np.abs(pixels(path) - to_rgb(colour)).max(-1) < 0.02).mean())


def test_the_window_is_as_wide_as_its_epochs(tmp_path):
    for last in (2, 4):
        draw_training(tmp_path / f"{last}.png", TrainedEpochs("a", epochs(), last), PAPER)
    assert share(tmp_path / "4.png", WINDOW) > 1.6 * share(tmp_path / "2.png", WINDOW) > 0.05
    assert (tmp_path / "2.png").stat().st_size < 800_000


def test_every_fold_is_a_line(tmp_path):
    for folds in (1, 2):
        draw_training(tmp_path / f"{folds}.png", TrainedEpochs("a", epochs(folds), 3), PAPER)
    blueish = [
        ((image[..., 2] - image[..., 0]) > 0.2).sum() for image in (pixels(tmp_path / f"{n}.png") for n in (1, 2))
    ]
    assert blueish[1] > blueish[0]


def test_a_run_without_the_head_has_no_line_of_it(tmp_path):
    correlations = [column for column in epochs() if "corr_ema" in column]
    for head in (True, False):
        frame = epochs(head=head)
        shown = frame[["fold", "epoch", *correlations[: 4 if head else 0]]]
        draw_training(tmp_path / f"{head}.png", TrainedEpochs("a", shown, 3), PAPER)
    assert share(tmp_path / "True.png", BLUE) > 100 * share(tmp_path / "False.png", BLUE)


def test_runs_have_colours_of_their_own(tmp_path):
    draw_trainings(tmp_path / "both.png", [TrainedEpochs("a", epochs(), 3), TrainedEpochs("b", epochs() * 0.8, 3)])
    draw_trainings(tmp_path / "one.png", [TrainedEpochs("a", epochs(), 3)])
    assert share(tmp_path / "both.png", VERMILION) > 1e-3
    assert share(tmp_path / "one.png", VERMILION) == 0
    assert share(tmp_path / "both.png", BLUE) > 1e-3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("frame", [epochs(1), epochs()[["fold", "epoch"]], epochs()[:0]], ids=["fold", "none", "empty"])
def test_one_fold_and_nothing(tmp_path, frame):
    draw_training(tmp_path / "a.png", TrainedEpochs("a", frame, 3), PAPER)
    draw_trainings(tmp_path / "b.png", [TrainedEpochs("a", frame, 3), TrainedEpochs("b", epochs(), 3)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_the_floor_of_last_epochs_is_that_of_the_last_epochs():
    frame = pd.DataFrame({"fold": 0, "epoch": range(6)})
    for kind in ("corr", "rmsd"):
        name = f"uncertainty/union/{kind}_ema"
        frame[f"{name}/one_minus_p"] = [9, 9, 9, 9, 0.2, 0.2]
        frame[f"{name}/min_p"] = [0, 0, 0, 0, 0.3, 0.3]
        frame[f"{name}/constant"] = [0, 0, 0, 0, 0.1, 0.1]
    run = TrainedEpochs("a", frame, 2)
    assert floor_of_last_epochs(run, "union", "corr") == "min_p"
    assert floor_of_last_epochs(run, "union", "rmsd") == "constant"
    assert floor_of_last_epochs(run, "reference", "corr") is None
