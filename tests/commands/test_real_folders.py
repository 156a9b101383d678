"""Folders as they are unpacked, named and linked, by command: no case vanishes, and what gives none is named."""

import os
import re
import shutil
from pathlib import Path

import nibabel as nib
import pytest

from support.checking import assert_accepted, assert_refused
from support.commands import uncseg
from support.odd_files import (
    OLD_ENDINGS,
    ROLES,
    as_2018,
    content_of,
    file_of,
    other_voxels,
    rename,
    voxels_of,
)

FIRST, SECOND, THIRD = (f"BraTS-GLI-0000{n}-000" for n in range(3))
APPLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "  # what macOS writes as ._NAME beside NAME


pytestmark = pytest.mark.usefixtures("wide")


# endings and names of files


@pytest.mark.parametrize(
    "ending",
    [
        lambda role: f"-{role}.NII.GZ",
        lambda role: f"-{role}.Nii.gz",
        lambda role: f"-{role.upper()}.nii.gz",
        lambda role: f"{OLD_ENDINGS[role].upper()}.NII.GZ",
        lambda role: f"{OLD_ENDINGS[role].title()}.nii.gz",
    ],
    ids=["upper-case", "capital", "modality", "names of 2018", "capital modality"],
)
def test_endings_and_modalities_are_read_in_any_case(plain_cases, tmp_path, ending):
    for case in (FIRST, SECOND, THIRD):
        shutil.copytree(plain_cases / case, tmp_path / "source" / case)
        rename(tmp_path / "source", case, tmp_path / "cases" / case, ending)
    for mask in (tmp_path / "cases").rglob("*"):
        if re.search("_seg", mask.name, re.I):
            other_voxels(lambda voxels: voxels + (voxels == 3))(mask)
    assert_accepted(tmp_path / "cases")


def test_one_case_in_upper_case_does_not_vanish(cases):
    shutil.move(cases / SECOND, cases.parent / SECOND)
    rename(cases.parent, SECOND, cases / SECOND, lambda role: f"-{role}.NII.GZ")
    assert_accepted(cases)


def test_uncompressed_files_are_read(cases):
    for role in ROLES:
        file = file_of(cases, SECOND, role)
        file.with_suffix("").write_bytes(content_of(file))
        file.unlink()
    assert_accepted(cases)


def test_gzip_under_nii_is_refused(cases):
    file = file_of(cases, SECOND, "t2w")
    file.rename(file.with_suffix(""))
    assert_refused(cases, rf"{SECOND}-t2w\.nii\b", "gzip", "rename", r"\.nii\.gz")


def test_an_image_that_is_there_twice_is_refused(cases):
    file = file_of(cases, SECOND, "t2w")
    file.with_suffix("").write_bytes(content_of(file))
    assert_refused(cases, SECOND, rf"{SECOND}-t2w\.nii\b", rf"{SECOND}-t2w\.nii\.gz")


def test_more_images_than_the_four_are_left_alone(cases):
    for name in ("adc", "t1n_bet_mask", "t2w (1)"):
        shutil.copy(file_of(cases, SECOND, "t1n"), cases / SECOND / f"{SECOND}-{name}.nii.gz")
    shutil.copy(file_of(cases, SECOND, "seg"), cases / SECOND / "brain_mask.nii.gz")
    assert_accepted(cases)


def test_an_unfinished_download_is_named(cases):
    file = file_of(cases, SECOND, "t1c")
    file.rename(file.with_name(f"{file.name}.part"))
    assert_refused(cases, file.name, "no such file|missing|not there")


# names of BraTS20_Training_355 in a public copy, and of the TCGA collections
@pytest.mark.parametrize("name", ["W39_1998.09.19_Segm.nii.gz", "TCGA-02-0006_GlistrBoost_ManuallyCorrected.nii.gz"])
def test_a_mask_of_another_name_is_named(cases, name):
    folder = as_2018(cases, SECOND, "BraTS20_Training_355")
    shutil.rmtree(cases / SECOND)
    (folder / "BraTS20_Training_355_seg.nii.gz").rename(folder / name)
    assert_refused(cases, "BraTS20_Training_355_seg", re.escape(name))


def test_an_image_as_a_pair_of_files_is_named(cases):
    file = file_of(cases, SECOND, "t1c")
    image = nib.load(file)
    nib.save(nib.Nifti1Pair(voxels_of(file), image.affine), file.parent / f"{SECOND}-t1c.img")
    file.unlink()
    assert_refused(cases, file.name, "no such file|missing|not there")


# what looks like data and gives no case


def test_a_folder_that_is_not_named_as_its_files_is_named(cases):
    (cases / SECOND).rename(cases / "patient1")
    assert_refused(cases, "patient1", r"\b5\b", SECOND, "rename")


def test_files_named_by_their_modality_alone_are_named(cases):
    for role in ROLES:
        file_of(cases, SECOND, role).rename(cases / SECOND / f"{role}.nii.gz")
    assert_refused(cases, SECOND, r"\b5\b", "rename")


