"""Five folds on two slots: how long slots stand idle while a fold is waiting, beside a shell script on the same slots.

    python tests/performance/slots.py [--epochs 40] [--iterations 100] [--runs 1] [--script-only 1]

Ours is `uncseg cross-validate` as a new process, a CPU a fold, two folds at once; it ends with every case evaluated.
The script is `nnUNetv2_train` for each fold through `xargs -P 2`, with the same trainer and plans, and ends with its
own validation of every case. Idle: from the command's start until the last fold begins, the time in which a slot is
not in a fold's epochs (starting Ray, checks, imports and building networks count as idle); `idle_after_start` leaves
out what comes before the first fold begins.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

from side_by_side import arguments, medians, prepared_phantoms, report

from uncseg.config.experiment import save_experiment
from uncseg.dataset.preparation import nnunet_environment
from uncseg.files import read_json, write_json
from uncseg.method.settings import TrainerSettings
from uncseg.tracking.spool import fold_file, read_records

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import uncseg.method.for_nnunet
from support.commands import NNUNET, UNCSEG

FOLDS, SLOTS = 5, 2


def spans(spool: Path) -> list[tuple[float, float]]:
    """Begin and end of each fold's training, seconds since the epoch."""
    found = []
    for fold in range(FOLDS):
        records, _ = read_records(fold_file(spool, fold))
        begin = next(record["time_ms"] for record in records if record["kind"] == "attempt")
        end = next(record["time_ms"] for record in records if record.get("state") == "finished")
        found.append((begin / 1000, end / 1000))
    return found


def idle_seconds(folds: list[tuple[float, float]], since: float) -> float:
    """Of all slots together, from ``since`` until the last fold begins."""
    last = max(begin for begin, _ in folds)
    return SLOTS * (last - since) - sum(min(end, last) - begin for begin, end in folds if begin < last)


def main() -> None:
    """Measure; makespans in the JSON's ours and peer, idle shares beside them."""
    shape = {"cases": 10, "size": 48, "patch": 32, "features": 8}
    options = arguments(__doc__, epochs=40, iterations=100, runs=1, script_only=0, **shape)
    training = {
        "epochs": options.epochs,
        "iterations_per_epoch": options.iterations,
        "val_iterations_per_epoch": 10,
        "checkpoint_every": 10,
    }
    # Ray starts its workers at niceness 15: at the script's own, what else the machine does disturbs both alike
    environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0"}
    with prepared_phantoms(options, folds=FOLDS, **training) as (experiment, prepared):
        folder = experiment.storage.path.parent
        idle = []
        runs = iter(range(1000))

        def ours() -> float:
            resources = experiment.resources.model_copy(update={"folds_at_once": SLOTS, "cpus_per_fold": 1.0})
            named = experiment.model_copy(update={"name": f"run{next(runs)}", "resources": resources})
            save_experiment(named, folder / "run.yaml")
            started, epoch = time.perf_counter(), time.time()
            command = [UNCSEG, "cross-validate", str(folder / "run.yaml")]
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            took = time.perf_counter() - started
            folds = spans(named.run_folder / "spool")
            first = min(begin for begin, _ in folds)
            idle.append((idle_seconds(folds, epoch) / took, idle_seconds(folds, first) / took))
            print(
                f"idle while a fold waits: {idle[-1][0]:.1%} of {took:.0f} s, {idle[-1][1]:.1%} after the first began",
                flush=True,
            )
            return took

        def script() -> float:
            write_json(
                prepared.plans, TrainerSettings.from_experiment(experiment).into_plans(read_json(prepared.plans))
            )
            file = folder / "nnunet.py"
            file.write_text(NNUNET)
            results = folder / f"results{next(runs)}"
            variables = nnunet_environment(prepared, results)
            variables["nnUNet_extTrainer"] = str(Path(uncseg.method.for_nnunet.__file__).parent)
            number = prepared.dataset_name.partition("_")[0].removeprefix("Dataset")
            train = f"{sys.executable} {file} nnUNetv2_train {number} 3d_fullres {{}}"
            started = time.perf_counter()
            line = f"seq 0 {FOLDS - 1} | xargs -P {SLOTS} -I{{}} {train} -tr UncertaintyTrainer -device cpu"
            subprocess.run(line, shell=True, env=environment | variables, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - started

        if options.script_only:  # where ours was measured before, an hour each
            print(f"the script: {script():.0f} s")
            return
        # a round takes half an hour at lengths that mean something: one is enough, and a first unmeasured one too much
        our_s, script_s = medians("s", options.runs, ours, script) if options.runs > 1 else (ours(), script())
        whole, after = idle[-1]
        report("slots", "s", options.runs, our_s, script_s, idle=whole, idle_after_start=after)


if __name__ == "__main__":
    main()
