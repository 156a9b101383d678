"""The time to refuse a wrong request: seconds of CPU of twelve mistakes, ours and another version's.

    python tests/performance/refusals.py [--peer OTHER_CHECKOUT/platform] [--runs 3]

Each command is a process of its own; its seconds are those of user and system, with its children's. Every mistake can
be known from the command line and the files, so nobody should wait for torch, nnU-Net, Ray or MLflow to load.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

OURS = Path(__file__).parents[2] / "platform"
MISTAKES = {
    "a fold that does not exist": "cross-validate experiment.yaml --folds 7",
    "an experiment file that does not exist": "cross-validate experiment.yml",
    "a dataset that does not exist": "cross-validate experiment.yaml --set dataset.path=nowhere",
    "a field that does not exist": "cross-validate experiment.yaml --set training.epoch=3",
    "a run of this name with other settings": "cross-validate experiment.yaml --set name=begun",
    "more folds than patients": "prepare experiment.yaml --set split.folds=9",
    "the file of a sweep in place of an experiment": "cross-validate sweep.yaml",
    "a sweep of a dataset that does not exist": "sweep sweep.yaml --set dataset.path=nowhere",
    "a model that does not exist": "predict runs/nobody cases out",
    "a run without a finished fold": "predict runs/begun cases out",
    "a run that does not exist": "report runs/nobody",
    "a folder of masks that does not exist": "score nowhere cases --out scores.parquet",
}


def write_files(folder: Path) -> None:
    """Write three cases, an experiment, a sweep, and the folder of a run that has not begun."""
    uncseg(OURS, "phantom cases --cases 3 --size 24", folder)
    training = {"epochs": 2, "iterations_per_epoch": 2, "val_iterations_per_epoch": 1}
    experiment = {"name": "small", "dataset": {"path": "cases"}, "split": {"folds": 2}, "training": training}
    sweep = {"name": "search", "base": "experiment.yaml", "space": {"loss.unc_weight": {"uniform": [0, 1]}}}
    begun = experiment | {"name": "begun", "training": training | {"epochs": 7}}
    (folder / "runs" / "begun").mkdir(parents=True)
    files = {"experiment.yaml": experiment, "sweep.yaml": sweep, "runs/begun/experiment.yaml": begun}
    for name, content in files.items():
        (folder / name).write_text(yaml.safe_dump(content))


def uncseg(platform: Path, line: str, folder: Path) -> tuple[int, float]:
    """Return the exit code of a command line, and its seconds of CPU."""
    variables = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    environment = os.environ | variables | {"PYTHONPATH": str(platform), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-m", "uncseg.cli", *line.split()]
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime


def main() -> None:
    """Measure, and print a row per mistake."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--peer", type=Path, help="folder `platform` of another version")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    versions = {"ours": OURS} | ({"peer": options.peer.resolve()} if options.peer else {})
    seconds: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        for mistake, line in MISTAKES.items():
            found: dict[str, list[float]] = {version: [] for version in versions}
            for _ in range(options.runs):
                for version, platform in versions.items():
                    code, used = uncseg(platform, line, folder)
                    if code != 2:
                        print(f"{version} ended with {code}: {line}", file=sys.stderr)
                    found[version].append(used)
            seconds[mistake] = {version: round(statistics.median(each), 2) for version, each in found.items()}
            cells = [f"{seconds[mistake][version]:.2f} s" for version in versions]
            print(f"| {mistake}: `uncseg {line}` | {' | '.join(cells)} |", flush=True)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