def test_files_without_folders_are_named(cases):
    for role in ROLES:
        file_of(cases, SECOND, role).rename(cases / f"{SECOND}-{role}.nii.gz")
    (cases / SECOND).rmdir()
    assert_refused(cases, r"\b5\b", SECOND)


def test_a_folder_of_files_without_folders_says_what_it_saw(plain_cases, tmp_path):
    folder = tmp_path / "flat"
    folder.mkdir()
    for file in plain_cases.rglob("*.nii.gz"):
        shutil.copy(file, folder)
    assert_refused(folder, "no case", f"{FIRST}-")


@pytest.mark.parametrize(
    "names",
    [
        ["VSD.Brain.XX.O.MR_T1.54513.mha", "VSD.Brain_3more.XX.O.OT.54517.mha"],
        ["imagesTr/BRATS_001_0000.nii.gz", "labelsTr/BRATS_001.nii.gz", "dataset.json"],
        ["sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz"],
        ["UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz"],
        ["1.dcm", "2.dcm"],
        ["notes.txt"],
    ],
    ids=["mha", "nnU-Net", "BIDS", "UPENN", "DICOM", "text"],
)
def test_a_folder_without_a_case_shows_what_it_holds(plain_cases, tmp_path, names):
    for name in names:
        file = tmp_path / "cases" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file_of(plain_cases, FIRST, "t1n"), file)
    output = uncseg("check", tmp_path / "cases", code=1)
    assert any(re.search(re.escape(part), output) for name in names for part in Path(name).parts), output


@pytest.mark.parametrize("name", ["extra.mha", "extra.nrrd", "extra_0000.nii.gz", "more/scan.nii"])
def test_an_image_that_belongs_to_no_case_is_named(cases, name):
    (cases / name).parent.mkdir(exist_ok=True)
    shutil.copy(file_of(cases, FIRST, "t1n"), cases / name)
    assert_refused(cases, re.escape(Path(name).name))


def test_folders_that_are_named_like_files_are_named(cases):
    for role in ROLES:
        file = file_of(cases, SECOND, role)
        folder = file.with_suffix("")
        folder.mkdir()
        (folder / folder.name).write_bytes(content_of(file))
        file.unlink()
    assert_refused(cases, rf"{SECOND}-t2w\.nii\b", "folder", "inside")


def test_an_empty_folder_is_no_dataset(tmp_path):
    (tmp_path / "cases").mkdir()
    assert_refused(tmp_path / "cases", "no case")


def test_two_cases_of_one_name_are_named(cases):
    shutil.copytree(cases / SECOND, cases / "more" / SECOND)
    assert_refused(cases, SECOND, "more")


# what is not data


def test_hidden_files_and_folders_are_not_data(cases):
    for folder in (cases / FIRST, cases / "__MACOSX" / FIRST, cases / "__MACOSX" / SECOND):
        folder.mkdir(parents=True, exist_ok=True)
        for role in ROLES:
            (folder / f"._{FIRST}-{role}.nii.gz").write_bytes(APPLE)
    (cases / f"._{FIRST}").write_bytes(APPLE)
    (cases / ".DS_Store").write_bytes(bytes(64))
    shutil.copytree(cases / SECOND, cases / ".Trash" / SECOND)
    assert_accepted(cases)


# links


def test_a_link_to_the_folder_above_is_followed_once(cases):
    for link, target in (("a", "."), ("z", ".."), (f"{SECOND}/up", "../..")):
        (cases / link).symlink_to(target)
    assert_accepted(cases)


def test_links_to_themselves_end(cases):
    (cases / "a").symlink_to("b")
    (cases / "b").symlink_to("a")
    uncseg("check", cases, code=0)


@pytest.mark.parametrize("name", ["AAA", "zzz"])
def test_a_case_that_another_link_leads_to_is_one_case(cases, name):
    (cases / name).symlink_to(SECOND)
    assert_accepted(cases)


def test_cases_and_files_may_be_links(cases, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (cases / FIRST).rename(store / "a1")
    (cases / FIRST).symlink_to(store / "a1")
    for role in ROLES:  # as git-annex keeps them
        file = file_of(cases, SECOND, role)
        file.rename(store / f"SHA256E-{role}.nii.gz")
        file.symlink_to(os.path.relpath(store / f"SHA256E-{role}.nii.gz", file.parent))
    (tmp_path / "link").symlink_to(cases)
    assert_accepted(cases)
    assert_accepted(tmp_path / "link")


def test_two_links_to_one_folder_of_cases_are_followed_once(cases, tmp_path):
    (tmp_path / "HGG").mkdir()
    shutil.move(cases / SECOND, tmp_path / "HGG")
    for link in ("HGG", "HGG again"):
        (cases / link).symlink_to(tmp_path / "HGG")
    assert_accepted(cases)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
@pytest.mark.parametrize("name", [SECOND, "."])
def test_a_folder_that_may_not_be_read_is_named(cases, name):
    folder = cases / name
    folder.chmod(0)
    try:
        assert_refused(cases, folder.name, "permission")
    finally:
        folder.chmod(0o755)
