"""Names of cases, and what label 4 means, by command."""

import os
import re
import shutil
import unicodedata

import pytest

from support.checking import assert_accepted, assert_refused
from support.commands import start_uncseg, uncseg
from support.odd_files import as_2018, file_of, first_voxels, other_voxels, put_raw, rename
from uncseg.dataset.inputs import find_inputs
from uncseg.tasks.built_in_tasks import paper_task

FIRST, SECOND, THIRD = (f"BraTS-GLI-0000{n}-000" for n in range(3))

pytestmark = pytest.mark.usefixtures("wide")

NAMES = [
    "case 3",
    'it\'s "3"',
    "[bold]3",
    "[#3]",
    "case[1-3]*?",
    "-case",
    "100%s{3}",
    "$HOME;3",
    "Fäll ß 病人",
    unicodedata.normalize("NFD", "Fäll"),
    "3" * 200,
]


@pytest.mark.parametrize("name", NAMES)
def test_cases_may_have_any_name(cases, name):
    rename(cases, SECOND, name)
    shutil.rmtree(cases / SECOND)
    assert_accepted(cases)


@pytest.mark.parametrize("name", [name for name in NAMES if len(name) < 200])
def test_a_problem_shows_any_name(cases, name):
    target = rename(cases, SECOND, name)
    shutil.rmtree(cases / SECOND)
    put_raw(target / f"{name}-t2w.nii.gz", b"")
    assert_refused(cases, re.escape(f"{name}-t2w.nii.gz"))


def test_a_folder_and_files_that_spell_a_name_differently_do_not_vanish(cases):
    # macOS splits accents from their letters, Linux does not
    rename(cases, SECOND, unicodedata.normalize("NFC", "Fäll"))
    shutil.rmtree(cases / SECOND)
    (cases / unicodedata.normalize("NFC", "Fäll")).rename(cases / unicodedata.normalize("NFD", "Fäll"))
    assert_refused(cases, "F.+ll", r"\b5\b", "rename")


@pytest.mark.parametrize("name", [os.fsdecode(b"F\xe4ll"), "a\nb", "\x1b[31mred"], ids=["Latin-1", "line", "colour"])
def test_a_name_that_tables_cannot_hold_is_refused(cases, name):
    rename(cases, SECOND, name)
    shutil.rmtree(cases / SECOND)
    assert_refused(cases, re.escape(ascii(name)), "rename")


def test_a_terminal_shows_names_that_it_cannot_encode(cases, tmp_path):
    (cases / os.fsdecode(b"F\xe4ll.nii.gz")).write_bytes(b"")
    start = {"variables": {"PYTHONIOENCODING": "ascii:strict"}}
    output = start_uncseg("check", cases, log=tmp_path / "check.log", **start).require(1)
    assert "F\\udce4ll.nii.gz" in "".join(output.split())


def test_an_incomplete_case_with_a_space_in_its_name_can_be_excluded(cases, experiment_file):
    target = rename(cases, SECOND, "CASE 3")
    shutil.rmtree(cases / SECOND)
    (target / "CASE 3-t1c.nii.gz").unlink()
    assert_refused(cases, r"CASE 3/CASE 3-t1c\.nii\.gz", "exclude")
    output = uncseg("cross-validate", experiment_file(cases, dataset={"exclude": ["CASE 3"]}), "--dry-run")
    assert "CASE 3-t1c" not in output


# conventions


def labels_4(mask):
    """Call enhancing tumour 4."""
    other_voxels(lambda voxels: voxels + (voxels == 3))(mask)


def old(cases, case, name):
    """Name a case as until 2021, labels too; return its mask."""
    folder = as_2018(cases, case, name)
    shutil.rmtree(cases / case)
    labels_4(folder / f"{name}_seg.nii.gz")
    return folder / f"{name}_seg.nii.gz"


