"""Figures are whole PNG files that show something."""

import numpy as np
import pandas as pd
from matplotlib import image as mpl_image

from uncseg.report.figures import corr_curves, dice_curves, overlay


def shown(path):
    pixels = mpl_image.imread(path)
    assert sorted(path.parent.iterdir()) == [path]
    assert pixels[..., :3].std() > 0.02
    return pixels


def test_overlay(tmp_path):
    random = np.random.default_rng(0)
    labels = np.zeros((12, 40, 40), dtype=np.uint8)
    labels[4:9, 10:30, 10:30] = 2
    labels[5:8, 14:24, 14:24] = 3
    overlay(tmp_path / "o.png", random.random(labels.shape), labels, labels, labels / 3, labels / 3, "a case")
    height, width, _ = shown(tmp_path / "o.png").shape
    assert 1200 < width < 2200
    assert height < width / 3
    assert (tmp_path / "o.png").stat().st_size < 400_000


def test_overlay_without_any_tumour(tmp_path):
    empty = np.zeros((5, 20, 20), dtype=np.uint8)
    overlay(tmp_path / "o.png", np.ones(empty.shape), empty, empty, empty, empty, "nothing")
    shown(tmp_path / "o.png")


def test_curves(tmp_path):
    frame = pd.DataFrame(
        [
            {"fold": f, "epoch": e, "uncertainty/uncertainty/reference/corr_ema": e / 9, "val_patch/dice_wt": e / 9}
            for f in range(2)
            for e in range(9)
        ]
    )
    for name, draw in (("corr", corr_curves), ("dice", dice_curves)):
        (tmp_path / name).mkdir()
        draw(tmp_path / name / "c.png", frame)
        shown(tmp_path / name / "c.png")
