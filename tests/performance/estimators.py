"""What each estimator and backbone takes to predict a case: seconds and memory, as multiples of plain nnU-Net.

    python tests/performance/estimators.py [--volume 96] [--patch 64] [--features 16] [--runs 5] [--device cuda]
    python tests/performance/estimators.py --volume 160 --patch 128 --features 32 --samples 20 --full 1   # on a GPU

Every network has fresh weights, which cost as much as trained ones. Each round measures all of them in turn; a
multiple is the median over rounds of a round's ratio. Ours in the line of JSON is the head's single pass.
"""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from side_by_side import arguments, make_trainer, prepared_phantoms, report

from uncseg.config.sections import Estimators
from uncseg.method.inference.native_space import predict_grid
from uncseg.method.inference.predictor import UncertaintyPredictor
from uncseg.method.inference.several_passes_on_cases import estimate_grid
from uncseg.method.training.trainer import UncertaintyTrainer

PLAIN = {"uncertainty": False, "deep_supervision": False}
RESENC = "resenc_m"


def networks(options: Any) -> dict[str, tuple[dict[str, Any], Estimators, int]]:
    """Name → settings of the network, estimators, number of members."""
    samples = {"samples": options.samples}
    small_swin = {} if options.full else {"feature_size": 12, "depths": (1, 1, 1, 1)}
    small_bts = {} if options.full else {"base_features": 8, "embedding": 64, "layers": 2, "heads": 4, "hidden": 128}
    watching = {"deep_supervision": False, "error_network": {"run": "plain"}}
    draws = {"heteroscedastic": {"samples": 50}}
    return {
        "plain": (
            PLAIN,
            Estimators.model_validate({"augmentation": samples, "deep_ensemble": True}),
            options.members,
        ),
        "head": ({"deep_supervision": False}, Estimators(), 1),
        "dropout": (PLAIN | {"dropout": 0.2}, Estimators.model_validate({"mc_dropout": samples}), 1),
        "heteroscedastic": (PLAIN | {"heteroscedastic": True}, Estimators.model_validate(draws), 1),
        "heteroscedastic, dropout": (
            PLAIN | {"heteroscedastic": True, "dropout": 0.2},
            Estimators.model_validate({"mc_dropout": samples}),
            1,
        ),
        "error_features": (watching, Estimators(), 1),
        "error_network": (
            watching | {"error_network": {"run": "plain", "kind": "image_and_prediction"}},
            Estimators(),
            1,
        ),
        RESENC: (PLAIN, Estimators(), 1),
        "swin_unetr": (PLAIN | {"backbone": "swin_unetr", "swin_unetr": small_swin}, Estimators(), 1),
        "transbts": (PLAIN | {"backbone": "transbts", "transbts": small_bts}, Estimators(), 1),
    }


def predictor_of(options: Any, experiment: Any, prepared: Any, settings: dict[str, Any]) -> UncertaintyPredictor:
    """A predictor with a network of these settings."""
    model = type(experiment.model).model_validate(settings)
    trainer = make_trainer(UncertaintyTrainer, options, experiment.model_copy(update={"model": model}), prepared)
    predictor = UncertaintyPredictor(
        use_mirroring=False,
        device=torch.device(options.device),
        perform_everything_on_device=options.device.startswith("cuda"),
        allow_tqdm=False,
    )
    network = getattr(trainer.network, "_orig_mod", trainer.network)
    predictor.manual_initialization(
        network,
        trainer.plans_manager,
        trainer.configuration_manager,
        None,
        trainer.dataset_json,
        "UncertaintyTrainer",
        trainer.inference_allowed_mirroring_axes,
    )
    predictor.outputs = trainer.outputs
    return predictor


def main() -> None:
    """Measure."""
    options = arguments(__doc__, volume=96, patch=64, cases=4, size=64, samples=8, members=3, full=0)
    with prepared_phantoms(options) as planned, prepared_phantoms(options, preset=RESENC) as residual:
        data = np.random.default_rng(0).standard_normal((4, *[options.volume] * 3), dtype=np.float32)
        work: dict[str, Callable[[], Any]] = {}
        for name, (settings, estimators, members) in networks(options).items():
            of = residual if name == RESENC else planned
            loaded = [predictor_of(options, *of, settings) for _ in range(members)]
            work[name] = lambda loaded=loaded: predict_grid(loaded[0], data)
            for estimator in estimators.several_pass:
                work[f"{name}, {estimator}"] = lambda loaded=loaded, estimator=estimator, estimators=estimators: (
                    estimate_grid(estimator, loaded, data, estimators)
                )
        times: dict[str, list[float]] = {name: [] for name in work}
        memory = dict.fromkeys(work, 0.0)
        for round_number in range(options.runs + 1):
            for name, predict in work.items():
                seconds, gib = measured(predict, options.device)
                if round_number:
                    times[name].append(seconds)
                memory[name] = max(memory[name], gib)
        print("| | seconds | multiple | GiB on the GPU |\n|---|---|---|---|")
        ratios = {}
        for name, own in times.items():
            ratios[name] = statistics.median(a / b for a, b in zip(own, times["plain"], strict=True))
            print(f"| {name} | {statistics.median(own):.3g} | {ratios[name]:.3g} | {memory[name]:.2f} |")
        ours, peer = (statistics.median(times[name]) for name in ("head", "plain"))
        report("estimators", "s", options.runs, ours, peer, multiples=json.loads(json.dumps(ratios)))


def measured(predict: Callable[[], Any], device: str) -> tuple[float, float]:
    """Seconds, and what torch allocates on the GPU meanwhile."""
    gpu = device.startswith("cuda")
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    predict()
    if gpu:
        torch.cuda.synchronize()
    return time.perf_counter() - started, torch.cuda.max_memory_allocated() / 2**30 if gpu else 0.0


if __name__ == "__main__":
    main()