def test_label_4_is_enhancing_tumour_under_names_until_2021(cases):
    for case, name in ((FIRST, "Brats18_2013_1_1"), (SECOND, "BraTS20_Training_001"), (THIRD, "BraTS2021_00000")):
        old(cases, case, name)
    assert re.search(r"\b2018\b", uncseg("check", cases))


def test_label_3_under_names_until_2021_is_refused(cases):
    masks = [
        old(cases, case, name) for case, name in ((FIRST, "Brats18_1"), (SECOND, "Brats18_2"), (THIRD, "Brats18_3"))
    ]
    first_voxels(3, 5, "u1")(masks[1])
    assert_refused(cases, masks[1].name, r"label 3\b", r"\b5 voxels")


def test_label_4_under_names_of_2023_is_refused_unless_it_is_said_what_it_means(cases):
    for case in (FIRST, SECOND, THIRD):
        labels_4(file_of(cases, case, "seg"))
    assert_refused(cases, f"{SECOND}-seg", r"label 4\b")
    assert re.search(r"\b2018\b", uncseg("check", cases, "--convention", "2018"))


def test_masks_of_both_conventions_are_refused_under_each(cases):
    labels_4(file_of(cases, SECOND, "seg"))
    assert_refused(cases, f"{SECOND}-seg", r"label 4\b")
    output = uncseg("check", cases, "--convention", "2018", code=1)
    for case in (FIRST, THIRD):
        assert re.search(rf"{case}-seg.*label 3\b", output)


def test_labels_1_to_4_are_refused_under_each_convention(cases):
    first_voxels(4, 5, "u1")(file_of(cases, SECOND, "seg"))
    assert_refused(cases, f"{SECOND}-seg", r"label 4 \(5 voxels\)", "map or remove these labels")
    output = uncseg("check", cases, "--convention", "2018", code=1)
    assert re.search(rf"{SECOND}-seg.*label 3\b.*map or remove these labels", output)
    assert re.search(rf"{FIRST}-seg.*label 3\b.*to 2023", output)


def test_names_of_both_conventions_are_refused(cases):
    old(cases, SECOND, "BraTS20_Training_001")
    output = uncseg("check", cases, code=1)
    assert "BraTS20_Training_001" in output
    assert FIRST in output or THIRD in output


def test_an_unknown_convention_is_a_wrong_request(cases):
    assert "2019" in uncseg("check", cases, "--convention", "2019", code=2)


# names that files of ours would have


def test_a_case_with_the_name_of_another_cases_map_is_refused(cases):
    rename(cases, SECOND, f"{FIRST}_uncertainty")
    shutil.rmtree(cases / SECOND)
    assert_refused(cases, f"{FIRST}_uncertainty", "map", "overwrite", "rename")


def test_a_name_too_long_for_the_names_of_maps_is_refused(cases):
    rename(cases, SECOND, "ä" * 101)
    shutil.rmtree(cases / SECOND)
    assert_refused(cases, "ääää", "202 bytes", "200")


def test_inputs_whose_outputs_would_overwrite_each_other_are_named(plain_cases, tmp_path):
    for case, name in ((FIRST, "P1"), (SECOND, "P1_between_folds"), (THIRD, "x" * 201)):
        for channel, role in enumerate(("t1n", "t1c", "t2w", "t2f")):
            shutil.copy(file_of(plain_cases, case, role), tmp_path / f"{name}_{channel:04d}.nii.gz")
    found = find_inputs(
        tmp_path, {"channel_names": {str(n): role for n, role in enumerate(paper_task().modalities)}}, task=paper_task()
    )
    assert [case.case_id for case in found.cases] == ["P1"]
    assert {problem.where for problem in found.problems} == {"P1_between_folds", "x" * 201}


def test_nnunets_files_deeper_in_a_folder_are_named_as_such(cases):
    (cases / "imagesTs").mkdir()
    shutil.copy(file_of(cases, FIRST, "t1n"), cases / "imagesTs" / "P1_0000.nii.gz")
    assert_refused(cases, "imagesTs", "nnU-Net", "predict")
