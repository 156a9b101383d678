"""Files in all the ways in which they are stored: what ``check`` accepts works to the end, and the rest is named."""

import contextlib
import io
import itertools
import re
import shutil
from dataclasses import replace

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, example, given, settings

from support.commands import uncseg
from support.file_bytes import read_with_nibabel, write_plain_case, write_plain_volume
from support.file_damage import KINDS, must_be_refused, write_case
from support.file_strategies import DAMAGED, EXAMPLES, HARMLESS_OR_NOT, damaged_cases, harmless, near_the_tolerance
from support.file_variants import NAMES, ROLES, lps_geometry, phantom, stored_values, true_labels
from support.small_experiment import write_small_experiment
from support.whole_way import predict_folder, score_folder, store_for_training, train_small_network
from uncseg.cli import main
from uncseg.config.experiment import load_experiment
from uncseg.console import console
from uncseg.dataset.case_volumes import read_reference
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.scan import scan_folder
from uncseg.tasks.built_in_tasks import paper_task

REGIONS = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
IMAGES = ROLES[:4]
CHECKED = {"quick": 50, "slow": 2000}
WHOLE_WAY = {"quick": 12, "slow": 400}
length = pytest.mark.parametrize("length", ["quick", pytest.param("slow", marks=pytest.mark.slow)])


def run(test, strategy, examples, known=()):
    """Run a property for known variants and for a number of drawn ones, which are always the same."""
    chosen = settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    test = given(strategy)(test)
    for variant in known:
        test = example(variant)(test)
    chosen(test)()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A function that returns a new folder; that of the example before is removed."""
    root, numbers = tmp_path_factory.mktemp("variants"), itertools.count()

    def make():
        shutil.rmtree(root, ignore_errors=True)
        folder = root / str(next(numbers))
        folder.mkdir(parents=True)
        return folder

    return make


@pytest.fixture
def wide(monkeypatch):
    """A page so wide that no cell of a table is broken."""
    monkeypatch.setattr(console, "_width", 4000)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network trained for a moment on plain phantoms."""
    root = tmp_path_factory.mktemp("trained")
    write_phantoms(root / "cases", cases=3, size=24, seed=0, task=paper_task())
    training = {"epochs": 4, "iterations_per_epoch": 40, "val_iterations_per_epoch": 1}
    experiment = load_experiment(write_small_experiment(root, training=training))
    with pytest.MonkeyPatch.context() as patch:
        return train_small_network(experiment, root / "results", patch)


def check(folder):
    """Run ``uncseg check``; return its exit code and what it printed on standard output and standard error."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), pytest.raises(SystemExit) as ended:
        main(["check", str(folder)])
    return ended.value.code or 0, output.getvalue()


def written(folder, variant):
    """Write a varied case and a plain one of the same naming; return the first one's files."""
    write_plain_case(folder, variant.naming, plain_name(variant), phantom(3), (1.0, 1.0, 1.0))
    return write_case(folder, variant)


def plain_name(variant):
    return NAMES[variant.naming].format(3)


@length
def test_every_harmless_variant_is_accepted(folders, wide, length):
    def accepted(variant):
        folder = folders()
        written(folder, variant)
        code, output = check(folder)
        assert code == 0, output
        assert "2 cases" in output

    run(accepted, harmless(), CHECKED[length], EXAMPLES.values())


@length
def test_a_damaged_file_is_named_with_its_cause_and_no_other_case_is(folders, wide, length):
    def named(variant):
        folder = folders()
        written(folder, variant)
        code, output = check(folder)
        assert code == 1 or (code == 0 and not must_be_refused(variant)), output
        assert plain_name(variant) not in output
        if code == 1:
            # how a missing file would end is not known
            name = variant.file_name(variant.damage.role).partition(".")[0]
            rows = [re.split("[│┃|]", line) for line in output.splitlines()]
            causes = " ".join(cells[2] for cells in rows if len(cells) > 2 and f"{name}." in cells[1])
            assert causes.strip(), output
            assert re.search(KINDS[variant.damage.kind].cause, causes, re.IGNORECASE), output

    run(named, damaged_cases(), CHECKED[length], DAMAGED)


