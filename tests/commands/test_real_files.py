"""Single files that real folders hold, by command: each odd one is refused by its name and with its cause."""

import os
import re

import pytest

from support.checking import assert_refused, assert_says
from support.commands import uncseg
from support.odd_files import FIRST_VOXEL, around_the_head, content_of, fields, file_of, first_voxels
from support.refused_files import IMAGES, MASKS, copy_of
from uncseg.console import console

FIRST, SECOND, THIRD = (f"BraTS-GLI-0000{n}-000" for n in range(3))
LINES_OF_A_CASE = 40


@pytest.mark.parametrize("name", IMAGES)
def test_an_odd_image_is_refused_by_name_and_cause(cases, wide, name):
    changed = IMAGES[name].apply(cases, SECOND)
    output = uncseg("check", cases, code=1)
    assert_says(output, changed.name, IMAGES[name])
    assert FIRST not in output
    assert THIRD not in output


@pytest.mark.parametrize("name", MASKS)
def test_an_odd_mask_is_refused_by_name_and_cause(cases, wide, name):
    changed = MASKS[name].apply(cases, SECOND)
    output = uncseg("check", cases, code=1)
    assert_says(output, changed.name, MASKS[name])
    assert FIRST not in output
    assert THIRD not in output
    assert len(re.findall(r"\(\d+ voxels?\)", output)) <= 5


@pytest.fixture(scope="module")
def all_odd(plain_cases, tmp_path_factory):
    """A folder of one case per kind of odd file, and a plain case; and the kind of each odd case."""
    folder = tmp_path_factory.mktemp("all") / "cases"
    kinds = {}
    for number, kind in enumerate((*IMAGES.values(), *MASKS.values()), 1):
        kinds[f"BraTS-GLI-{number:05d}-000"] = kind
    for case in (FIRST, *kinds):
        target = folder / case
        target.mkdir(parents=True)
        for file in (plain_cases / FIRST).iterdir():
            os.link(file, target / file.name.replace(FIRST, case))
    for case, kind in kinds.items():
        kind.apply(folder, case)
    return folder, kinds


def test_every_odd_case_is_reported_whatever_the_others_hold(all_odd, wide):
    folder, kinds = all_odd
    output = uncseg("check", folder, code=1)
    for case, kind in kinds.items():
        role = "t1n" if kind.role == "all" else kind.role
        assert_says(output, file_of(folder, case, role).name, kind)
    assert FIRST not in output


@pytest.mark.parametrize(
    "name",
    [
        "no-data value of float32",
        "more voxels than memory",
        "a broken link",
        "two volumes",
        "sheared by 3 degrees",
        "unit micron",
        "an image",
        "Hounsfield units",
    ],
)
def test_a_case_takes_a_screen_at_most(cases, monkeypatch, name):
    monkeypatch.setattr(console, "width", 120)
    (IMAGES | MASKS)[name].apply(cases, SECOND)
    assert len(uncseg("check", cases, code=1).splitlines()) <= LINES_OF_A_CASE


def test_a_case_whose_files_are_all_odd_takes_a_screen_at_most(cases, monkeypatch):
    monkeypatch.setattr(console, "width", 120)
    for role in ("t1c", "t2w", "t2f", "seg"):
        first_voxels(float("nan"), 4)(file_of(cases, SECOND, role))
        fields(srow_x={3: 5}, qoffset_x=5)(file_of(cases, SECOND, role))
    assert len(uncseg("check", cases, code=1).splitlines()) <= LINES_OF_A_CASE


def test_libraries_print_nothing_of_an_odd_header(cases, capfd):
    for role in ("t1n", "t1c"):
        fields(srow_x={3: float("nan")}, sform_code=1)(file_of(cases, SECOND, role))
    uncseg("check", cases, code=1)
    assert "suspicious" not in "".join(capfd.readouterr())


def test_two_equal_modalities_are_a_warning(cases, wide):
    copy_of("t1n")(file_of(cases, SECOND, "t2w"))
    said = [line for line in uncseg("check", cases).splitlines() if SECOND in line]
    assert any("t1n" in line and "t2w" in line and re.search("equal|same|identical", line) for line in said)


def test_equal_voxels_under_another_type_are_a_warning_too(cases, wide):
    copy_of("t1c")(file_of(cases, SECOND, "t2f"))
    first_voxels(0, 1, "f8")(file_of(cases, SECOND, "t2f"))
    assert re.search(rf"{SECOND}.*(equal|same|identical)", uncseg("check", cases))


def test_a_case_under_a_second_name_is_a_warning(cases, wide, experiment_file, local_ray):
    target = cases / "BraTS-GLI-00009-000"
    target.mkdir()
    for file in (cases / SECOND).iterdir():
        os.link(file, target / file.name.replace(SECOND, target.name))
    for command in (("check", cases), ("prepare", experiment_file(cases))):
        assert re.search(rf"{target.name}.*same images as {SECOND}", uncseg(*command))


def test_a_value_that_takes_half_of_the_contrast_is_a_warning(cases, wide):
    around_the_head(-5000)(file_of(cases, SECOND, "t2w"))
    assert re.search(rf"{SECOND}-t2w.*-5000.*contrast", uncseg("check", cases))


def test_a_folder_without_any_tumour_is_refused(cases, wide, experiment_file, local_ray):
    for case in (FIRST, SECOND, THIRD):
        first_voxels(0, None, "u1")(file_of(cases, case, "seg"))
    for command in (("check", cases), ("prepare", experiment_file(cases))):
        assert re.search("tumou?r", uncseg(*command, code=1))


def test_one_case_without_a_tumour_is_accepted(cases):
    first_voxels(0, None, "u1")(file_of(cases, SECOND, "seg"))
    assert "3 cases" in uncseg("check", cases)


def test_a_file_of_more_zeros_than_memory_is_refused_unread(cases, wide):
    file = file_of(cases, SECOND, "t2f")
    fields(dim={1: 2000, 2: 2000, 3: 2000}, datatype=64, bitpix=64)(file)
    sparse = file.with_suffix("")
    sparse.write_bytes(content_of(file)[:FIRST_VOXEL])
    os.truncate(sparse, FIRST_VOXEL + 2000**3 * 8)
    file.unlink()
    assert_refused(cases, f"{SECOND}-t2f", r"\(2000, 2000, 2000\)", "512", "crop")


@pytest.mark.parametrize("name", ["no-data value of float32", "unit micron", "a broken link", "a named pipe"])
def test_what_check_refuses_is_not_prepared_either(cases, wide, experiment_file, local_ray, name):
    changed = IMAGES[name].apply(cases, SECOND)
    assert_says(uncseg("prepare", experiment_file(cases), code=1), changed.name, IMAGES[name])
