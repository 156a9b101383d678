"""What a failure network costs beside the network that it judges: operations, prediction of a case, a training step.

    python tests/performance/failures.py [--volume 96] [--patch 64] [--features 16] [--judge 8] [--runs 5]
    python tests/performance/failures.py --volume 160 --patch 128 --features 32                   # full size
    python tests/performance/failures.py --volume 160 --patch 128 --features 32 --perceptron 32   # in its place
    python tests/performance/failures.py --volume 160 --patch 128 --features 32 --trees 150

Both have fresh weights, which cost as much as trained ones. Operations are counted over one patch; the prediction is
that of a whole case, a ball in a cube as a head is in a scan, with calibrated p's inputs made from the first network's
output; a step is on a resident batch. Trees and perceptrons are fitted to failures drawn at random, of this case.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from side_by_side import arguments, make_trainer, medians, prepared_phantoms, report
from torch.utils.flop_counter import FlopCounterMode

from estimators import PLAIN, predictor_of
from uncseg.config.failures import Failures
from uncseg.method.failures.calibration import AT_ITS_WORD
from uncseg.method.failures.failure_cases import Batch
from uncseg.method.failures.failure_model import FailureModel, Grid
from uncseg.method.failures.failure_network import FailureNetwork
from uncseg.method.failures.failure_training import failure_loss
from uncseg.method.failures.failure_trees import fit_trees
from uncseg.method.failures.margins import clipped_logit
from uncseg.method.failures.perceptron import fit_perceptron
from uncseg.method.failures.voxel_features import image_features, region_features
from uncseg.method.inference.native_space import predict_grid
from uncseg.method.training.trainer import UncertaintyTrainer
from uncseg.tasks.built_in_tasks import paper_task

CHANNELS, REGIONS = 4, len(paper_task().regions)
FITTED_VOXELS = 100_000


def main() -> None:
    """Measure."""
    options = arguments(__doc__, volume=96, patch=64, cases=4, size=64, judge=8, trees=0, perceptron=0)
    with prepared_phantoms(options) as planned:
        predictor = predictor_of(options, *planned, PLAIN)
        grid = Grid(CHANNELS, (options.patch,) * 3, (1.0, 1.0, 1.0))
        model = FailureModel((AT_ITS_WORD,) * REGIONS, Failures(features=options.judge), grid)
        if options.trees or options.perceptron:
            predictions(predictor, fitted_to_voxels(model, predictor, options), options)
            return
        network = model.build(seed=0).to(options.device)
        judged = FailureModel(model.calibrations, model.settings, model.grid, network)
        count_operations(predictor.network, network, options)
        predictions(predictor, judged, options)
        steps(planned, network, options)


def count_operations(plain: torch.nn.Module, judge: FailureNetwork, options: Any) -> None:
    """Print the operations of one patch of both."""
    shape = (1, CHANNELS, *[options.patch] * 3)
    images, told = torch.zeros(shape, device="meta"), torch.zeros(1, REGIONS, *shape[2:], device="meta")
    small, large = copy.deepcopy(judge).to("meta"), copy.deepcopy(plain).to("meta")  # shapes alone: nothing is computed
    counted = []
    for forward in (lambda: small(images, told, told > 0), lambda: large(images)):
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            forward()
        counted.append(float(counter.get_total_flops()))
    report("operations of a patch", "FLOP", 1, *counted)


def predictions(predictor: Any, judged: FailureModel, options: Any) -> None:
    """Time a case by the plain network, and by it and what judges it, in turn."""
    data = random_case(options)

    def with_failures() -> None:
        judged.failures(data, *decided(predictor, data, options))

    pair = medians(
        "s", options.runs, timed(with_failures, options), timed(lambda: predict_grid(predictor, data), options)
    )
    report("prediction of a case with failures, against plain", "s", options.runs, *pair, volume=options.volume)


def random_case(options: Any) -> np.ndarray:
    """Return noise in a ball that fills half of a cube, and zeros around it, as a head lies in a scan."""
    ball = squared_radius(options) <= 1
    noise = np.random.default_rng(0).standard_normal((CHANNELS, *ball.shape), dtype=np.float32)
    return np.where(ball, noise, np.float32(0))


def squared_radius(options: Any) -> np.ndarray:
    """Return each voxel's distance from the middle of the cube, squared; 1 at its faces."""
    axis = np.linspace(-1, 1, options.volume) ** 2
    return np.asarray(axis[:, None, None] + axis[:, None] + axis)


