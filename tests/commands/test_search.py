"""What a search is worth where the optimum is known; performance/response_surface.py describes the surface."""

import pytest

from performance.response_surface import GRID_COST, median_until, study

pytestmark = pytest.mark.slow


def test_tpe_with_asha_needs_four_times_less_than_the_grid(local_ray):
    found = study(20)
    assert median_until(found["TPE + ASHA"]) <= GRID_COST / 4
    assert median_until(found["TPE + ASHA"]) < median_until(found["random + ASHA"])
