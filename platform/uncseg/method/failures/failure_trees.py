"""Boosted trees that learn where decisions fail: what calibrated p does not know, from features of single voxels.

logit P(wrong) = logit of calibrated p + the sum of the trees, which are fitted by LightGBM (Ke et al. 2017) on the same
voxels as calibrated p. They are kept as LightGBM's text, which reading does not run.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import lightgbm
import numpy as np
import torch

from uncseg.method.failures.calibration import LEAST_OF_EACH, Calibration
from uncseg.method.failures.tree_features import image_features, of_images, region_features

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
VOXELS_TOGETHER = 500_000
"""Voxels whose features are gathered at a time."""


@dataclass(frozen=True)
class Asked:
    """The part of a map that is wanted; the rest need not be computed."""

    region: int | None = None
    """None: all of them."""
    voxels: np.ndarray | None = None
    """bool, (D, H, W); None: all of them."""


EVERYTHING = Asked()


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


def tree_map(
    texts: Sequence[str],
    calibrations: Sequence[Calibration],
    images: np.ndarray,
    logits: np.ndarray,
    decisions: np.ndarray,
    sees_images: bool,
    asked: Asked = EVERYTHING,
) -> np.ndarray:
    """Return P(wrong) of each region's decision, (R, D, H, W) float32.

    Where all images are 0, beyond the head, and where nothing is asked for, calibrated p stands alone.

    Args:
        texts, calibrations: of each region.
        images: (C, D, H, W).
        logits, decisions: of the regions, (R, D, H, W).
        sees_images: whether the trees were fitted on features of the images as well.
        asked: the part of it that is wanted.
    """
    shared = image_features(images) if sees_images else np.zeros((0, *images.shape[1:]), np.float32)
    wanted = (np.asarray(images) != 0).any(0) | decisions.any(0)
    where = np.flatnonzero(wanted if asked.voxels is None else wanted & asked.voxels)
    found = []
    for region, (text, calibration) in enumerate(zip(texts, calibrations, strict=True)):
        told = torch.from_numpy(logits[region].astype(np.float32)), torch.from_numpy(decisions[region])
        total = calibration.logit(*told).numpy().astype(np.float32).ravel()
        if text and asked.region in (None, region):
            booster = lightgbm.Booster(model_str=text)
            own = np.concatenate([region_features(logits, decisions, region), shared]).reshape(-1, total.size)
            for part in np.array_split(where, max(1, -(-len(where) // VOXELS_TOGETHER))):
                values = np.ascontiguousarray(own[:, part].T)
                threads = torch.get_num_threads()
                total[part] += booster.predict(values, raw_score=True, num_threads=threads).astype(np.float32)
        found.append(torch.from_numpy(total).sigmoid().numpy().reshape(decisions.shape[1:]))
    return np.stack(found)


def told_features(features: np.ndarray, channels: int, sees_images: bool) -> np.ndarray:
    """Return the features, (N, F), on which trees are fitted: with or without those of the images, the last ones."""
    return features if sees_images else features[:, : features.shape[1] - of_images(channels)]
