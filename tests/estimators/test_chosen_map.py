"""Which map of a case is its uncertainty."""

import numpy as np
import pytest

from uncseg.estimators.chosen_map import chosen_map, learns_for_choice

HEAD, NETWORK, NUMBERS = (np.full((1, 1, 1), value) for value in (0.1, 0.2, 0.3))
ALL = {"uncertainty": HEAD, "cross_fitted": NETWORK, "calibrated": NUMBERS}


@pytest.mark.parametrize(
    ("missing", "wanted", "expected"),
    [
        ((), None, ("head", HEAD)),
        (("uncertainty",), None, ("cross_fitted", NETWORK)),
        (("uncertainty", "cross_fitted"), None, ("calibrated", NUMBERS)),
        (tuple(ALL), None, None),
        ((), "calibrated", ("calibrated", NUMBERS)),
        ((), "cross_fitted", ("cross_fitted", NETWORK)),
        (("cross_fitted",), "cross_fitted", None),
        (("uncertainty",), "head", None),
    ],
)
def test_the_heads_map_comes_first_and_a_map_that_is_asked_for_has_no_substitute(missing, wanted, expected):
    for absent in ({}, dict.fromkeys(missing)):  # left out, or None
        maps = {name: values for name, values in ALL.items() if name not in missing} | absent
        assert chosen_map(maps, wanted) == expected


@pytest.mark.parametrize(
    ("wanted", "has_head", "learns"),
    [
        (None, True, False),
        (None, False, True),
        ("head", False, False),
        ("calibrated", True, True),
        ("cross_fitted", True, True),
    ],
)
def test_what_the_folds_have_learnt_is_read_only_where_it_may_be_shown(wanted, has_head, learns):
    assert learns_for_choice(wanted, has_head) is learns
