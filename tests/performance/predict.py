"""Predicting a case with the uncertainty map against the same without it: seconds, peak memory, equal labels.

    python tests/performance/predict.py [--volume 128] [--patch 64] [--features 16] [--runs 5] [--device cuda]

Ours is our predictor, the peer nnU-Net's own with the same network, tiles and no mirroring; both bring their outputs
into native space. Peak memory is a new process's for each (on a GPU, what torch has allocated there).
"""

import contextlib
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from side_by_side import arguments, in_turn, make_trainer, prepared_phantoms

from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.inference.native_space import GridPrediction, NativePrediction, native_prediction, predict_grid
from uncseg.method.inference.predictor import UncertaintyPredictor
from uncseg.method.training.trainer import UncertaintyTrainer

ONLY = "UNCSEG_BENCHMARK_ONLY"  # set for a child process that predicts once, for its peak memory


def predictors(model: ModelFolder, device: str) -> tuple[UncertaintyPredictor, nnUNetPredictor]:
    """Ours and nnU-Net's, with one network."""
    kwargs: dict[str, Any] = {
        "use_mirroring": False,
        "device": torch.device(device),
        "perform_everything_on_device": device.startswith("cuda"),
        "allow_tqdm": False,
    }
    ours, peer = UncertaintyPredictor(**kwargs), nnUNetPredictor(**kwargs)
    ours.load_fold(model, 0)
    peer.manual_initialization(
        ours.network, ours.plans_manager, ours.configuration_manager, None, ours.dataset_json, ours.trainer_name, None
    )
    return ours, peer


def case(model: ModelFolder, size: int) -> tuple[np.ndarray, dict[str, Any]]:
    """A preprocessed volume of noise, and what nnU-Net knows of a case that needed no resampling."""
    shape = (size, size, size)
    box = [[0, size]] * 3
    spacing = list(model.configuration_manager.spacing)
    properties = {
        "spacing": [spacing[n] for n in model.plans_manager.transpose_backward],
        "shape_before_cropping": shape,
        "shape_after_cropping_and_before_resampling": shape,
        "bbox_used_for_cropping": box,
    }
    return np.random.default_rng(0).standard_normal((4, *shape), dtype=np.float32), properties


def main() -> None:
    """Measure."""
    only = os.environ.get(ONLY)
    if only:
        predict_once(**json.loads(only))
        return
    options = arguments(__doc__, volume=128, patch=64, cases=4, size=64)
    with prepared_phantoms(options) as (experiment, prepared):
        trainer = make_trainer(UncertaintyTrainer, options, experiment, prepared)
        with contextlib.redirect_stdout(None):
            trainer.on_train_start()  # writes plans.json and dataset.json
        file = Path(trainer.output_folder) / "checkpoint_final.pth"
        trainer.save_checkpoint(str(file))
        model = ModelFolder(Path(trainer.output_folder_base), experiment.plan.configuration)
        with contextlib.redirect_stdout(None):
            ours, peer = predictors(model, options.device)
        data, properties = case(model, options.volume)

        def with_map() -> NativePrediction:
            return native_prediction(predict_grid(ours, data), ours, properties, 1)

        def without() -> NativePrediction:
            logits = peer.predict_sliding_window_return_logits(torch.from_numpy(data)).cpu().numpy()
            return native_prediction(GridPrediction(logits), peer, properties, 1)

        def seconds(predict: Any) -> float:
            started = time.perf_counter()
            predict()
            return time.perf_counter() - started

        same = float((with_map().labels == without().labels).mean())
        memory = {
            who: peak_gib(who, str(model.root), model.configuration, options.volume, options.device)
            for who in ("ours", "peer")
        }
        more = {"same_labels": same, "memory_ratio": memory["ours"] / memory["peer"], "peak_gib": memory["ours"]}
        in_turn("predict", "s", options.runs, lambda: seconds(with_map), lambda: seconds(without), **more)


def peak_gib(who: str, root: str, configuration: str, size: int, device: str) -> float:
    """Peak memory of a process that predicts once."""
    what = {"who": who, "root": root, "configuration": configuration, "size": size, "device": device}
    done = subprocess.run(
        [sys.executable, __file__],
        env=os.environ | {ONLY: json.dumps(what)},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout.split()[-1])


def predict_once(who: str, root: str, configuration: str, size: int, device: str) -> None:
    """Runs in the child: prints its peak."""
    model = ModelFolder(Path(root), configuration)
    ours, peer = predictors(model, device)
    data, properties = case(model, size)
    if who == "ours":
        native_prediction(predict_grid(ours, data), ours, properties, 1)
    else:
        logits = peer.predict_sliding_window_return_logits(torch.from_numpy(data)).cpu().numpy()
        native_prediction(GridPrediction(logits), peer, properties, 1)
    if device.startswith("cuda"):
        print(torch.cuda.max_memory_allocated() / 2**30)
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


if __name__ == "__main__":
    main()
