"""Which map of a case is its uncertainty: the one that is written, scored, and that the expected Dice is made from."""

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from uncseg.estimators.registry import CALIBRATED, CROSS_FITTED, HEAD

MapChoice = Literal["head", "calibrated", "cross_fitted"]
_ESTIMATORS: dict[MapChoice, str] = dict(zip(get_args(MapChoice), (HEAD, CALIBRATED, CROSS_FITTED), strict=True))
_IN_TURN: tuple[MapChoice, ...] = ("head", "cross_fitted", "calibrated")


def chosen_map(maps: Mapping[str, np.ndarray | None], wanted: MapChoice | None) -> tuple[MapChoice, np.ndarray] | None:
    """Return the name and the map that is a case's uncertainty, or None where there is none.

    Args:
        maps: by estimator.
        wanted: ``evaluation.uncertainty``; None: the head's, else the failure network's, else calibrated p.
    """
    for name in _IN_TURN if wanted is None else (wanted,):
        if (found := maps.get(_ESTIMATORS[name])) is not None:
            return name, found
    return None


def possible_choices(wanted: MapChoice | None, has_head: bool) -> tuple[MapChoice, ...]:
    """Return which maps may be a case's uncertainty, by ``evaluation.uncertainty`` and what the network has."""
    if wanted is not None:
        return (wanted,)
    return ("head",) if has_head else ("cross_fitted", "calibrated")


def learns_for_choice(wanted: MapChoice | None, has_head: bool) -> bool:
    """Return whether what the folds have learnt from failures may be a case's uncertainty."""
    return possible_choices(wanted, has_head) != ("head",)
