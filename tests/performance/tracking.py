"""MLflow filled by many runs: how long a search, a comparison and the push of one epoch take.

    python tests/performance/tracking.py [--runs-filled 100] [--epochs 500] [--metrics 40] [--runs 5] [--keep FOLDER]

Fills an SQLite database through MLflow, as the syncer does (minutes), then measures in turn, all through MLflow's API:

- search: the runs of the experiment, by a param and a final figure, best first;
- compare: two runs with their params and the whole history of every metric;
- push: one epoch of five folds, with the parent's means and spreads. The peer logs the same values one by one.

--keep leaves the database in FOLDER, and takes one that lies there.
"""

import contextlib
import json
import statistics
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mlflow.entities import Metric

from uncseg.layout import RunFolder
from uncseg.tracking.destination import Destination, open_store
from uncseg.tracking.push import mean_rows
from uncseg.tracking.record import RunDescription
from uncseg.tracking.spool import SpoolWriter, read_history
from uncseg.tracking.store import METRICS_PER_CALL, Store
from uncseg.tracking.syncer import Syncer

FOLDS = range(5)
NOW_MS = 1_700_000_000_000


def fill(store: Store, options: Namespace) -> None:
    """Runs that are there already stay."""
    rng = np.random.default_rng(0)
    there = store.client.search_runs([store.experiment_id], "tags.filled = 'yes'", max_results=5000)
    for number in range(len(there), options.runs_filled):
        run_id = store.create_run(f"run {number}", {}, NOW_MS + number)
        store.log_params(run_id, {f"loss.p{i}": f"{value:.3f}" for i, value in enumerate(rng.random(50))})
        values = rng.random((options.epochs, options.metrics))
        rows = [
            Metric(f"train/m{m}", float(values[epoch, m]), NOW_MS + epoch, epoch)
            for epoch in range(options.epochs)
            for m in range(options.metrics)
        ]
        store.log_metrics(run_id, rows)
        store.log_metrics(run_id, [Metric("final/dice_wt", float(rng.random()), NOW_MS, 0)])
        store.set_status(run_id, "FINISHED", NOW_MS + options.epochs)
        store.set_tags(run_id, {"filled": "yes"})
        print(f"filled {number + 1} of {options.runs_filled}", end="\r", flush=True)
    print()


def search(store: Store) -> None:
    """The best runs of those that a person would filter for."""
    found = store.client.search_runs(
        [store.experiment_id],
        "metrics.`final/dice_wt` > 0.2 and params.`loss.p0` != '0.5'",
        order_by=["metrics.`final/dice_wt` DESC"],
        max_results=100,
    )
    assert found


def compare(store: Store, metrics: int) -> None:
    """Two runs with all their curves."""
    a, b = store.client.search_runs([store.experiment_id], "tags.filled = 'yes'", max_results=2)
    for run in (a, b):
        for m in range(metrics):
            assert store.client.get_metric_history(run.info.run_id, f"train/m{m}")


def timed(work: Callable[[], None]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def pushes(store: Store, folder: Path, options: Namespace) -> tuple[list[float], list[float]]:
    """Seconds of each epoch of five folds: by the syncer, and one value after the other."""
    run = RunFolder(folder)
    writers = [SpoolWriter(run.spool, fold, first_epoch=0) for fold in FOLDS]
    destination, description = Destination(store.tracking_uri, "filled"), RunDescription(folder.name, {}, {})
    syncer = Syncer(run, destination, description, FOLDS)
    rng, ours, peer = np.random.default_rng(1), [], []
    single = store.create_run("one by one", {})
    for epoch in range(options.runs + 1):
        for writer in writers:
            writer.epoch(epoch, {f"train/m{m}": float(rng.random()) for m in range(options.metrics)})
            writer.checkpoint(epoch)
        seconds = timed(lambda: require(syncer.push_once()))
        histories = {fold: read_history(run.spool, fold) for fold in FOLDS}
        rows = [Metric(f"{fold}/{k}", v, NOW_MS, epoch) for fold in FOLDS for k, v in last(histories[fold]).items()]
        rows += mean_rows(histories, epoch)
        slow = timed(lambda rows=rows: [store.client.log_metric(single, r.key, r.value, NOW_MS, r.step) for r in rows])
        if epoch:  # the first makes the runs
            ours.append(seconds)
            peer.append(slow)
    return ours, peer


def last(history) -> dict[str, float]:
    """The metrics of its last epoch."""
    return history.epochs[history.last_epoch].metrics


def require(pushed: bool) -> None:
    """A measurement of something that failed says nothing."""
    assert pushed


def main() -> None:
    """Fill, measure, print."""
    parser = ArgumentParser(description=__doc__)
    for name, default in {"runs-filled": 100, "epochs": 500, "metrics": 40, "runs": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        store = open_store(f"sqlite:///{folder.resolve() / 'mlflow.db'}", "filled")
        filling = timed(lambda: fill(store, options))
        size = (folder / "mlflow.db").stat().st_size
        print(f"filled in {filling:.0f} s, {size / 1e6:.0f} MB, {METRICS_PER_CALL} metrics a call", flush=True)
        searched = [timed(lambda: search(store)) for _ in range(options.runs)]
        compared = [timed(lambda: compare(store, options.metrics)) for _ in range(options.runs)]
        with tempfile.TemporaryDirectory() as pushed:
            ours, peer = pushes(store, Path(pushed) / f"pushed at {time.time():.0f}", options)
    medians = {name: statistics.median(v) for name, v in (("search", searched), ("compare", compared))}
    print(f"search {medians['search']:.3f} s, compare {medians['compare']:.3f} s; wanted under 2 s each")
    print(
        f"push of one epoch of five folds {statistics.median(ours):.3f} s (longest {max(ours):.3f}); wanted under 0.5 s"
    )
    ratio = statistics.median(ours) / statistics.median(peer)
    result = {"measured": "tracking", "ours": statistics.median(ours), "peer": statistics.median(peer), "ratio": ratio}
    more = {"search_s": medians["search"], "compare_s": medians["compare"], "database_mb": size / 1e6}
    print(json.dumps(result | {"unit": "s", "runs": options.runs} | more))


if __name__ == "__main__":
    main()
