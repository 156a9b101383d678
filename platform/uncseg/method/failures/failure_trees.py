"""Boosted trees that learn where decisions fail: what calibrated p does not know, from features of single voxels.

logit P(wrong) = logit of calibrated p + the sum of the trees, which are fitted by LightGBM (Ke et al. 2017) on the same
voxels as calibrated p. They are kept as LightGBM's text, which reading does not run.
"""

from dataclasses import dataclass
from functools import lru_cache

import lightgbm
import numpy as np
import torch

from uncseg.method.failures.calibration import LEAST_OF_EACH, Calibration

PARAMETERS = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_data_in_leaf": 200,
    "lambda_l2": 100.0,
    "boost_from_average": False,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}


@dataclass(frozen=True)
class Trees:
    """The trees of a region, by LightGBM's text."""

    text: str

    def added(self, features: torch.Tensor, decisions: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """Return what is added to the logit of calibrated p, (N,) float32, from features (N, F)."""
        threads = torch.get_num_threads()
        known = np.ascontiguousarray(features.cpu().numpy())
        added = _booster(self.text).predict(known, raw_score=True, num_threads=threads)
        return torch.from_numpy(np.asarray(added, np.float32)).to(features.device)


@lru_cache(maxsize=8)  # the regions of a fold or two
def _booster(text: str) -> lightgbm.Booster:
    return lightgbm.Booster(model_str=text)


def fit_trees(
    calibration: Calibration,
    features: np.ndarray,
    logits: np.ndarray,
    decisions: np.ndarray,
    wrong: np.ndarray,
    trees: int,
    seed: int,
) -> str:
    """Fit the trees of a region.

    Args:
        calibration: its calibrated p, from which they start.
        features: (N, F) float32.
        logits, decisions, wrong: of each voxel, (N,): as :func:`~uncseg.method.failures.calibration.fit_calibration`
            takes them.
        trees: their number.
        seed: of ties.

    Returns:
        LightGBM's text; empty where fewer than 20 decisions are wrong, or right: calibrated p is all there is.
    """
    if min(np.count_nonzero(wrong), np.count_nonzero(~wrong)) < LEAST_OF_EACH:
        return ""
    start = calibration.logit(torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(decisions)).numpy()
    data = lightgbm.Dataset(features, wrong.astype(np.float32), init_score=start.astype(np.float64), free_raw_data=True)
    options = PARAMETERS | {"seed": seed, "num_threads": torch.get_num_threads()}
    return str(lightgbm.train(options, data, num_boost_round=trees).model_to_string())
