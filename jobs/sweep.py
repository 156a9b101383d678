r"""Run a sweep, as a job on a running Ray cluster.

    ray job submit --working-dir . -- python jobs/sweep.py experiments/sweeps/loss_weights.yaml \
        --set dataset.path=/shared/brats --set storage.path=/shared/runs
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from uncseg.cli import main

if __name__ == "__main__":
    main(["sweep", *sys.argv[1:]])
