"""Which map of a case is its uncertainty: the one that is written, scored, and that the expected Dice is made from."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from uncseg.estimators.registry import CALIBRATED, CROSS_FITTED, HEAD

Shown = Literal["head", "calibrated", "cross_fitted"]
_ESTIMATORS: dict[Shown, str] = dict(zip(get_args(Shown), (HEAD, CALIBRATED, CROSS_FITTED), strict=True))
_IN_TURN: tuple[Shown, ...] = ("head", "cross_fitted", "calibrated")


def shown_map(maps: Mapping[str, np.ndarray | None], wanted: Shown | None) -> tuple[Shown, np.ndarray] | None:
    """Return the name and the map that is a case's uncertainty, or None where there is none.

    Args:
        maps: by estimator.
        wanted: ``evaluation.uncertainty``; None: the head's, else the failure network's, else calibrated p.
    """
    for name in _IN_TURN if wanted is None else (wanted,):
        if (found := maps.get(_ESTIMATORS[name])) is not None:
            return name, found
    return None


def learns_for_shown(wanted: Shown | None, has_head: bool) -> bool:
    """Return whether what the folds have learnt from failures may be a case's uncertainty."""
    return wanted in ("calibrated", "cross_fitted") or (wanted is None and not has_head)
