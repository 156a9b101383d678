"""A training step of ours against nnUNetTrainer's: same network, same batches, resident in memory.

    python tests/performance/step.py [--patch 48] [--features 16] [--batch 2] [--steps 8] [--runs 5] [--device cuda]

Both draw the same real batches (nnU-Net's augmentation, rotated patches included) before anything is timed. A step
ends, in both, when the loss has reached the host.
"""

import time

from side_by_side import arguments, both_trainers, in_turn, prepared_phantoms


def main() -> None:
    """Measure."""
    options = arguments(__doc__, steps=8)
    with prepared_phantoms(options) as (experiment, prepared):
        ours, peer = both_trainers(options, experiment, prepared)
        stream, _ = ours.get_dataloaders()
        batches = [next(stream) for _ in range(options.steps)]

        def seconds_per_step(trainer) -> float:  # type: ignore[no-untyped-def]
            started = time.perf_counter()
            for batch in batches:
                trainer.train_step(batch)
            return (time.perf_counter() - started) / options.steps

        ours.on_epoch_start = lambda: None
        in_turn("step", "s", options.runs, lambda: seconds_per_step(ours), lambda: seconds_per_step(peer))


if __name__ == "__main__":
    main()
