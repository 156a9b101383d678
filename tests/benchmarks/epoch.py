"""A real epoch against the same epoch fed from one resident batch: the share of time not spent waiting for data.

python tests/benchmarks/epoch.py [--iterations 30] [--processes 1] [--runs 3] [--device cuda]
"""

import time
from typing import Any

from side_by_side import arguments, in_turn, make_trainer, prepared_phantoms

from uncseg.method.trainer import UncertaintyTrainer


def main() -> None:
    """Measure; ``share`` in the JSON is resident / real."""
    options = arguments(__doc__, iterations=30, processes=1, runs=3)
    with prepared_phantoms(options, loader_processes=options.processes) as (experiment, prepared):
        trainer = make_trainer(UncertaintyTrainer, options, experiment, prepared)
        stream, validation = trainer.get_dataloaders()
        resident = next(stream)
        waited = []

        def seconds(draw: Any) -> float:
            started = time.perf_counter()
            stream.seconds_waited = 0.0
            for _ in range(options.iterations):
                trainer.train_step(draw())
            waited.append(stream.seconds_waited)
            return time.perf_counter() - started

        in_turn("epoch", "s", options.runs, lambda: seconds(lambda: next(stream)), lambda: seconds(lambda: resident))
        print(f"seconds waited for data in the real epochs: {max(waited[::2]):.3f} at most")
        for each in (stream, validation):
            each.close()


if __name__ == "__main__":
    main()
