"""Values that are not finite are refused by case and channel, in nnU-Net's own arithmetic."""

import numpy as np
import pytest
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ZScoreNormalization

from support.checking import exactly
from uncseg.dataset.fingerprint import channel_statistics
from uncseg.dataset.finite import NotFinite, naming, require_finite, require_finite_channels
from uncseg.errors import ProblemsFound
from uncseg.tasks.built_in_tasks import paper_task

CASE = "BraTS-GLI-00000-000"


def normalised(images):
    """Return images as nnU-Net normalises them: in float32, over the whole volume."""
    scheme = ZScoreNormalization(use_mask_for_norm=False, intensityproperties={})
    with np.errstate(over="ignore", invalid="ignore"):
        return np.stack([scheme.run(image.astype(np.float32), None) for image in images])


@pytest.fixture
def images():
    return np.random.default_rng(0).normal(100, 10, (4, 6, 7, 8))


def test_finite_channels_pass(images):
    require_finite_channels(normalised(images), paper_task().modalities)


def test_a_no_data_value_that_ruins_the_normalisation_is_refused_by_case_and_channel(images):
    images[3, :2] = np.finfo(np.float32).min
    images[1, 0, 0, 0] = np.inf
    with pytest.raises(ProblemsFound) as caught, naming(CASE):
        require_finite_channels(normalised(images), paper_task().modalities)
    assert caught.value.exit_code == 1
    where = {problem.where: problem for problem in caught.value.problems}
    assert list(where) == [f"{CASE}, channel {name} after normalisation" for name in ("t1c", "t2f")]
    problem = where[f"{CASE}, channel t2f after normalisation"]
    wrong = int((~np.isfinite(normalised(images)[3])).sum())
    assert problem.found == f"{wrong} of {6 * 7 * 8} values that are not finite"
    assert "no-data" in problem.advice


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_one_value_is_enough(kind, value):
    values = np.zeros((3, 4), kind)
    require_finite(values, "a map", "advice")
    values[2, 3] = value
    with pytest.raises(NotFinite) as caught:
        require_finite(values, "a map", "advice")
    (problem,) = exactly(1, caught.value.problems)
    assert (problem.where, problem.found) == ("a map", "1 of 12 values that are not finite")


def test_whole_numbers_are_finite():
    require_finite(np.full((2, 2), np.iinfo(np.int64).max), "labels", "advice")


def test_a_fingerprint_that_overflows_names_case_and_channel(tmp_path):
    for case, largest in (("a", 100), ("b", 3e19), ("c", 200)):
        np.save(tmp_path / f"{case}_0002.npy", np.array([0, largest], np.float32))
    with pytest.raises(ProblemsFound) as caught:
        channel_statistics(tmp_path, ["a", "b", "c"], 2, "t2w")
    (problem,) = exactly(1, caught.value.problems)
    assert problem.where == "b, channel t2w"
    assert "3e+19" in problem.found
    assert caught.value.exit_code == 1
    found = channel_statistics(tmp_path, ["a", "c"], 2, "t2w")
    assert (found["mean"], found["min"], found["max"]) == (75, 0, 200)
