"""Pictures of a training: of one size whatever they show, so that they can be leafed through."""

from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from uncseg.report.progress import draw_progress
from uncseg.tasks.built_in_tasks import paper_task


def patch(shape, uncertainty=0.5):
    reference = np.zeros(shape, np.uint8)
    middle = tuple(slice(n // 4, n - n // 4) if n > 1 else slice(0, 1) for n in shape)
    reference[middle] = 3
    image = np.random.default_rng(0).random(shape)
    maps = {name: np.where(reference > 0, value, 0) for name, value in (("error", 1.0), ("variance", 0.25))}
    map_ = None if uncertainty is None else np.where(reference > 0, uncertainty, 0)
    return SimpleNamespace(image=image, reference=reference, prediction=reference, uncertainty=map_, **maps)


def drawn(path):
    return np.asarray(Image.open(path))


def last_panel(path):
    """The colour in the middle of the last panel."""
    pixels = drawn(path)
    return pixels[46 + 88, -6 - 88].tolist()


def colour(value):
    return (255 * np.array(colormaps["inferno"](value))[:3]).astype(np.uint8).tolist()


@pytest.mark.parametrize("shape", [(32, 32, 32), (16, 24, 40), (1, 64, 48), (20, 320, 320)])
def test_all_patches_give_pictures_of_one_size(tmp_path, shape):
    draw_progress(tmp_path / "a.png", patch((8, 8, 8)), "a", task=paper_task())
    draw_progress(tmp_path / "b.png", patch(shape), "b", task=paper_task())
    assert drawn(tmp_path / "a.png").shape == drawn(tmp_path / "b.png").shape
    assert (tmp_path / "b.png").stat().st_size < 300_000


@pytest.mark.parametrize(("uncertainty", "expected"), [(0.5, 0.5), (0.9, 0.9), (None, 0.25)])
def test_the_last_panel_is_the_map_or_the_variance(tmp_path, uncertainty, expected):
    draw_progress(tmp_path / "a.png", patch((32, 32, 32), uncertainty), "a", task=paper_task())
    assert last_panel(tmp_path / "a.png") == colour(expected)


def test_a_patch_without_contrast_or_tumour(tmp_path):
    nothing = np.zeros((4, 8, 8))
    labels = nothing.astype(np.uint8)
    shown = SimpleNamespace(
        image=nothing, reference=labels, prediction=labels, error=nothing, variance=nothing, uncertainty=nothing
    )
    draw_progress(tmp_path / "a.png", shown, "nothing", task=paper_task())
    assert drawn(tmp_path / "a.png").ndim == 3
