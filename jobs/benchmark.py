r"""Run a benchmark, as a job on a running Ray cluster.

    ray job submit --working-dir . -- python jobs/benchmark.py experiments/benchmarks/phantoms.yaml \
        --set dataset.path=/shared/brats --set storage.path=/shared/runs
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

from uncseg.cli import main

if __name__ == "__main__":
    main(["benchmark", *sys.argv[1:]])
