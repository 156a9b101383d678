"""Files that real folders hold, followed through check, prepare, predict and score."""

import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from support.accepted_files import VARIANTS, apply_variant
from support.checking import assert_says
from support.commands import uncseg
from support.odd_files import ROLES, as_2018, content_of, file_of, other_voxels, voxels_of, write
from support.refused_files import IMAGES, MASKS

PLAIN = "BraTS-GLI-00000-000"
NAMES = ["a case", 'it\'s "1"', "[bold]2", "case[3-4]*?", "100%s{5}", "Fäll ß 病人", "6" * 200]


pytestmark = pytest.mark.usefixtures("wide")


def copies(source, folder, names):
    """Write copies of a case, made of links, under other names; return the folder."""
    for name in names:
        target = Path(folder, name)
        target.mkdir(parents=True)
        for role in ROLES:
            os.link(file_of(source.parent, source.name, role), target / f"{name}-{role}.nii.gz")
    return Path(folder)


@pytest.fixture(scope="module")
def case(root):
    """The folder of a case that no fold has seen."""
    return next(path for path in sorted((root / "cohort").iterdir()) if path.is_dir())


@pytest.fixture(scope="module")
def variants(case, tmp_path_factory):
    """A folder of cases that hold the same voxels, and the name of each one's variant."""
    names = {f"BraTS-GLI-{number:05d}-000": name for number, name in enumerate(VARIANTS, 1)}
    folder = copies(case, tmp_path_factory.mktemp("variants") / "cases", [PLAIN, *names, *NAMES])
    for copy, name in names.items():
        apply_variant(name, folder, copy)
    return folder, names | dict(zip(NAMES, NAMES, strict=True))


@pytest.fixture(scope="module")
def predicted(run, variants):
    """The folder of all variants' predictions."""
    folder, _ = variants
    uncseg("predict", run.root, folder, folder.parent / "out", "--folds", 0)
    return folder.parent / "out"


def test_check_accepts_every_variant(variants):
    folder, names = variants
    assert re.search(rf"\b{len(names) + 1} cases\b", uncseg("check", folder))


def test_every_variant_is_prepared_as_the_plain_file(variants, experiment_file, tmp_path):
    folder, names = variants
    uncseg("prepare", experiment_file(folder))
    (whole,) = (tmp_path / "runs").rglob(f"{PLAIN}.pkl")
    data, seg = (_blosc2(whole.with_name(f"{PLAIN}{end}.b2nd")) for end in ("", "_seg"))
    assert data.std() > 0
    different = {
        names[copy]
        for copy in names
        if not np.array_equal(data, _blosc2(whole.with_name(f"{copy}.b2nd")))
        or not np.array_equal(seg, _blosc2(whole.with_name(f"{copy}_seg.b2nd")))
    }
    assert not different


def _blosc2(file):
    import blosc2

    return blosc2.open(str(file), mode="r")[:]


def test_every_variant_is_predicted_as_the_plain_file(variants, predicted):
    _, names = variants
    expected = voxels_of(predicted / f"{PLAIN}.nii.gz")
    assert expected.any()
    for kind in ("", "_uncertainty"):
        plain = voxels_of(predicted / f"{PLAIN}{kind}.nii.gz")
        different = {names[c] for c in names if not np.array_equal(plain, voxels_of(predicted / f"{c}{kind}.nii.gz"))}
        assert not different


def test_every_variant_is_scored_as_the_plain_file(variants, predicted, tmp_path):
    folder, names = variants
    uncseg("score", predicted, folder, "--out", tmp_path / "scores.parquet")
    scores = pd.read_parquet(tmp_path / "scores.parquet").set_index(["case", "region"])
    plain = scores.loc[PLAIN]
    assert plain["dice"].between(0.02, 0.999).any()
    columns = [name for name in ("dice", "hd95_mm", "lesionwise_dice") if name in scores]
    for copy, name in names.items():
        np.testing.assert_allclose(scores.loc[copy][columns], plain[columns], rtol=1e-4, err_msg=name)


