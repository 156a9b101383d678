"""What looks like a case and gives none is named, by command: whatever its folder holds, it does not vanish."""

import shutil

import pytest

from support.checking import assert_accepted, assert_refused
from support.commands import uncseg
from support.odd_files import ROLES, file_of

FIRST, SECOND, THIRD = (f"BraTS-GLI-0000{n}-000" for n in range(3))

pytestmark = pytest.mark.usefixtures("wide")


@pytest.mark.parametrize(
    "ending", ["{}.gz", "{}", "{}.nii.gz.part", "{}.nii.gz.crdownload", "{}.nii.gz ", "{} (1)", "{}.nii.Z", "{}.NIFTI"]
)
def test_a_case_whose_files_all_end_otherwise_is_named(cases, ending):
    for role in ROLES:
        file = file_of(cases, SECOND, role)
        file.rename(file.with_name(ending.format(f"{SECOND}-{role}")))
    assert_refused(cases, SECOND, "ending", rf"{SECOND}-t1c", "rename|download")


def test_files_of_another_ending_without_a_folder_are_named(cases):
    for role in ROLES:
        file_of(cases, SECOND, role).rename(cases / f"{SECOND}-{role}.gz")
    (cases / SECOND).rmdir()
    assert_refused(cases, rf"{SECOND}-t1c\.gz", "ending")


@pytest.mark.parametrize("left", [(), ("readme.txt",), (f"{SECOND}-t1n.json",)])
def test_a_folder_named_as_a_case_that_holds_no_image_is_named(cases, left):
    shutil.rmtree(cases / SECOND)
    (cases / SECOND).mkdir()
    for name in left:
        (cases / SECOND / name).write_text("{}")
    assert_refused(cases, SECOND, "no image", "unpack")


@pytest.mark.parametrize("name", ["logs", "derivatives/figures", f"HGG/{SECOND}"])
def test_folders_of_other_names_and_folders_above_cases_are_no_cases(cases, name):
    (cases / name).parent.mkdir(exist_ok=True)
    if name.endswith(SECOND):
        (cases / SECOND).rename(cases / name)
    else:
        (cases / name).mkdir()
    assert_accepted(cases)


@pytest.mark.parametrize("name", ["resample_t1.py", "review_seg.xlsx", "notes-t2w.docx", "register_flair.sh"])
def test_scripts_and_notes_are_no_images_whatever_their_names_end_in(cases, name):
    (cases / name).touch()
    assert_accepted(cases)


@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_an_archive_of_a_case_is_named(cases, ending):
    shutil.make_archive(str(cases / SECOND), {".zip": "zip", ".tar.gz": "gztar"}[ending], cases, SECOND)
    assert_accepted(cases)  # beside the unpacked case
    shutil.rmtree(cases / SECOND)
    assert_refused(cases, f"{SECOND}{ending}", "archive", "unpack")


@pytest.mark.parametrize("name", [SECOND + "-{}", "other_{}"])
def test_a_case_in_the_folder_of_another_is_named(cases, name):
    numbered = dict(zip(ROLES, ("0000", "0001", "0002", "0003", "seg"), strict=True))
    for role in ROLES:
        called = name.format(role if name.startswith(SECOND) else numbered[role])
        file_of(cases, SECOND, role).rename(cases / FIRST / f"{called}.nii.gz")
    (cases / SECOND).rmdir()
    assert_refused(cases, FIRST, "another case", name[:5], "folder")


def test_what_is_left_of_a_case_can_be_excluded(cases, experiment_file):
    for role in ROLES:
        file_of(cases, SECOND, role).rename(cases / FIRST / f"{SECOND}-{role}.nii.gz")
    (cases / "BraTS-GLI-00007-000").mkdir()
    (cases / "BraTS-GLI-00008-000.zip").write_bytes(b"PK")
    shutil.copytree(cases / THIRD, cases / "again" / THIRD)
    left_out = [SECOND, "BraTS-GLI-00007-000", "BraTS-GLI-00008-000", "again"]
    shutil.rmtree(cases / SECOND)
    file = experiment_file(cases, dataset={"exclude": left_out, "expected_cases": 2})
    uncseg("cross-validate", file, "--dry-run")
