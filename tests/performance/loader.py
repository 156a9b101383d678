"""Batches per second: our loader against nnU-Net's augmenter, with as many processes.

    python tests/performance/loader.py [--processes 2] [--batches 400] [--runs 5]

Each is started, fills its queue, gives some batches unmeasured, is measured and stopped. Ours has another seed in each
run: a rotated sample takes many times longer, and one seed always rotates the same samples.
"""

import contextlib
import os
import time
from itertools import count
from typing import Any

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from side_by_side import arguments, in_turn, make_trainer, prepared_phantoms

from uncseg.method.training.trainer import UncertaintyTrainer


def batches_per_second(streams: Any, warmup: int, batches: int) -> float:
    """Of the first of two streams."""
    training = streams[0]
    for _ in range(warmup):
        next(training)
    started = time.perf_counter()
    for _ in range(batches):
        next(training)
    return batches / (time.perf_counter() - started)


def main() -> None:
    """Measure; a ratio of 1 or more is what we want here."""
    options = arguments(__doc__, processes=2, batches=400, runs=5)
    with prepared_phantoms(options, loader_processes=options.processes) as (experiment, prepared):
        os.environ["nnUNet_n_proc_DA"] = str(options.processes)  # noqa: SIM112 - nnU-Net's name
        warmup = 30  # more than either keeps ready

        seeds = count()

        def ours() -> float:
            training = experiment.training.model_copy(update={"seed": next(seeds)})
            seeded = experiment.model_copy(update={"training": training})
            trainer = make_trainer(UncertaintyTrainer, options, seeded, prepared)
            streams = trainer.get_dataloaders()
            try:
                return batches_per_second(streams, warmup, options.batches)
            finally:
                for stream in streams:
                    stream.close()

        def peer() -> float:
            trainer = make_trainer(nnUNetTrainer, options, experiment, prepared)
            with contextlib.redirect_stdout(None):
                streams = trainer.get_dataloaders()
            try:
                return batches_per_second(streams, warmup, options.batches)
            finally:
                for stream in streams:
                    stream._finish()

        in_turn("loader", "batches/s", options.runs, ours, peer, processes=options.processes)


if __name__ == "__main__":
    main()
