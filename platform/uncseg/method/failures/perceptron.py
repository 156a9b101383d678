"""A perceptron of voxels' features that learns where decisions fail: what calibrated p does not know.

logit P(wrong) = logit of calibrated p + e, with e the evidence of two hidden layers for the region: it speaks against a
decision that says otherwise. It is fitted on the same voxels as calibrated p, with one thread: sums of several would
depend on their number.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from uncseg.method.failures.calibration import LEAST_OF_EACH, Calibration

STEPS = 600
VOXELS = 4096
"""Voxels of a step."""
LEARNING_RATE = 0.01
WEIGHT_DECAY = 1.0
LEAST_SD = 1e-6
FARTHEST_SD = 5.0
"""A feature counts at most so many standard deviations from its mean: a new case may have values never seen."""


class Perceptron(nn.Module):
    """Two hidden layers; features are standardised first.

    Args:
        features: their number.
        hidden: units of each hidden layer.
    """

    mean: torch.Tensor
    sd: torch.Tensor

    def __init__(self, features: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("sd", torch.ones(features))
        last = nn.Linear(hidden, 1)
        nn.init.zeros_(last.weight)  # calibrated p at first
        nn.init.zeros_(last.bias)
        hidden_layers = (nn.Linear(features, hidden), nn.LeakyReLU(0.01), nn.Linear(hidden, hidden), nn.LeakyReLU(0.01))
        self.layers = nn.Sequential(*hidden_layers, last)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the evidence for the region, (N,), from features (N, F)."""
        standardised = ((features - self.mean) / self.sd).clamp(-FARTHEST_SD, FARTHEST_SD)
        return self.layers(standardised)[:, 0]

    @torch.no_grad()
    def added(self, features: torch.Tensor, decisions: torch.Tensor) -> torch.Tensor:
        """Return what is added to the logit of calibrated p, (N,) float32, from features (N, F) and decisions (N,)."""
        evidence = self(features)
        return torch.where(decisions, -evidence, evidence)

    @classmethod
    def of(cls, weights: dict[str, torch.Tensor]) -> "Perceptron":
        """Return the one that has these weights, as ``state_dict`` gave them."""
        hidden, features = weights["layers.0.weight"].shape
        perceptron = cls(features, hidden)
        perceptron.load_state_dict(weights)
        return perceptron.eval()


def fit_perceptron(
    calibration: Calibration,
    features: np.ndarray,
    logits: np.ndarray,
    decisions: np.ndarray,
    wrong: np.ndarray,
    hidden: int,
    seed: int,
) -> Perceptron | None:
    """Fit the perceptron of a region by its cross-entropy; arguments as of
    :func:`~uncseg.method.failures.failure_trees.fit_trees`, and the units of each hidden layer.

    Returns:
        None where fewer than 20 decisions are wrong, or right: calibrated p is all there is.
    """
    if min(np.count_nonzero(wrong), np.count_nonzero(~wrong)) < LEAST_OF_EACH:
        return None
    chosen, values = torch.from_numpy(decisions), torch.from_numpy(features)
    start = calibration.logit(torch.from_numpy(logits.astype(np.float32)), chosen)
    against, target = torch.where(chosen, -1.0, 1.0), torch.from_numpy(wrong).float()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        perceptron = Perceptron(values.shape[1], hidden)
    sd = values.std(0)
    perceptron.mean = values.mean(0)
    perceptron.sd = torch.where(sd > LEAST_SD, sd, torch.inf)  # a constant says nothing
    optimizer = torch.optim.AdamW(perceptron.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, STEPS, 0.9)
    random, threads = torch.Generator().manual_seed(seed), torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(STEPS):
        drawn = torch.randint(len(values), (VOXELS,), generator=random)
        logit = start[drawn] + against[drawn] * perceptron(values[drawn])
        optimizer.zero_grad(set_to_none=True)
        F.binary_cross_entropy_with_logits(logit, target[drawn]).backward()
        optimizer.step()
        schedule.step()
    torch.set_num_threads(threads)
    return perceptron.eval()