@length
def test_what_is_accepted_gives_the_same_as_its_voxels_under_a_plain_header(folders, trained, length):
    def same(variant):
        assert goes_the_whole_way(variant, trained, folders())

    run(same, harmless(), WHOLE_WAY[length], EXAMPLES.values())


@length
def test_what_need_not_be_accepted_is_refused_or_gives_the_same_too(folders, trained, length):
    def refused_or_same(variant):
        goes_the_whole_way(variant, trained, folders())

    run(refused_or_same, near_the_tolerance() | damaged_cases(HARMLESS_OR_NOT), 2 * WHOLE_WAY[length])


@pytest.mark.slow
def test_the_commands_take_all_files_of_public_reports(local_ray, tmp_path):
    cases, output, scores = tmp_path / "cases", tmp_path / "predicted", tmp_path / "scores.parquet"
    known = [variant for variant in EXAMPLES.values() if variant.naming == "2023"]
    variants = {v.case_id: v for v in (replace(variant, patient=n) for n, variant in enumerate(known))}
    for variant in variants.values():
        write_case(cases, variant)
    assert f"{len(variants)} cases of {len(variants)} patients" in uncseg("check", cases)
    uncseg("cross-validate", write_small_experiment(tmp_path))
    uncseg("predict", tmp_path / "runs" / "small", cases, output)
    uncseg("score", output, cases, "--out", scores)
    found = pd.read_parquet(scores).set_index(["case", "region"])["dice"]
    out_of_fold = pd.read_parquet(tmp_path / "runs" / "small" / "tables" / "per_case.parquet").set_index("case")
    assert set(found.index.get_level_values("case")) == set(out_of_fold.index) == set(variants)
    for (case, variant), (region, labels) in itertools.product(variants.items(), REGIONS.items()):
        for folder, value in (
            (output, found[case, region]),
            (tmp_path / "runs" / "small" / "out_of_fold", out_of_fold.loc[case, f"dice_{region.lower()}"]),
        ):
            mask = np.asarray(nibabel.load(folder / f"{case}.nii.gz").dataobj)
            assert value == pytest.approx(dice(mask, true_labels(variant), labels), abs=1e-6)


def goes_the_whole_way(variant, trained, folder):
    """Check a case, store it for training, predict and score it; require the results that plain files give.

    Returns:
        False where the check refuses the case.
    """
    files = written(folder / "cases", variant)
    if check(folder / "cases")[0] != 0:
        return False
    volumes, spacing = read_back(variant, files), lps_geometry(variant, "t1n")[0]
    write_plain_case(folder / "plain", variant.naming, variant.case_id, volumes, spacing)
    cases = {name: case_of(folder / name, variant) for name in ("cases", "plain")}
    require_same_stored(trained, folder, cases, volumes, spacing)
    outputs = {name: folder / f"predicted_{name}" for name in cases}
    predicted = {name: predict_folder(trained, folder / name, variant.case_id, outputs[name]) for name in cases}
    mask = require_same_predicted(predicted)
    require_geometry(variant, predicted["cases"])
    scores = score_folder(outputs["cases"], folder / "cases", variant.case_id)
    plain = score_plain(folder / "scored", variant.case_id, mask, volumes["seg"], spacing)
    for region, row in scores.items():
        assert row["dice"] == pytest.approx(dice(mask, volumes["seg"], REGIONS[region]), abs=1e-6)
        assert row == pytest.approx(plain[region], rel=5e-3, abs=1e-6, nan_ok=True)
    return True


