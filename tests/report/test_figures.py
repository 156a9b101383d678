"""Figures are whole PNG files that show what they are given."""

import numpy as np
import pytest
from matplotlib import image as mpl_image
from scipy import ndimage

from uncseg.report.overlay import draw_overlay
from uncseg.tasks.built_in_tasks import paper_task


def overlay(path, image, reference, prediction, error, uncertainty, title, uncertainty_name="uncertainty"):
    labels = {"reference": reference, "prediction": prediction}
    draw_overlay(path, image, labels, {"error memory": error, uncertainty_name: uncertainty}, title, task=paper_task())


def shown(path):
    assert path.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.parent.iterdir()) == [path]
    pixels = mpl_image.imread(path)[..., :3]
    assert pixels.std() > 0.02
    return pixels


def phantom(size=40):
    labels = np.zeros((12, size, size), dtype=np.uint8)
    labels[4:9, 10:30, 10:30] = 2
    labels[5:8, 14:24, 14:24] = 3
    return labels


def test_overlay(tmp_path):
    z, y, x = np.mgrid[:40, :240, :240]
    brain = ((z - 20) / 30) ** 2 + ((y - 120) / 100) ** 2 + ((x - 120) / 80) ** 2 < 1
    labels = (brain & (x > 150)).astype(np.uint8) * 2
    # smooth, as anatomy is: the size of white noise would say nothing about that of a real figure
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random(brain.shape, dtype=np.float32), 2)
    image = brain * (noise - noise.min()) / np.ptp(noise)
    overlay(tmp_path / "o.png", image, labels, labels, labels / 3, image, "a case")
    height, width, _ = shown(tmp_path / "o.png").shape
    assert 1400 < width < 1800
    assert height < width / 3
    assert (tmp_path / "o.png").stat().st_size < 300_000


def test_every_panel_has_row_0_on_top_and_column_0_on_the_left(tmp_path):
    labels = np.zeros((3, 40, 40), np.uint8)
    labels[1, 2:12, 28:38] = 1  # with BraTS' axes: in front, on the patient's left
    overlay(tmp_path / "o.png", labels, labels, labels, labels, labels, "")
    pixels = shown(tmp_path / "o.png")
    black = pixels.sum(2) == 0
    rows = np.flatnonzero(black.mean(1) > 0.5)
    columns = np.flatnonzero(black[rows].mean(0) > 0.5)
    panels = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)
    assert len(panels) == 5
    for panel in panels:
        drawn_rows, drawn_columns = np.nonzero(~black[rows[0] : rows[-1] + 1, panel[0] : panel[-1] + 1])
        share = np.array([drawn_rows.mean() / np.ptp(rows), drawn_columns.mean() / np.ptp(panel)])
        np.testing.assert_allclose(share, [6.5 / 40, 32.5 / 40], atol=0.03)


@pytest.mark.parametrize("where", ["reference", "prediction"])
def test_overlay_shows_the_slice_with_most_tumour(tmp_path, where):
    labels = np.zeros((7, 30, 30), np.uint8)
    labels[2, 5:10, 5:10] = 3
    labels[5, 5:25, 5:25] = 3
    image = np.zeros(labels.shape)
    image[5] = 1
    image[5, :15] = 0.5
    none = np.zeros_like(labels)
    reference, prediction = (labels, none) if where == "reference" else (none, labels)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    overlay(tmp_path / "a" / "o.png", image, reference, prediction, image, image, "")
    only = [volume[5:6] for volume in (image, reference, prediction, image, image)]
    overlay(tmp_path / "b" / "o.png", *only, "")
    np.testing.assert_array_equal(shown(tmp_path / "a" / "o.png"), shown(tmp_path / "b" / "o.png"))


def test_overlay_without_any_tumour(tmp_path):
    empty = np.zeros((5, 20, 20), dtype=np.uint8)
    overlay(tmp_path / "o.png", np.ones(empty.shape), empty, empty, empty, empty, "nothing")
    shown(tmp_path / "o.png")


def test_the_panel_is_named_by_what_it_shows(tmp_path):
    labels = phantom()
    files = []
    for name in ("uncertainty", "variance_stable"):
        (tmp_path / name).mkdir()
        files.append(tmp_path / name / "o.png")
        overlay(files[-1], labels, labels, labels, labels / 3, labels / 3, "a case", uncertainty_name=name)
    assert shown(files[0]).shape == shown(files[1]).shape
    assert (shown(files[0]) != shown(files[1])).any()


def test_nothing_is_left_of_a_figure_that_could_not_be_drawn(tmp_path):
    labels = phantom()
    with pytest.raises((IndexError, ValueError, TypeError)):
        overlay(tmp_path / "o.png", labels, labels, labels, labels[:1], labels, "no such slice")
    assert list(tmp_path.iterdir()) == []