def test_predict_names_what_it_refuses_and_predicts_the_others(run, plain_cases, tmp_path):
    kinds = {f"BraTS-GLI-{number:05d}-000": kind for number, kind in enumerate(IMAGES.values(), 1)}
    folder = copies(plain_cases / PLAIN, tmp_path / "cases", [PLAIN, *kinds])
    for copy, kind in kinds.items():
        kind.apply(folder, copy)
    output = uncseg("predict", run.root, folder, tmp_path / "out", "--folds", 0, code=1)
    for copy, kind in kinds.items():
        role = "t1n" if kind.role == "all" else kind.role
        assert_says(output, file_of(folder, copy, role).name, kind)
    assert {file.name.partition(".")[0] for file in (tmp_path / "out").glob("*.json")} == {PLAIN}


def test_predict_ignores_references_and_names_other_images(run, case, tmp_path):
    folder = copies(case, tmp_path / "cases", [PLAIN])
    MASKS["an image"].apply(folder, PLAIN)
    os.link(file_of(folder, PLAIN, "t1n"), folder / PLAIN / "brain_mask.nii.gz")
    output = uncseg("predict", run.root, folder, tmp_path / "out", "--folds", 0)
    assert "1 other image file in the cases' folders: not used (brain_mask.nii.gz)" in output


def as_channels(case, folder, name, ending=".nii.gz"):
    """Link a case's images as nnU-Net's input files."""
    for number, role in enumerate(ROLES[:4]):
        os.link(file_of(case.parent, case.name, role), folder / f"{name}_{number:04d}{ending}")


def test_predict_takes_nnunets_files_and_brats_folders_side_by_side(run, case, tmp_path):
    folder = copies(case, tmp_path / "cases", [PLAIN, "BraTS-GLI-00001-000"])
    as_channels(case, folder, "extra")
    uncseg("predict", run.root, folder, tmp_path / "out", "--folds", 0)
    expected = {PLAIN, "BraTS-GLI-00001-000", "extra"}
    assert {file.stem for file in (tmp_path / "out").glob("*.json")} == expected
    one, *others = (voxels_of(tmp_path / "out" / f"{name}.nii.gz") for name in sorted(expected))
    assert all(np.array_equal(one, other) for other in others)


@pytest.mark.parametrize("left", ["extra.mha", "patient1/t1.nii.gz", f"{PLAIN}-t1n.nii.gz"])
def test_predict_exits_with_1_where_something_is_left_out(run, case, tmp_path, left):
    folder = copies(case, tmp_path / "cases", [PLAIN])
    (folder / left).parent.mkdir(exist_ok=True)
    shutil.copy(file_of(case.parent, case.name, "t1n"), folder / left)
    assert Path(left).name in uncseg("predict", run.root, folder, tmp_path / "out", "--folds", 0, code=1)
    assert [file.stem for file in (tmp_path / "out").glob("*.json")] == [PLAIN]


def test_predict_does_not_write_among_the_images(run, case, tmp_path):
    folder = copies(case, tmp_path / "cases", [PLAIN])
    (tmp_path / "link").symlink_to(folder)
    assert "OUTPUT" in uncseg("predict", run.root, folder, tmp_path / "link", "--folds", 0, code=2)
    assert [path.name for path in folder.iterdir()] == [PLAIN]


