"""A known response surface: a trainer whose score is a formula of its settings, to see what a search is worth.

    python tests/performance/response_surface.py [--seeds 20] [--speed 0.6]

Four knobs, each mapped to t in [0, 1] over its range (by its logarithm, where it is drawn so); OPTIMUM in t:

    score(t) = 0.85 − 0.3 · Σ (t_i − o_i)² − 0.15 · (t_0 − o_0) · (t_2 − o_2)
    seen in epoch e of E by fold k of a trial = score(t) · (1 − exp(−r e / E)) / (1 − exp(−r)) + F_k + T + N

r = 3 + speed · t_3: curves cross. F_k, sd 0.02: folds differ, alike for all trials. T, sd 0.004: of a trial's fold.
N, sd 0.006: of an epoch. A trial is what ``uncseg sweep`` hears: the mean over two folds; 27 epochs.
"""

import argparse
import itertools
import math
import os
import tempfile
from statistics import median

import numpy as np
import ray.tune

from uncseg.cluster.session import ray_session
from uncseg.studies.sweep.search import param_space, tune_config
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.train_trial import mean_over_folds

METRIC, EPOCHS, FOLDS, TRIALS, GRID_VALUES = "val_patch/dice_mean", 27, 2, 120, 5
RANGES = {
    "loss.unc_weight": {"loguniform": [0.1, 1.6]},
    "loss.rmsd_weight": {"loguniform": [0.1, 2.0]},
    "loss.corr_weight": {"loguniform": [0.1, 1.6]},
    "loss.weight_ce.ed": {"uniform": [0.05, 1.0]},
}
OPTIMUM = np.array([0.35, 0.60, 0.45, 0.30])
BEST = 0.85
ENOUGH = 0.99 * BEST
GRID_COST = GRID_VALUES ** len(RANGES) * EPOCHS * FOLDS


def positions(values):
    """t of each knob."""
    found = []
    for field, words in RANGES.items():
        ((word, (low, high)),) = words.items()
        at, low, high = (math.log(x) if word == "loguniform" else x for x in (values[field], low, high))
        found.append((at - low) / (high - low))
    return np.array(found)


def score(t):
    away = t - OPTIMUM
    return BEST - 0.3 * (away**2).sum(-1) - 0.15 * away[..., 0] * away[..., 2]


class SurfaceTrial(ray.tune.Trainable):
    """Two folds in step; a new trial takes the actor of one that has ended."""

    def setup(self, config):
        self.reset_config(config)

    def reset_config(self, config):
        self.sweep, seed, speed = config["setup"]
        self.t = positions(config)
        self.random = np.random.default_rng([seed, *(int(1e6 * x) for x in self.t)])
        of_folds = np.random.default_rng(seed).normal(0, 0.02, FOLDS)
        self.offsets = of_folds + self.random.normal(0, 0.004, FOLDS)
        self.rate = 3 + speed * self.t[3]
        self.epoch = 0
        return True

    def step(self):
        self.epoch += 1
        grown = (1 - math.exp(-self.rate * self.epoch / EPOCHS)) / (1 - math.exp(-self.rate))
        seen = score(self.t) * grown + self.offsets + self.random.normal(0, 0.006, FOLDS)
        reports = [{"epoch": self.epoch - 1, METRIC: float(value)} for value in seen]
        return mean_over_folds(reports, self.sweep) | {"true": float(score(self.t)), "done": self.epoch == EPOCHS}

    def save_checkpoint(self, _folder):
        return None


class Costs(ray.tune.Callback):
    """Fold-epochs spent until the trial that the sweep would call the best is good enough, and in all."""

    def __init__(self):
        self.spent, self.until, self.best, self.reached = 0, None, -math.inf, False

    def on_trial_result(self, result, **_info):
        self.spent += FOLDS
        if result["epoch"] == EPOCHS and result[METRIC] > self.best:
            self.best, self.reached = result[METRIC], result["true"] >= ENOUGH
            if self.reached and self.until is None:
                self.until = self.spent
            elif not self.reached:
                self.until = None  # a worse one took its place


def search(kind, seed, speed, folder):
    """(fold-epochs until the best is and stays good enough, None where it is not; fold-epochs in all)."""
    sweep = Sweep(
        name="surface",
        base="base.yaml",
        space=RANGES,
        folds=tuple(range(FOLDS)),
        trials=TRIALS,
        search={"type": kind, "random_trials": 16},
        scheduler={"type": "asha", "grace_epochs": 3, "reduction_factor": 3},
        seed=seed,
    )
    config = tune_config(sweep, EPOCHS, 2)
    config.reuse_actors = True
    costs = Costs()
    ray.tune.Tuner(
        ray.tune.with_resources(SurfaceTrial, {"CPU": 1}),
        param_space=param_space(sweep) | {"setup": (sweep, seed, speed)},
        tune_config=config,
        run_config=ray.tune.RunConfig(name=f"{kind}_{seed}", storage_path=str(folder), callbacks=[costs], verbose=0),
    ).fit()
    return costs.until, costs.spent


def grid(seed):
    """The same for all points of the grid, in an order of chance, each trained to its end."""
    random = np.random.default_rng(seed)
    points = np.array(list(itertools.product(np.linspace(0, 1, GRID_VALUES), repeat=len(RANGES))))
    random.shuffle(points)
    seen = score(points) + random.normal(0, math.hypot(0.004, 0.006) / math.sqrt(FOLDS), len(points))
    until, best = None, -math.inf
    for number, point in enumerate(points, start=1):
        if seen[number - 1] > best:
            best = seen[number - 1]
            good = score(point) >= ENOUGH
            until = (until or number * EPOCHS * FOLDS) if good else None
    return until, GRID_COST


def study(seeds, speed=0.6):
    """Results by search: a list of (until, in all), one a seed."""
    os.environ |= {"TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1", "RAY_AIR_NEW_OUTPUT": "0"}
    with tempfile.TemporaryDirectory() as folder:
        return {
            "grid": [grid(seed) for seed in range(seeds)],
            "random + ASHA": [search("random", seed, speed, folder) for seed in range(seeds)],
            "TPE + ASHA": [search("tpe", seed, speed, folder) for seed in range(seeds)],
        }


def median_until(results):
    """Fold-epochs; infinite where half of the seeds never got there."""
    return median(math.inf if until is None else until for until, _ in results)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--speed", type=float, default=0.6)
    options = parser.parse_args()
    seeds = options.seeds
    with ray_session(None, num_cpus=2):
        found = study(seeds, options.speed)
    print(
        f"| search | within 1 % of the optimum | fold-epochs until then, median of {seeds} seeds | in all | grid / it |"
    )
    print("|---|---|---|---|---|")
    for name, results in found.items():
        there = sum(until is not None for until, _ in results)
        until = median_until(results)
        in_all = median(spent for _, spent in results)
        print(f"| {name} | {there} of {seeds} | {until:.0f} | {in_all:.0f} | {GRID_COST / until:.1f} |")


if __name__ == "__main__":
    main()
