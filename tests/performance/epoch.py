"""A real epoch against the same epoch fed from one resident batch: the share of time not spent waiting for data.

python tests/performance/epoch.py [--iterations 30] [--processes 1] [--runs 3] [--device cuda]
"""

import time
from typing import Any

from side_by_side import arguments, make_trainer, medians, prepared_phantoms, report

from uncseg.method.training.trainer import UncertaintyTrainer


def main() -> None:
    """Measure; the share of the real epoch that was not waiting, and the resident epoch's time over the real one's."""
    options = arguments(__doc__, iterations=30, processes=1, runs=3)
    with prepared_phantoms(options, loader_processes=options.processes) as (experiment, prepared):
        trainer = make_trainer(UncertaintyTrainer, options, experiment, prepared)
        stream, validation = trainer.get_dataloaders()
        resident = next(stream)
        busy = []

        def seconds(draw: Any) -> float:
            started = time.perf_counter()
            for _ in range(options.iterations):
                trainer.train_step(draw())
            return time.perf_counter() - started

        def real() -> float:
            stream.seconds_waited = 0.0
            total = seconds(lambda: next(stream))
            busy.append(1 - stream.seconds_waited / total)
            return total

        ours, peer = medians("s", options.runs, real, lambda: seconds(lambda: resident))
        report("epoch", "s", options.runs, ours, peer, busy=min(busy[1:]), share=peer / ours)
        for each in (stream, validation):
            each.close()


if __name__ == "__main__":
    main()