def test_predict_reads_nnunets_files_in_any_case_and_names_doubled_ones(run, case, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    as_channels(case, folder, "upper", ".NII.GZ")
    as_channels(case, folder, "doubled")
    (folder / "doubled_0002.nii").write_bytes(content_of(folder / "doubled_0002.nii.gz"))
    (folder / "._upper_0000.nii.gz").write_bytes(b"\x00\x05\x16\x07")
    output = uncseg("predict", run.root, folder, tmp_path / "out", "--folds", 0, code=1)
    assert "doubled" in output
    assert "upper" not in output.partition("could not be predicted")[2]
    assert [file.stem for file in (tmp_path / "out").glob("*.json")] == ["upper"]


# score


def test_score_names_every_reference_that_check_refuses(plain_cases, local_ray, tmp_path):
    kinds = {f"BraTS-GLI-{number:05d}-000": kind for number, kind in enumerate(MASKS.values(), 1)}
    references = copies(plain_cases / PLAIN, tmp_path / "references", [PLAIN, *kinds])
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    for copy, kind in (kinds | {PLAIN: None}).items():
        os.link(file_of(plain_cases, PLAIN, "seg"), predictions / f"{copy}.nii.gz")
        if kind is not None:
            kind.apply(references, copy)
    out = tmp_path / "scores.parquet"
    output = uncseg("score", predictions, references, "--out", out, code=1)
    for copy, kind in kinds.items():
        assert_says(output, f"{copy}-seg.nii.gz", kind)
    scores = pd.read_parquet(out)
    assert set(scores["case"]) == {PLAIN}
    assert (scores["dice"] == 1).all()


def of_2018(mask):
    """Call enhancing tumour 4."""
    other_voxels(lambda labels: labels + (labels == 3))(mask)


def score(predictions, references, tmp_path, *options):
    """Score, and return the Dice of each case and region."""
    out = tmp_path / "scores.parquet"
    shutil.rmtree(tmp_path / "scores_cases", ignore_errors=True)
    uncseg("score", predictions, references, "--out", out, *options)
    return pd.read_parquet(out).set_index(["case", "region"])["dice"]


def test_label_4_is_scored_as_the_names_or_an_option_say_and_never_guessed(case, predicted, tmp_path):
    copies(case, tmp_path / "cases", [PLAIN])
    predictions = tmp_path / "predictions"
    predictions.mkdir()
    os.link(predicted / f"{PLAIN}.nii.gz", predictions / f"{PLAIN}.nii.gz")
    expected = score(predictions, tmp_path / "cases", tmp_path)
    # a resection cavity, or enhancing tumour?
    of_2018(file_of(tmp_path / "cases", PLAIN, "seg"))
    output = uncseg("score", predictions, tmp_path / "cases", "--out", tmp_path / "no.parquet", code=1)
    assert re.search(rf"{PLAIN}-seg.*label 4\b", output)
    assert not (tmp_path / "no.parquet").exists()
    said = ("--reference-convention", "2018")
    pd.testing.assert_series_equal(score(predictions, tmp_path / "cases", tmp_path, *said), expected)
    # names of 2018 say it
    as_2018(tmp_path / "cases", PLAIN, tmp_path / "old" / PLAIN)
    pd.testing.assert_series_equal(score(predictions, tmp_path / "old", tmp_path), expected)
    # predictions of a plain name hold the labels that we write
    of_2018(predictions / f"{PLAIN}.nii.gz")
    output = uncseg("score", predictions, tmp_path / "old", "--out", tmp_path / "no.parquet", code=1)
    assert re.search(rf"predictions.{PLAIN}.nii.gz.*label 4\b", output)
    said = ("--prediction-convention", "2018")
    pd.testing.assert_series_equal(score(predictions, tmp_path / "old", tmp_path, *said), expected)


def test_a_prediction_elsewhere_is_refused_whichever_form_says_so(case, tmp_path):
    copies(case, tmp_path / "cases", [PLAIN])
    (tmp_path / "out").mkdir()
    moved = tmp_path / "out" / f"{PLAIN}.nii.gz"
    os.link(file_of(case.parent, case.name, "seg"), moved)
    affine = nib.load(moved).affine
    affine[:3, 3] += 7
    write(moved, voxels_of(moved), affine)
    output = uncseg("score", tmp_path / "out", tmp_path / "cases", "--out", tmp_path / "s.parquet", code=1)
    assert re.search(rf"{PLAIN}\.nii\.gz.*origin", output)


def test_a_map_that_is_a_link_to_nothing_is_named(plain_cases, local_ray, tmp_path):
    names = ("BraTS-GLI-00000-000", "BraTS-GLI-00001-000")
    for folder, mask in ((tmp_path / "masks", "u1"), (tmp_path / "maps", "f4")):
        folder.mkdir()
        for name in names:
            os.link(file_of(plain_cases, name, "seg"), folder / f"{name}.nii.gz")
            other_voxels(lambda voxels, mask=mask: (voxels > 0).astype(mask))(folder / f"{name}.nii.gz")
    IMAGES["a broken link"].make(tmp_path / "maps" / f"{names[1]}.nii.gz")
    folders = (tmp_path / "masks", plain_cases, "--uncertainty", tmp_path / "maps")
    output = uncseg("score", *folders, "--out", tmp_path / "scores.parquet", code=1)
    assert_says(output, f"{names[1]}.nii.gz", IMAGES["a broken link"])
    assert names[0] in set(pd.read_parquet(tmp_path / "scores.parquet")["case"])
