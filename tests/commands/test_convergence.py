"""One fold trained long enough with three seeds, with and without the head: the paper's claim and the best floor."""

from pathlib import Path

import pandas as pd
import pytest

from support.commands import start_uncseg
from uncseg.dataset.phantom import write_phantoms
from uncseg.tasks.built_in_tasks import paper_task

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SEEDS = (0, 1, 2)


def start(folder, name, seed, *settings):
    assignments = [
        f"name={name}",
        f"dataset.path={folder}/cases",
        f"storage.path={folder}/runs",
        f"training.seed={seed}",
        "training.epochs=36",
        "training.iterations_per_epoch=20",
        "training.checkpoint_every=36",
        "resources.cpus_per_fold=1",
        "evaluation.last_epochs=10",
        *settings,
    ]
    overrides = [part for assignment in assignments for part in ("--set", assignment)]
    file = ROOT / "experiments" / "demo.yaml"
    return start_uncseg("cross-validate", file, "--folds", "0", *overrides, log=folder / f"{name}.log")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """One row per run: model, seed, Dice out of fold, correlations under the protocol ``reference``."""
    folder = tmp_path_factory.mktemp("convergence")
    write_phantoms(folder / "cases", cases=20, size=48, seed=0, task=paper_task())
    rows = []
    for seed in SEEDS:
        # the two to compare run side by side
        both = {
            "with": start(folder, f"with_{seed}", seed),
            "without": start(folder, f"without_{seed}", seed, "model.uncertainty=false"),
        }
        for model, process in both.items():
            process.require()
            tables = folder / "runs" / f"{model}_{seed}" / "tables"
            per_case = pd.read_parquet(tables / "per_case.parquet")
            second = pd.read_parquet(tables / "table2.parquet")
            paper = second[second["protocol"] == "reference"].set_index("estimator")["corr_ema_last"]
            dice = per_case[["dice_wt", "dice_tc", "dice_et", "dice_mean"]].mean()
            rows.append({"model": model, "seed": seed, **dice, **paper})
    table = pd.DataFrame(rows)
    print("\n" + table.round(3).to_string(index=False))
    return table


def test_every_training_has_converged(results):
    assert (results["dice_wt"] >= 0.85).all()
    assert (results["dice_tc"] >= 0.6).all()
    assert (results["dice_et"] >= 0.5).all()


def test_the_papers_figure_and_the_floor_beside_it(results):
    head = results[results["model"] == "with"]
    assert (head["uncertainty"] > 0.9).all()
    assert (head["uncertainty"] - head["variance_stable"] > 0.2).all()
    assert (head["uncertainty"] - head["var1shot"] > 0.2).all()
    # the finding: a floor that needs no training stands just as high
    assert (head["one_minus_p"] > 0.9).all()


def test_the_head_costs_no_dice(results):
    by_model = results.groupby("model")["dice_mean"]
    difference = abs(by_model.mean()["with"] - by_model.mean()["without"])
    between_seeds = (by_model.max() - by_model.min()).max()
    assert difference <= between_seeds
