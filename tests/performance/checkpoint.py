"""Writing and loading a checkpoint: ours (atomic, with its resume file, loaded without running code) against nnU-Net's.

python tests/performance/checkpoint.py [--features 32] [--steps 4] [--runs 5] [--device cuda]
"""

import time
from pathlib import Path
from typing import Any

from side_by_side import arguments, both_trainers, in_turn, prepared_phantoms


def main() -> None:
    """Measure; both model files' sizes are in the JSON, and the resume file's."""
    options = arguments(__doc__, steps=4, features=32)
    with prepared_phantoms(options) as (experiment, prepared):
        ours, peer = both_trainers(options, experiment, prepared)
        stream, validation = ours.get_dataloaders()
        for _ in range(options.steps):
            batch = next(stream)
            ours.train_step(batch)
            peer.train_step(batch)
            ours.network.eval()
            ours.validation_step(next(validation))
            ours.network.train()

        def file_of(trainer: Any) -> Path:
            file = Path(trainer.output_folder) / "checkpoint_latest.pth"
            file.parent.mkdir(parents=True, exist_ok=True)
            return file

        def seconds(trainer: Any) -> float:
            started = time.perf_counter()
            trainer.save_checkpoint(str(file_of(trainer)))
            trainer.load_checkpoint(str(file_of(trainer)))
            trainer.current_epoch = 0
            return time.perf_counter() - started

        seconds(ours)
        seconds(peer)
        (resume,) = file_of(ours).parent.glob("resume_epoch_*.pt")
        sizes = {
            "model_bytes": file_of(ours).stat().st_size,
            "peer_model_bytes": file_of(peer).stat().st_size,
            "resume_bytes": resume.stat().st_size,
        }
        in_turn("checkpoint", "s", options.runs, lambda: seconds(ours), lambda: seconds(peer), **sizes)


if __name__ == "__main__":
    main()
