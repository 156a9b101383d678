"""uncseg prepare against nnU-Net's own command, on the same phantoms and with as many processes.

    python tests/performance/prepare.py [--cases 20] [--size 48] [--processes 2] [--runs 3]

Each run times, in turn: nnUNetv2_plan_and_preprocess; ours on a running Ray whose workers have worked before (warm);
`uncseg prepare` as a new process that starts its own Ray (cold). nnU-Net's raw folder is made beforehand and not
timed; ours also checks the cases, makes the split and the oracle maps. All preprocessed arrays must be equal.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ.pop("RAY_ADDRESS", None)

import numpy as np
import yaml

from uncseg.cluster.session import ray_session
from uncseg.config.experiment import load_experiment
from uncseg.dataset.case_volumes import read_case_volumes
from uncseg.dataset.nnunet_case import write_raw_case
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.preparation import dataset_description
from uncseg.dataset.scan import scan_folder
from uncseg.files import write_json
from uncseg.layout import PreparedFolder
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.tasks.built_in_tasks import paper_task

PAPER = paper_task()

CONFIGURATION = "3d_fullres"


def write_experiment(folder: Path, phantoms: Path) -> Path:
    """An experiment that leaves planning to nnU-Net and stores in a folder of its own."""
    content = {
        "name": "measured",
        "dataset": {"path": str(phantoms), "name": "Phantoms"},
        "plan": {"configuration": CONFIGURATION},
        "storage": {"path": str(folder / "runs")},
    }
    folder.mkdir(parents=True)
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    return file


def write_raw(folder: Path, phantoms: Path) -> PreparedFolder:
    """What nnU-Net's command starts from."""
    raw = PreparedFolder(folder, "Dataset501_Phantoms")
    cases = scan_folder(phantoms, task=paper_task()).cases
    for case in cases:
        write_raw_case(read_case_volumes(case, PAPER), raw.raw_dataset / "imagesTr", raw.raw_dataset / "labelsTr")
    write_json(raw.raw_dataset / "dataset.json", dataset_description("labels", len(cases), PAPER))
    return raw


def run_quietly(command: list[str], **environment: str) -> None:
    """Run to the end; its output is shown only where it failed."""
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")


def time_peer(folder: Path, phantoms: Path, processes: int) -> tuple[float, PreparedFolder]:
    """Seconds of nnU-Net's command as a new process."""
    raw = write_raw(folder, phantoms)
    command = [str(Path(sys.executable).with_name("nnUNetv2_plan_and_preprocess")), "-d", "501", "-c", CONFIGURATION]
    command += ["-np", str(processes), "-npfp", str(processes)]
    folders = {"nnUNet_raw": str(raw.raw), "nnUNet_preprocessed": str(raw.preprocessed)}
    start = time.perf_counter()
    run_quietly(command, **folders, nnUNet_results=str(folder / "results"))
    return time.perf_counter() - start, raw


def time_warm(folder: Path, phantoms: Path) -> tuple[float, PreparedFolder]:
    """Seconds of ours in this process, connected to Ray."""
    experiment = load_experiment(write_experiment(folder, phantoms))
    start = time.perf_counter()
    prepared = prepare_cases(experiment)
    return time.perf_counter() - start, prepared


def time_cold(folder: Path, phantoms: Path) -> tuple[float, PreparedFolder]:
    """Seconds of ours as a new process, start and end of Ray included."""
    file = write_experiment(folder, phantoms)
    start = time.perf_counter()
    run_quietly([sys.executable, "-m", "uncseg.cli", "prepare", str(file)])
    seconds = time.perf_counter() - start
    (done,) = folder.rglob("prepared.json")
    return seconds, PreparedFolder(done.parent, "Dataset501_Phantoms")


def assert_equal(ours: PreparedFolder, peer: PreparedFolder) -> None:
    """Every case's data and segmentation, voxel for voxel."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    both = [nnUNetDatasetBlosc2(str(p.dataset / f"nnUNetPlans_{CONFIGURATION}")) for p in (ours, peer)]
    assert both[0].identifiers == both[1].identifiers
    for case in both[0].identifiers:
        (a, a_seg, *_), (b, b_seg, *_) = (dataset.load_case(case) for dataset in both)
        np.testing.assert_array_equal(a[:], b[:], err_msg=case)
        np.testing.assert_array_equal(a_seg[:], b_seg[:], err_msg=case)


def measure(options: argparse.Namespace, work: Path) -> dict[str, list[float]]:
    """Seconds of every run."""
    phantoms = work / "phantoms"
    write_phantoms(phantoms, options.cases, options.size, seed=0, task=paper_task())
    seconds: dict[str, list[float]] = {"peer": [], "warm": [], "cold": []}
    for run in range(options.runs):
        here = work / str(run)
        peer_seconds, peer = time_peer(here / "peer", phantoms, options.processes)
        cold_seconds, cold = time_cold(here / "cold", phantoms)
        with ray_session("local", num_cpus=options.processes):
            time_warm(here / "warming", phantoms)
            warm_seconds, warm = time_warm(here / "warm", phantoms)
        assert_equal(warm, peer)
        assert_equal(cold, peer)
        for name, value in (("peer", peer_seconds), ("warm", warm_seconds), ("cold", cold_seconds)):
            seconds[name].append(value)
        print(f"run {run + 1}: nnU-Net {peer_seconds:.1f} s, warm {warm_seconds:.1f} s, cold {cold_seconds:.1f} s")
    return seconds


def main() -> None:
    """Measure, print both ratios, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("cases", 20), ("size", 48), ("processes", 2), ("runs", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        seconds = measure(options, Path(work))
    peer, warm, cold = (statistics.median(seconds[name]) for name in ("peer", "warm", "cold"))
    print(f"all arrays equal; {peer / warm:.1f} times faster on a running Ray, {peer / cold:.1f} times from cold")
    result = {
        "measured": "prepare",
        "ours": warm,
        "peer": peer,
        "ratio": warm / peer,
        "unit": "s",
        "runs": options.runs,
        "cold_ours": cold,
        "cold_ratio": cold / peer,
        "speedup_warm": peer / warm,
        "speedup_cold": peer / cold,
    }
    print(json.dumps({name: round(value, 3) if isinstance(value, float) else value for name, value in result.items()}))


if __name__ == "__main__":
    main()
