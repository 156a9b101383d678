"""What a search is worth on a surface whose optimum is known; the surface and the noise are in response_surface.py."""

import pytest

from performance.response_surface import GRID_COST, median_until, study

pytestmark = pytest.mark.slow


def test_tpe_with_asha_needs_four_times_less_than_the_grid(local_ray):
    found = study(20)
    assert median_until(found["TPE + ASHA"]) <= GRID_COST / 4
    assert median_until(found["TPE + ASHA"]) < median_until(found["random + ASHA"])
