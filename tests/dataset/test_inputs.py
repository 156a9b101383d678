"""Cases to predict: nnU-Net's files alone, beside BraTS cases, and below other folders."""

import shutil

import pytest

from support.checking import exactly
from uncseg.dataset.inputs import find_inputs
from uncseg.errors import ProblemsFound
from uncseg.tasks.built_in_tasks import paper_task

MODEL = {"channel_names": {"0": "T1n", "1": "T1c", "2": "T2w", "3": "T2f"}}


@pytest.fixture
def plain(tmp_path, four_cases):
    """A folder with the files of one case, extra, as nnU-Net names them."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    case = "BraTS-GLI-00000-000"
    for channel, modality in enumerate(("t1n", "t1c", "t2w", "t2f")):
        shutil.copy(four_cases / case / f"{case}-{modality}.nii.gz", folder / f"extra_{channel:04d}.nii.gz")
    return folder


def test_nnunets_files_alone_are_cases(plain):
    scan = find_inputs(plain, MODEL, task=paper_task())
    assert [case.case_id for case in scan.cases] == ["extra"]
    assert [file.name for file in scan.cases[0].images] == [f"extra_{n:04d}.nii.gz" for n in range(4)]
    assert scan.problems == []


def test_nnunets_files_beside_brats_cases_are_cases(plain, four_cases):
    shutil.copytree(four_cases, plain, dirs_exist_ok=True)
    scan = find_inputs(plain, MODEL, task=paper_task())
    assert [case.case_id for case in scan.cases] == [f"BraTS-GLI-0000{n}-000" for n in range(4)] + ["extra"]
    assert scan.problems == []


def test_an_incomplete_case_of_nnunets_files_is_named(plain):
    (plain / "extra_0002.nii.gz").unlink()
    scan = find_inputs(plain, MODEL, task=paper_task())
    assert scan.cases == []
    (problem,) = exactly(1, scan.problems)
    assert problem.where.endswith("extra")
    assert "0000, 0001, 0003" in problem.found


def test_nnunets_files_in_a_folder_below_are_named(plain):
    (plain / "imagesTs").mkdir()
    for file in plain.glob("*.nii.gz"):
        file.rename(plain / "imagesTs" / file.name)
    with pytest.raises(ProblemsFound, match=r"extra_0000\.nii\.gz"):
        find_inputs(plain, MODEL, task=paper_task())