def read_back(variant, files):
    """Return what files mean by role, axes x, y, z: images as float32, labels as those of 2023.

    Without damage it is known in closed form, and nibabel has to read the same.
    """
    volumes = {}
    for role, file in files.items():
        volume = read_with_nibabel(file, variant.files[role]).astype(np.float64)
        volumes[role] = volume.reshape(volume.shape[:3])
        if variant.damage is None:
            known = stored_values(variant, role)
            np.testing.assert_allclose(volumes[role], known, rtol=1e-6, atol=1e-9 * np.abs(known).max())
    volumes = {role: volume.astype(np.float32) for role, volume in volumes.items()}
    labels = np.rint(volumes["seg"])
    volumes["seg"] = np.where(labels == 4, 3, labels).astype(np.uint8)
    if variant.damage is None:
        np.testing.assert_array_equal(volumes["seg"], true_labels(variant))
    return volumes


def case_of(folder, variant):
    return next(case for case in scan_folder(folder, task=paper_task()).cases if case.case_id == variant.case_id)


def score_plain(folder, name, mask, reference, spacing):
    """Score masks under plain headers; their axes are in another order, which no score depends on."""
    for side, volume in (("predictions", mask), ("references", reference)):
        (folder / side).mkdir(parents=True)
        write_plain_volume(folder / side / f"{name}.nii.gz", volume.transpose(1, 2, 0), np.roll(spacing, -1))
    return score_folder(folder / "predictions", folder / "references", name)


def require_same_stored(trained, folder, cases, volumes, spacing):
    """Require known labels, and images normalised as those of the plain case, in what is stored for training."""
    stored = {name: store_for_training(trained, case, folder / f"stored_{name}") for name, case in cases.items()}
    mine, plain = stored["cases"], stored["plain"]
    assert np.isfinite(mine.images).all()
    np.testing.assert_allclose(mine.images, plain.images, rtol=0, atol=2e-3)
    np.testing.assert_array_equal(mine.labels, plain.labels)
    images, labels = [volumes[role].transpose() for role in IMAGES], volumes["seg"].transpose()
    np.testing.assert_array_equal(read_reference(cases["cases"], task=paper_task())[0], labels)
    np.testing.assert_array_equal(mine.raw_labels, labels)
    for image, expected in zip(mine.raw_images, images, strict=True):
        np.testing.assert_allclose(image, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    head = np.argwhere(np.any(images, axis=0))
    inside = tuple(map(slice, head.min(0), head.max(0) + 1))
    # the voxels of the plans measure 1 mm
    assert mine.labels.shape == tuple(np.rint(np.multiply(labels[inside].shape, spacing[::-1])).astype(int))
    if np.allclose(spacing, 1, atol=1e-4):
        np.testing.assert_array_equal(mine.labels.clip(0), labels[inside])


def require_same_predicted(predicted):
    """Return the predicted labels, (x, y, z); require that a plain case's hardly differ, and a finite uncertainty."""
    masks = {name: np.asarray(nibabel.load(files.segmentation).dataobj) for name, files in predicted.items()}
    assert masks["cases"].any()
    assert np.mean(masks["cases"] != masks["plain"]) < 2e-3
    assert np.isfinite(nibabel.load(predicted["cases"].map("uncertainty")).get_fdata()).all()
    return masks["cases"]


def require_geometry(variant, predicted):
    """Require that a prediction lies where the first image does, as known in closed form."""
    # a damaged first image may differ from the others by the tolerance
    tolerance = 2e-4 if variant.damage is None else 1.2e-3
    # near half a turn a quaternion in single precision says no more than this of a direction
    tolerances = tolerance, tolerance, tolerance + 1e-3
    for file in (predicted.segmentation, predicted.map("uncertainty")):
        for found, expected, near in zip(geometry_of(file), lps_geometry(variant, "t1n"), tolerances, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=near)


def geometry_of(file):
    """Return spacing, origin and direction as ITK reads them."""
    image = sitk.ReadImage(str(file))
    return np.array(image.GetSpacing()), np.array(image.GetOrigin()), np.reshape(image.GetDirection(), (3, 3))


def dice(one, other, labels):
    """Return the Dice of the union of labels; 1 where both are empty."""
    first, second = np.isin(one, labels), np.isin(other, labels)
    total = first.sum() + second.sum()
    return 2 * (first & second).sum() / total if total else 1.0
