"""Phantoms: the rater model against many drawn raters, and files in the layout of BraTS 2023."""

import numpy as np
import pytest
import SimpleITK as sitk

from uncseg.dataset.case_volumes import read_reference
from uncseg.dataset.cases import oracle_path
from uncseg.dataset.phantom import case_names, draw_anatomy, draw_rater, smooth_field, write_phantoms
from uncseg.dataset.scan import scan_folder
from uncseg.errors import ProblemsFound


def test_q_is_the_share_of_raters_that_label_a_voxel_as_tumour():
    anatomy = draw_anatomy(28, np.random.default_rng(1), np.random.default_rng(2))
    random = np.random.default_rng(3)
    raters = 400
    share = np.mean([draw_rater(anatomy, random) > 0 for _ in range(raters)], axis=0)
    q = anatomy.q
    error = np.abs(share - q) / np.sqrt(np.maximum(q * (1 - q), 1e-3) / raters)
    assert ((q > 0.05) & (q < 0.95)).sum() > 300
    assert np.percentile(error, 99.9) < 4
    assert share[q == 0].max() == 0


def test_raters_are_correlated_in_space():
    fields = np.stack([smooth_field(np.random.default_rng(seed), 24, 2.5) for seed in range(60)])
    assert fields.mean() == pytest.approx(0, abs=0.05)
    assert fields.std() == pytest.approx(1, abs=0.05)
    # for white noise smoothed with sd s, the correlation at lag d is exp(−d²/4s²)
    for lag in (1, 3, 5):
        found = np.corrcoef(fields.ravel(), np.roll(fields, lag, axis=1).ravel())[0, 1]
        assert found == pytest.approx(np.exp(-(lag**2) / (4 * 2.5**2)), abs=0.06)


def test_cases_are_like_brats(tmp_path):
    write_phantoms(tmp_path, cases=6, size=40, seed=0)
    cases = scan_folder(tmp_path).cases
    assert len(cases) == 6
    assert len({case.patient for case in cases}) == 5
    stored = set()
    for case in cases:
        labels, reference = read_reference(case)
        assert set(np.unique(labels)) == {0, 1, 2, 3}
        for file in (*case.images, oracle_path(case)):
            image = sitk.ReadImage(str(file))
            stored.add(image.GetPixelIDTypeAsString())
            assert image.GetSize() == reference.size == (40, 40, 40)
            assert image.GetOrigin() == reference.origin_mm == (0, -239, 0)
            assert image.GetSpacing() == (1, 1, 1)
    assert stored == {"16-bit signed integer", "32-bit float"}


def test_regions_are_nested_for_every_rater():
    anatomy = draw_anatomy(32, np.random.default_rng(0), np.random.default_rng(1))
    assert (anatomy.whole < anatomy.core).all()
    assert (anatomy.core < anatomy.necrosis).all()


def test_the_same_seed_writes_the_same_files(tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        write_phantoms(tmp_path / name, cases=1, size=24, seed=seed)
    file = "BraTS-GLI-00000-000/BraTS-GLI-00000-000-t1c.nii.gz"
    a, b, c = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / n / file))) for n in "abc")
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def test_existing_phantoms_are_kept(tmp_path):
    (folder,) = write_phantoms(tmp_path / "p", cases=1, size=24, seed=0)
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    write_phantoms(tmp_path / "p", cases=1, size=24, seed=0)
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    with pytest.raises(ProblemsFound, match="another folder"):
        write_phantoms(tmp_path / "p", cases=2, size=24, seed=0)


def test_every_fifth_patient_has_two_scans():
    names = case_names(12)
    assert len(set(names)) == 12
    assert sum(name.endswith("-001") for name in names) == 2
