"""Workers on a Ray with pretended GPUs: one process per GPU, which stays alive and is restarted if it dies."""

import json
import sys

from support.commands import run_process

SCRIPT = """
import json, os, signal, sys
from pathlib import Path
import ray
from uncseg.cluster.resources import FoldResources, Slots
from uncseg.cluster.tasks import map_cases
from uncseg.cluster.tasks import Workers

ray.init(address="local", num_cpus=1, num_gpus=2, include_dashboard=False, log_to_driver=False)
folder = Path(sys.argv[1])

def work(number):
    if number == 5 and not (folder / "died").exists():
        (folder / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if number == 7:
        raise ValueError("seven")
    return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"]

slots = Slots(2, 2, 2, FoldResources(cpus=1, gpus=1), cases=2)
with Workers(slots, 20) as workers:
    calls = [(str(n), work, (n,)) for n in range(20)]
    results, problems = map_cases(calls, lambda *_: None, lambda: 2 * workers.count(), "a number", workers.start)
# nothing is reserved after the block
ray.get(ray.remote(num_gpus=2)(lambda: None).remote(), timeout=600)
(folder / "found").write_text(json.dumps([results, [problem.found for problem in problems]]))
"""
# without a word about tokens Ray writes one into the user's home
VARIABLES = {"RAY_AUTH_MODE": "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


def test_a_gpu_worker_keeps_its_process_and_is_restarted_if_killed(tmp_path):
    run_process(sys.executable, "-c", SCRIPT, tmp_path, folder=tmp_path, **VARIABLES)
    results, problems = json.loads((tmp_path / "found").read_text())
    assert len(results) == 19
    assert len(problems) == 1
    assert "seven" in problems[0]
    # one process was killed and restarted as another; each stayed on one GPU
    places = {tuple(place) for place in results.values()}
    assert len({pid for pid, _ in places}) == len(places) == 3
    assert {gpu for _, gpu in places} == {"0", "1"}