def decided(predictor: Any, data: np.ndarray, options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the logit of each region's probability, and decisions for a tumour: 100 ml in a head of 160 mm.

    The decisions are not the network's: fresh weights decide at random, all over the head.
    """
    probabilities = torch.from_numpy(predict_grid(predictor, data).logits.astype(np.float32)).softmax(0)
    numbers = [list(region) for region in paper_task().numbers.values()]
    radius = squared_radius(options)
    labels = np.select([radius <= 0.03, radius <= 0.07, radius <= 0.13], [3, 1, 2])
    chosen = np.stack([np.isin(labels, own) for own in numbers])
    return clipped_logit(torch.stack([probabilities[own].sum(0) for own in numbers]).numpy()), chosen


def fitted_to_voxels(model: FailureModel, predictor: Any, options: Any) -> FailureModel:
    """Fit trees or perceptrons to failures drawn at random, and time a fit."""
    data = random_case(options)
    logits, chosen = decided(predictor, data, options)
    random = np.random.default_rng(0)
    voxels = random.choice(np.flatnonzero(data[0]), FITTED_VOXELS)
    shared, found = image_features(data), []
    fit, size = (fit_perceptron, options.perceptron) if options.perceptron else (fit_trees, options.trees)
    for region in range(REGIONS):
        features = torch.cat([region_features(logits, chosen, region), shared]).flatten(1)[:, voxels]
        columns = np.ascontiguousarray(features.T.numpy())
        own, drawn = [values[region].ravel()[voxels] for values in (logits, chosen)], random.random(len(voxels)) < 0.2
        started = time.perf_counter()
        found.append(fit(AT_ITS_WORD, columns, *own, drawn, size, 0))
        print(f"fit to {len(voxels)} voxels: {time.perf_counter() - started:.2f} s", flush=True)
    return replace(model, **{"perceptrons" if options.perceptron else "trees": tuple(found)})


def steps(planned: Any, network: FailureNetwork, options: Any) -> None:
    """Time a training step of both."""
    model = type(planned[0].model).model_validate(PLAIN)
    trainer = make_trainer(UncertaintyTrainer, options, planned[0].model_copy(update={"model": model}), planned[1])
    resident = next(trainer.get_dataloaders()[0])
    trainer.on_epoch_start = lambda: None
    shape = (options.batch, REGIONS, *network.patch)
    random = torch.Generator().manual_seed(0)
    drawn = torch.rand(shape, generator=random).to(options.device)
    images = torch.rand((options.batch, CHANNELS, *network.patch), generator=random).to(options.device)
    batch = Batch(images, drawn, drawn > 0.5, (drawn > 0.8).float(), torch.ones_like(drawn))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)

    def judge_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = failure_loss(network, batch)
        loss.backward()
        optimizer.step()
        loss.item()

    network.train()
    pair = medians("s", options.runs, timed(judge_step, options), timed(lambda: trainer.train_step(resident), options))
    report("training step of a failure network, against plain", "s", options.runs, *pair, batch=options.batch)


def timed(work: Callable[[], Any], options: Any) -> Callable[[], float]:
    """Return a function that does the work and returns its seconds; those of the CPU, whatever else it does then."""
    on_gpu = options.device.startswith("cuda")
    clock = time.perf_counter if on_gpu else time.process_time

    def seconds() -> float:
        started = clock()
        work()
        if on_gpu:
            torch.cuda.synchronize()
        return clock() - started

    return seconds


if __name__ == "__main__":
    main()
