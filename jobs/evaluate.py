"""Evaluate a run out of fold, as a job on a running Ray cluster.

ray job submit --working-dir . -- python jobs/evaluate.py /shared/runs/NAME
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from uncseg.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
