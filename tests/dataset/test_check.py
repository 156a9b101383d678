"""All problems of a BraTS folder are found at once."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from support.checking import exactly
from uncseg.dataset.case_volumes import read_case_volumes, read_reference
from uncseg.dataset.check import check_case, check_dataset
from uncseg.dataset.nnunet_case import write_raw_case
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.scan import scan_folder
from uncseg.errors import ProblemsFound
from uncseg.tasks.built_in_tasks import paper_task

BRATS18 = Path(__file__).resolve().parents[3] / "shared" / "brats18" / "cases"


@pytest.fixture
def dataset(tmp_path):
    write_phantoms(tmp_path / "cases", cases=3, size=24, seed=1, task=paper_task())
    return tmp_path / "cases"


def file_of(dataset, case, role):
    return dataset / case / f"{case}-{role}.nii.gz"


def change(file, edit):
    image = sitk.ReadImage(str(file))
    array = sitk.GetArrayFromImage(image)
    changed = sitk.GetImageFromArray(edit(array))
    changed.CopyInformation(image)
    sitk.WriteImage(changed, str(file))


def put(array, value, count=1):
    array.reshape(-1)[:count] = value
    return array


def problems_of(dataset):
    with pytest.raises(ProblemsFound) as caught:
        check_dataset(dataset, task=paper_task())
    assert caught.value.exit_code == 1
    return caught.value.problems


FIRST, SECOND, THIRD = (f"BraTS-GLI-0000{n}-000" for n in range(3))


def test_clean_cases_have_no_problem(dataset):
    cases = check_dataset(dataset, task=paper_task()).scan.cases
    assert [case.case_id for case in cases] == [FIRST, SECOND, THIRD]
    assert [file.name for file in cases[0].images] == [f"{FIRST}-{m}.nii.gz" for m in paper_task().modalities]


def test_a_missing_modality_is_named(dataset):
    file_of(dataset, SECOND, "t1c").unlink()
    (problem,) = exactly(1, problems_of(dataset))
    assert problem.where == f"{SECOND}/{SECOND}-t1c.nii.gz"


def test_the_other_files_of_an_incomplete_case_are_looked_at(dataset):
    file_of(dataset, SECOND, "t1n").unlink()
    change(file_of(dataset, SECOND, "t2w"), lambda a: a * 0)
    change(file_of(dataset, SECOND, "seg"), lambda a: put(a, 7))
    missing, label, zero = exactly(3, problems_of(dataset))
    assert missing.where == f"{SECOND}/{SECOND}-t1n.nii.gz"
    assert label.found == "label 7 (1 voxels)"
    assert zero.found == "zero everywhere"


def test_a_truncated_file_is_named(dataset):
    file = file_of(dataset, SECOND, "t2f")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert sitk.ReadImage(str(file)).GetSize() == (24, 24, 24)  # ITK reads it, the rest as zeros
    (problem,) = exactly(1, problems_of(dataset))
    assert problem.where == str(file)
    assert "EOFError" in problem.found
    assert problem.expected == "a complete NIfTI image"


def test_an_unknown_label_is_named(dataset):
    change(file_of(dataset, FIRST, "seg"), lambda a: put(a, 7, count=5))
    (problem,) = exactly(1, problems_of(dataset))
    assert problem.found == "label 7 (5 voxels)"
    assert "0, 1, 2, 3" in problem.expected


def test_label_four_is_known_only_in_the_naming_of_2018(dataset):
    change(file_of(dataset, FIRST, "seg"), lambda a: put(a, 4))
    (problem,) = exactly(1, problems_of(dataset))
    assert "label 4" in problem.found


def test_a_mask_of_another_size_is_named(dataset):
    file = file_of(dataset, FIRST, "seg")
    image = sitk.ReadImage(str(file))
    sitk.WriteImage(image[:-2, :, :], str(file))
    (problem,) = exactly(1, problems_of(dataset))
    assert problem.found == "size (22, 24, 24)"
    assert problem.expected.startswith("(24, 24, 24)")


def test_a_folder_of_temporary_files_that_cannot_be_used_is_named_and_no_case(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    (problem,) = exactly(1, problems_of(dataset))
    assert problem.where == str(tmp_path / "absent")
    assert "TMPDIR" in problem.advice


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("spacing", lambda image: image.SetSpacing((1, 1, 2))),
        ("origin", lambda image: image.SetOrigin((5, -239, 0))),
        ("direction", lambda image: image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))),
    ],
)
def test_a_mask_of_another_affine_is_named(dataset, name, edit):
    file = file_of(dataset, FIRST, "seg")
    image = sitk.ReadImage(str(file))
    edit(image)
    sitk.WriteImage(image, str(file))
    (problem,) = exactly(1, problems_of(dataset))
    assert problem.found.startswith(name)


def test_images_with_nan_or_only_zeros_are_named(dataset):
    change(file_of(dataset, FIRST, "t1c"), lambda a: put(a, np.nan, count=4))
    change(file_of(dataset, SECOND, "t2w"), lambda a: a * 0)
    nan, zero = problems_of(dataset)
    assert nan.found.startswith("4 voxels that are NaN")
    assert zero.found == "zero everywhere"


def test_a_header_with_two_positions_is_a_warning(dataset):
    for role in (*paper_task().modalities, "seg"):
        file = file_of(dataset, FIRST, role)
        image = nibabel.load(file)
        twice = nibabel.Nifti1Image(np.asanyarray(image.dataobj), image.affine)
        twice.set_qform(image.affine, 1)
        affine = image.affine.copy()
        affine[:3, :3] *= 2
        twice.set_sform(affine, 2)
        nibabel.save(twice, file)
    (warning,) = check_dataset(dataset, task=paper_task()).warnings
    # the last of 24 voxels along each axis is 23 mm further away
    assert f"up to {23 * 3**0.5:.3g} mm" in warning.found
    assert "spacing (1, 1, 1) mm" in warning.advice


def test_two_cases_of_one_name_are_named(dataset):
    shutil.copytree(dataset / FIRST, dataset / "more" / FIRST)
    (problem,) = exactly(1, problems_of(dataset))
    assert problem.where == FIRST
    assert problem.found.startswith("2 cases")


def test_all_problems_are_raised_at_once(dataset):
    file_of(dataset, FIRST, "t1n").unlink()
    change(file_of(dataset, SECOND, "seg"), lambda a: put(a, 7))
    change(file_of(dataset, THIRD, "t2w"), lambda a: a * 0)
    assert len(problems_of(dataset)) == 3


@pytest.mark.parametrize(("exists", "code"), [(True, 1), (False, 2)])
def test_an_empty_or_absent_folder_is_refused(tmp_path, exists, code):
    folder = tmp_path / "cases"
    if exists:
        folder.mkdir()
    with pytest.raises(ProblemsFound) as caught:
        check_dataset(folder, task=paper_task())
    assert caught.value.exit_code == code
    assert str(folder) in caught.value.problems[0].where


def as_2018(dataset, case):
    """Rename a phantom to the naming of 2018, label 3 to 4."""
    names = dict(zip(("t1n", "t1c", "t2w", "t2f", "seg"), ("t1", "t1ce", "t2", "flair", "seg"), strict=True))
    folder = dataset / "HGG" / "Brats18_2013_1_1"
    folder.mkdir(parents=True)
    for role, old in names.items():
        file_of(dataset, case, role).rename(folder / f"{folder.name}_{old}.nii.gz")
    shutil.rmtree(dataset / case)
    change(folder / f"{folder.name}_seg.nii.gz", lambda a: np.where(a == 3, 4, a).astype(a.dtype))
    return folder.name


def test_naming_of_2018_is_recognised_and_mapped(dataset, tmp_path):
    labels, _ = read_reference(scan_folder(dataset, task=paper_task()).cases[0], task=paper_task())
    name = as_2018(dataset, FIRST)
    case = next(case for case in check_dataset(dataset / "HGG", task=paper_task()).scan.cases if case.case_id == name)
    mapped, _ = read_reference(case, task=paper_task())
    np.testing.assert_array_equal(mapped, labels)
    write_raw_case(read_case_volumes(case, task=paper_task()), tmp_path / "imagesTr", tmp_path / "labelsTr")
    written = sitk.ReadImage(str(tmp_path / "labelsTr" / f"{name}.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), labels)
    assert written.GetOrigin() == sitk.ReadImage(str(case.reference)).GetOrigin()


def test_unchanged_files_are_linked_and_not_copied(dataset, tmp_path):
    case = scan_folder(dataset, task=paper_task()).cases[0]
    for _ in range(2):
        write_raw_case(read_case_volumes(case, task=paper_task()), tmp_path / "imagesTr", tmp_path / "labelsTr")
    links = [*(tmp_path / "imagesTr" / f"{FIRST}_{i:04d}.nii.gz" for i in range(4))]
    links.append(tmp_path / "labelsTr" / f"{FIRST}.nii.gz")
    for link, source in zip(links, (*case.images, case.reference), strict=True):
        assert link.samefile(source)


@pytest.mark.skipif(not BRATS18.is_dir(), reason="the real cases are not here")
def test_real_cases_of_2018_are_clean():
    cases = scan_folder(BRATS18, task=paper_task()).cases
    assert len(cases) == 10
    assert check_case(cases[0], task=paper_task()).problems == []
    labels, _ = read_reference(cases[0], task=paper_task())
    assert set(np.unique(labels)) == {0, 1, 2, 3}
