"""Which settings of the failure network are worth their cost, on finished runs: all folds learn again, beside the run.

    python tests/performance/failure_settings.py RUN [RUN …] [--steps 600] [--processes 2] [--csv FILE]

The runs are of the same cases and have learnt (``uncseg evaluate RUN --set failures.steps=600``): what their folds made
of new cases is read from RUN/failures. Each setting trains one network per fold and run, and judges the fold's own
cases on the preprocessed grid, in the union mask of the main region. Prints a line per setting: means over cases and
runs, and leads over calibrated p with 95 % intervals over runs and patients.
"""

import os

for variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import multiprocessing
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from uncseg.cluster.resources import FoldResources, Slots
from uncseg.config.failures import Failures
from uncseg.dataset.splits import read_splits
from uncseg.evaluation.uncertainty import protocol_mask, score_failures
from uncseg.method.failures.failure_model import FailureModel, fitting_device
from uncseg.method.failures.failure_training import FailureTraining
from uncseg.runs.cross_fitting import fit_calibrations, grid_of
from uncseg.runs.failure_data import open_case, reference_of
from uncseg.runs.fold_request import RunRequest
from uncseg.runs.run_data import kept_preparation, read_data
from uncseg.runs.run_opening import open_existing_run
from uncseg.studies.benchmark.resampling import interval, resampled_means

SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "without the images": {"sees_images": False},
    "16 features": {"features": 16},
    "4 features": {"features": 4},
    "2 stages": {"stages": 2},
    "a third of the steps": {"steps_share": 1 / 3},
    "three times the steps": {"steps_share": 3},
    "batches of 4": {"batch_size": 4},
    "weight outside the union mask 0": {"outside": 0},
    "weight outside the union mask 1": {"outside": 1},
    "learning rate 0.003": {"initial_lr": 0.003},
}
FIGURES = {"auprc": 1, "brier": -1, "ece": -1, "corr": 1}
"""What is compared, and whether more is better."""


def main() -> None:
    """Train and compare."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--csv", type=Path, help="file for the scores of each case")
    options = parser.parse_args()
    folds = len(read_splits(_request(options.runs[0]).prepared.splits))
    work = [
        (run, number, fold, name, _settings(changes, options.steps))
        for name, changes in SETTINGS.items()
        for number, run in enumerate(options.runs)
        for fold in range(folds)
    ]
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        for done, found in enumerate(pool.imap(_judge, work), 1):
            rows += found
            if done % (folds * len(options.runs)) == 0:
                print(line(pd.DataFrame(rows), work[done - 1][3]), flush=True)
    if options.csv is not None:
        pd.DataFrame(rows).to_csv(options.csv, index=False)


def _settings(changes: dict[str, Any], steps: int) -> Failures:
    share = changes.get("steps_share", 1)
    return Failures(steps=round(steps * share), **{k: v for k, v in changes.items() if k != "steps_share"})


def _request(root: Path) -> RunRequest:
    run, experiment = open_existing_run(root)
    kept = kept_preparation(run, experiment)
    if kept is None:
        raise SystemExit(f"{root}: its prepared cases are not there; give uncseg evaluate {root}")
    return RunRequest(experiment, kept[0], run, Slots(1, 1, 1, FoldResources(1, 0), 1))


def _judge(work: tuple[Path, int, int, str, Failures]) -> list[dict[str, Any]]:
    """Train the network of a fold, and score its maps, and calibrated p, of the fold's own cases."""
    root, number, fold, name, settings = work
    torch.set_num_threads(1)
    request = _request(root)
    splits, main = read_splits(request.prepared.splits), list(request.experiment.dataset.task.regions)
    others = sorted(case for n, split in enumerate(splits) if n != fold for case in split["val"])
    calibrations, grid = fit_calibrations(request, others), grid_of(request)
    seed = number * 1000 + fold
    fresh = FailureModel(calibrations, settings, grid).build(seed).to(fitting_device())
    training = FailureTraining(fresh, settings, seed, "")
    with tempfile.TemporaryDirectory() as folder:
        training.run([open_case(request, case) for case in others], Path(folder) / "latest.pth")
    model = FailureModel(calibrations, settings, grid, training.network)
    data = read_data(request.run)
    assert data is not None
    region, rows = main.index(request.experiment.dataset.task.main_region), []
    for case_id in sorted(splits[fold]["val"]):
        patient = data.cases[case_id].patient
        case, reference = open_case(request, case_id), reference_of(request, case_id)
        whole = (slice(None),) * 4
        logits, chosen = case.logits[whole], case.decisions[whole]
        failure = chosen[region] != reference[region]
        mask = protocol_mask(reference[region], chosen[region], "union")
        learnt = model.failures(np.asarray(case.images[:]), logits, chosen)
        for kind, values in (("learnt", learnt), ("calibrated", model.calibrated(logits, chosen))):
            scores = score_failures(values[region], failure, mask)
            rows.append({"setting": name, "map": kind, "seed": number, "case": case_id, "patient": patient} | scores)
    return rows


def line(rows: pd.DataFrame, name: str) -> str:
    """Return what a setting gives."""
    own = rows[rows["setting"] == name]
    keys = ["seed", "case", "patient"]
    by_map = {kind: part.set_index(keys)[list(FIGURES)] for kind, part in own.groupby("map")}
    means = by_map["learnt"].mean()
    leads = ((by_map["learnt"] - by_map["calibrated"]) * pd.Series(FIGURES)).reset_index()
    patients, seeds = pd.Index(sorted(own["patient"].unique())), pd.Index(sorted(own["seed"].unique()))
    parts = []
    for figure in FIGURES:
        low, high = interval(resampled_means(leads, figure, patients, seeds))
        lead = f"{leads[figure].mean():+.3f} [{low:+.3f}, {high:+.3f}]"
        parts.append(f"{figure} {means[figure]:.3f} ({lead})")
    return f"{name}: " + ", ".join(parts)


if __name__ == "__main__":
    main()
