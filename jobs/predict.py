"""Predict new cases with a run's folds, as a job on a running Ray cluster.

ray job submit --working-dir . -- python jobs/predict.py /shared/runs/NAME /shared/new /shared/predicted
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from uncseg.cli import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
