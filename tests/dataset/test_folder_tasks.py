"""Which task a folder is read as: by names, by dataset.json, or as set; and what is refused as not fitting."""

import json
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from support.checking import exactly
from uncseg.cli import app
from uncseg.config.experiment import load_experiment
from uncseg.dataset.case_volumes import read_case_volumes, read_reference
from uncseg.dataset.check import check_dataset
from uncseg.dataset.inputs import find_inputs
from uncseg.dataset.nnunet_case import write_raw_case
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.preparation import chosen_cases
from uncseg.dataset.scan import scan_folder
from uncseg.errors import ProblemsFound
from uncseg.tasks.built_in_tasks import built_in, paper_task
from uncseg.tasks.task import Task

LIVER = {"name": "liver", "modalities": ["ct"], "labels": {"liver": 1}}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a folder with two phantoms of a built-in task, to read."""
    root = tmp_path_factory.mktemp("tasks")

    def folder(task):
        write_phantoms(root / task, cases=2, size=24, seed=3, task=built_in(task))
        return root / task

    return folder


@dataclass
class Ended:
    """A command's exit code, and what it printed or the problems that are printed as a table."""

    exit_code: int
    output: str


def check(*arguments):
    ended = CliRunner().invoke(app, ["check", *map(str, arguments)])
    if isinstance(ended.exception, ProblemsFound):
        return Ended(ended.exception.exit_code, ended.output + str(ended.exception))
    return Ended(ended.exit_code, ended.output)


def refused(call, code=2):
    with pytest.raises(ProblemsFound) as caught:
        call()
    assert caught.value.exit_code == code
    return caught.value.problems


def copy_as(source, target, names):
    """Copy cases under other names."""
    for folder, name in zip(sorted(path for path in source.iterdir() if path.is_dir()), names, strict=True):
        (target / name).mkdir(parents=True)
        for file in folder.iterdir():
            shutil.copy(file, target / name / file.name.replace(folder.name, name))
    return target


def set_values(file, values):
    """Give the first voxels of a mask some values, and 0 to all others."""
    image = sitk.ReadImage(str(file))
    array = np.zeros(sitk.GetArrayFromImage(image).shape, np.int16)
    array.reshape(-1)[: len(values)] = values
    mask = sitk.GetImageFromArray(array)
    mask.CopyInformation(image)
    sitk.WriteImage(mask, str(file))


def liver(**fields):
    return Task.model_validate({**LIVER, **fields})


@pytest.mark.parametrize(
    ("task", "lines"),
    [
        ("gli-2023", ["task gli-2023,", "labels of BraTS 2023: 1 NCR, 2 ED, 3 ET (by the names of the files)"]),
        ("gli-2018", ["labels of BraTS 2018 to 2021: 1 NCR, 2 ED, 4 ET (by the names of the files)"]),
        ("gli-2024", ["task gli-2024,", "labels of BraTS 2024: 1 NETC, 2 SNFH, 3 ET, 4 RC"]),
        ("met", ["task met,", "labels of BraTS 2023: 1 NETC, 2 SNFH, 3 ET"]),
        ("men", ["task men,"]),
    ],
)
def test_names_of_cases_tell_the_task_which_is_printed_once(folders, task, lines):
    found = check(folders(task))
    assert found.exit_code == 0, found.output
    assert all(found.output.count(line) == 1 for line in lines), found.output


def test_names_that_two_tasks_have_need_the_option(folders):
    folder = folders("ped-2024")
    found = check(folder)
    assert found.exit_code == 2
    assert "set --task to ped-2023 or ped-2024" in found.output
    found = check(folder, "--task", "ped-2024")
    assert found.exit_code == 0, found.output
    assert "labels of BraTS 2024: 1 ET, 2 NET, 3 CC, 4 ED" in found.output
    # label 4 is not one of 2023
    found = check(folder, "--task", "ped-2023")
    assert found.exit_code == 1
    assert "if 4 is ED, as in task ped-2024, set dataset.task or --task to ped-2024" in found.output


@pytest.mark.parametrize(
    ("folder", "task"),
    [
        ("met", "gli-2023"),  # another lesion rule
        ("men", "met"),
        ("gli-2024", "gli-2023"),  # other labels
        ("gli-2023", "gli-2024"),
        ("ped-2024", "gli-2023"),
    ],
)
def test_a_task_that_the_names_contradict_is_refused_by_check_and_by_an_experiment(folders, folder, task, tmp_path):
    path = folders(folder)
    found = check(path, "--task", task)
    assert found.exit_code == 2
    assert f"set dataset.task or --task to {'ped-2023 or ' * (folder == 'ped-2024')}{folder}" in found.output
    assert found.output.count("set dataset.task") == 1
    experiment = tmp_path / "experiment.yaml"
    experiment.write_text(f"name: a\ndataset: {{path: {path}, task: {task}}}\nstorage: {{path: {tmp_path}}}\n")
    (problem,) = exactly(1, refused(lambda: chosen_cases(load_experiment(experiment))))
    assert problem.where == str(path)
    assert folder in problem.advice


def test_a_folder_of_two_tasks_is_refused_unless_cases_are_left_out(folders, tmp_path):
    for task in ("gli-2023", "met"):
        shutil.copytree(folders(task), tmp_path / task)
    found = check(tmp_path)
    assert found.exit_code == 2
    assert "BraTS-GLI-00000-000" in found.output
    assert "BraTS-MET-00000-000" in found.output
    names = ["BraTS-MET-00000-000", "BraTS-MET-00001-000"]
    assert len(scan_folder(tmp_path, exclude=names, task=built_in("gli-2023")).cases) == 2


def test_files_that_are_named_as_another_task_names_them_are_refused(folders, tmp_path):
    (problem,) = exactly(1, refused(lambda: scan_folder(folders("met"), task=liver())))
    assert "BraTS-MET-00000-000" in problem.found
    assert "CASE/CASE-ct.nii.gz" in problem.expected
    assert problem.advice == "set dataset.task or --task to met"
    folder = copy_as(folders("gli-2018"), tmp_path, ["patient1", "patient2"])
    (problem,) = exactly(1, refused(lambda: scan_folder(folder, task=built_in("men"))))
    assert problem.advice == "set dataset.task or --task to gli-2018 or gli-2023"


def test_cases_of_another_task_than_a_models_need_another_model(folders):
    model = {"channel_names": {"0": "arterial", "1": "venous"}}
    (problem,) = exactly(1, refused(lambda: find_inputs(folders("gli-2023"), model, task=liver())))
    assert problem.advice == "give cases of task liver, or a model of gli-2023"


def test_a_mask_with_label_4_under_names_of_2023_is_refused(folders, tmp_path):
    folder = copy_as(folders("gli-2023"), tmp_path, ["BraTS-GLI-00005-000", "BraTS-GLI-00006-000"])
    set_values(folder / "BraTS-GLI-00005-000" / "BraTS-GLI-00005-000-seg.nii.gz", [1, 2, 4])
    set_values(folder / "BraTS-GLI-00006-000" / "BraTS-GLI-00006-000-seg.nii.gz", [1, 2])
    mask, together = exactly(2, refused(lambda: check_dataset(folder, task=paper_task()), code=1))
    # names tell that it is neither a cavity nor a child's oedema
    assert mask.advice == (
        "if 4 is ET, as in BraTS 2018 to 2021, set dataset.convention or --convention to 2018; else map or remove it"
    )
    assert together.found == "labels 0, 1, 2, 4 in all masks together"
    assert "BraTS 2018 to 2021" in together.advice


def test_a_mask_with_label_4_under_names_that_tell_nothing_may_be_of_several_tasks(folders, tmp_path):
    folder = copy_as(folders("gli-2023"), tmp_path, ["patient1", "patient2"])
    set_values(folder / "patient1" / "patient1-seg.nii.gz", [1, 2, 4])
    set_values(folder / "patient2" / "patient2-seg.nii.gz", [1, 2, 3])
    mask, together = exactly(2, refused(lambda: check_dataset(folder, task=paper_task()), code=1))
    for meaning in ("4 is ET, as in BraTS 2018", "4 is RC, as in task gli-2024", "4 is ED, as in task ped-2024"):
        assert meaning in mask.advice
    # 3 is no label of 2018, so that one of the two others has to be chosen
    assert together.found == "labels 0, 1, 2, 3, 4 in all masks together"
    assert "gli-2024" in together.advice
    assert "ped-2024" in together.advice
    assert "2018" not in together.advice
    known = check_dataset(folder, task=built_in("gli-2024"))
    labels, _ = read_reference(known.scan.cases[0], built_in("gli-2024"))
    assert sorted(np.unique(labels)) == [0, 1, 2, 4]


def test_masks_that_fit_no_single_task_are_all_named(folders, tmp_path):
    names = ["BraTS-GLI-00005-000", "BraTS-GLI-00006-000"]
    folder = copy_as(folders("gli-2023"), tmp_path, names)
    set_values(folder / names[0] / f"{names[0]}-seg.nii.gz", [1, 2, 4])
    set_values(folder / names[1] / f"{names[1]}-seg.nii.gz", [1, 2, 3])
    _, together = exactly(2, refused(lambda: check_dataset(folder, task=paper_task()), code=1))
    assert together.found == f"label 3 in {names[1]}; label 4 in {names[0]}"
    # as 2018, the other one is refused
    mask, together = exactly(2, refused(lambda: check_dataset(folder, paper_task(), "2018"), code=1))
    assert names[1] in mask.where
    assert together.found == f"label 3 in {names[1]}; label 4 in {names[0]}"


def liver_folder(folder, task, cases=2):
    write_phantoms(folder, cases=cases, size=24, seed=5, task=task)
    return folder


def test_values_of_masks_are_those_of_the_convention(tmp_path):
    hospital = {"hospital": {"images": {"ct": "_CT"}, "mask": "_contour", "values": {"liver": 255}}}
    task = liver(conventions=hospital)
    folder = liver_folder(tmp_path / "cases", task)
    (case, _) = check_dataset(folder, task=task).scan.cases
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(case.reference)))
    assert set(np.unique(stored)) == {0, 255}
    labels, _ = read_reference(case, task)
    np.testing.assert_array_equal(labels, stored == 255)
    # what nnU-Net trains on has the task's number
    write_raw_case(read_case_volumes(case, task), tmp_path / "imagesTr", tmp_path / "labelsTr")
    raw = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "labelsTr" / f"{case.case_id}.nii.gz")))
    np.testing.assert_array_equal(raw, labels)
    # without the values, 255 is never taken for the one label
    unsaid = liver(conventions={"hospital": {key: hospital["hospital"][key] for key in ("images", "mask")}})
    problem, *_ = refused(lambda: check_dataset(folder, task=unsaid), code=1)
    assert problem.found.startswith("label 255 ")
    assert problem.expected == "only 0, 1 (labels of task liver)"
    assert "conventions.hospital.values" in problem.advice


def test_a_value_that_a_convention_gives_to_none_is_refused(tmp_path):
    task = liver(
        labels={"liver": 1, "tumour": 2},
        conventions={"one": {"images": {"ct": "-ct"}, "values": {"liver": 100, "tumour": 50000}}},
    )
    folder = liver_folder(tmp_path / "cases", task)
    first, second = check_dataset(folder, task=task).scan.cases
    labels, _ = read_reference(first, task)
    assert set(np.unique(labels)) == {0, 1, 2}
    set_values(second.reference, [1, 2])
    problem, *_ = refused(lambda: check_dataset(folder, task=task), code=1)
    assert problem.found == "label 1 (1 voxels), 2 (1 voxels)"
    assert problem.expected == "only 0, 100, 50000 (labels of task liver)"


def test_conventions_that_share_names_are_told_apart_by_the_setting(tmp_path):
    images = {"images": {"ct": "-ct"}}
    task = liver(conventions={"now": images, "before": {**images, "values": {"liver": 7}}})
    folder = liver_folder(tmp_path / "cases", task)
    assert check_dataset(folder, task=task).scan.convention == "now"
    for case in scan_folder(folder, task=task).cases:
        set_values(case.reference, [7, 7])
    problem, *_ = refused(lambda: check_dataset(folder, task=task), code=1)
    assert "if 7 is liver, as in task liver, set dataset.convention or --convention to before" in problem.advice
    (case, _) = check_dataset(folder, task, "before").scan.cases
    assert read_reference(case, task)[0].sum() == 2


def test_an_incomplete_case_is_named_as_its_task_names_files(tmp_path):
    conventions = {"hospital": {"images": {"t2w": "_T2", "adc": "_ADC"}, "mask": "_contour"}}
    task = liver(modalities=["t2w", "adc"], conventions=conventions)
    folder = liver_folder(tmp_path / "cases", task, cases=3)
    first, second, third = (case.case_id for case in scan_folder(folder, task=task).cases)
    (folder / first / f"{first}_ADC.nii.gz").unlink()
    (folder / second / f"{second}_contour.nii.gz").rename(folder / second / f"{second}_CONTOUR.nii.gz")  # case-blind
    (folder / third / f"{third}_T2.nii.gz").rename(folder / third / f"{third}_T2.nii.gz.part")
    found = refused(lambda: check_dataset(folder, task=task), code=1)
    assert [problem.where for problem in found] == [f"{first}/{first}_ADC.nii.gz", f"{third}/{third}_T2.nii.gz"]
    assert found[1].found == f"no such file; beside it: {third}_T2.nii.gz.part"
    assert found[0].expected == "all of t2w, adc, seg"


def test_a_folder_without_the_main_region_is_refused(folders, tmp_path):
    task = built_in("gli-2024")
    folder = copy_as(folders("gli-2024"), tmp_path, ["BraTS-GLI-00005-100", "BraTS-GLI-00005-101"])
    for mask in folder.glob("*/*-seg.nii.gz"):
        set_values(mask, [4, 4])
    # the resection cavity is in no region of the tumour
    (problem,) = exactly(1, refused(lambda: check_dataset(folder, task=task), code=1))
    assert problem.found == "no WT (whole tumour) in any reference"
    assert problem.expected == "labels NETC or SNFH or ET in some of them"


def test_patients_are_told_by_the_task(tmp_path):
    task = liver(patients=r"(\d+)-\d+$", phantom={"cases": "scan-{patient:02d}-{scan}"})
    folder = liver_folder(tmp_path / "cases", task, cases=6)
    known = check_dataset(folder, task=task).patients
    assert known.of == {f"scan-{n:02d}-{scan}": f"{n:02d}" for n in range(5) for scan in ((0, 1) if n == 4 else (0,))}
    assert "task liver" in str(known)
    assert known.warnings == ()


def test_a_tasks_pattern_that_does_not_fit_all_cases_is_a_warning(tmp_path):
    task = liver(patients=r"scan-(0[0-3])", phantom={"cases": "scan-{patient:02d}-{scan}"})
    folder = liver_folder(tmp_path / "cases", task, cases=6)
    (warning, *_) = check_dataset(folder, task=task).warnings
    assert warning.where == "task liver: patients"
    assert "finds no patient in scan-04-0, scan-04-1, so" in warning.found


def nnunet_folder(source, target, content, order=(0, 1, 2, 3)):
    """Write phantoms of a built-in task as nnU-Net's raw dataset, with channels in another order."""
    (target / "imagesTr").mkdir(parents=True)
    (target / "labelsTr").mkdir()
    cases = sorted(path.name for path in source.iterdir() if path.is_dir())
    endings = ("t1n", "t1c", "t2w", "t2f")
    for case in cases:
        for channel, modality in enumerate(order):
            file = source / case / f"{case}-{endings[modality]}.nii.gz"
            shutil.copy(file, target / "imagesTr" / f"{case}_{channel:04d}.nii.gz")
        shutil.copy(source / case / f"{case}-seg.nii.gz", target / "labelsTr" / f"{case}.nii.gz")
    write = {"numTraining": len(cases), "file_ending": ".nii.gz", **content}
    (target / "dataset.json").write_text(json.dumps(write))
    return cases


CHANNELS = {"0": "T1n", "1": "T1c", "2": "T2w", "3": "T2f"}
LABELS = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}


def test_nnunets_dataset_is_taken_as_it_is(folders, tmp_path):
    source, raw = folders("gli-2023"), tmp_path / "Dataset007_Brain"
    cases = nnunet_folder(source, raw, {"channel_names": CHANNELS, "labels": {**LABELS, "oedema rim": 2} | {"ED": 2}})
    # two names of one number
    (problem,) = exactly(1, refused(lambda: scan_folder(raw, task=liver()), code=1))
    assert "labels are" in problem.found
    nnunet = {"channel_names": {"0": "first", "1": "b c", "2": "c", "3": "d"}, "labels": LABELS}
    shutil.rmtree(raw)
    nnunet_folder(source, raw, nnunet)
    found = check(raw)
    assert found.exit_code == 0, found.output
    assert "task Dataset007_Brain" in found.output
    assert "labels of nnU-Net: 1 NCR, 2 ED, 3 ET (by dataset.json)" in found.output
    assert f"{len(cases)} cases of {len(cases)} patients" in found.output


@pytest.mark.parametrize(
    "labels",
    [LABELS, {"background": 0, "whole": [1, 2, 3], "TC": [1, 3], "enhancing": [3]}, {**LABELS, "ED": 2, "NCR": 1}],
)
def test_nnunets_dataset_can_be_read_as_a_built_in_task(folders, tmp_path, labels):
    source, raw, order = folders("gli-2023"), tmp_path / "raw", (3, 0, 2, 1)
    channels = {"0": "FLAIR", "1": "T1", "2": "T2", "3": "T1Gd"}
    cases = nnunet_folder(source, raw, {"channel_names": channels, "labels": labels}, order)
    task = built_in("gli-2023")
    scan = scan_folder(raw, task=task)
    plain = scan_folder(source, task=task)
    assert [case.case_id for case in scan.cases] == cases
    for case, other in zip(scan.cases, plain.cases, strict=True):
        # the modalities of the task, whatever the order of nnU-Net's channels
        for image, same in zip(case.images, other.images, strict=True):
            assert image.read_bytes() == same.read_bytes()
        np.testing.assert_array_equal(read_reference(case, task)[0], read_reference(other, task)[0])


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"labels": {"background": 0, "ED": 1, "NCR": 2, "ET": 3}}, "labels background 0, ED 1, NCR 2, ET 3"),
        ({"labels": {"background": 0, "NCR": 1, "ED": 2, "ET": 3, "RC": 4}}, "RC 4"),
        ({"labels": {"background": 0, "WT": [1, 2, 3], "TC": [2, 3], "ET": [3]}}, "TC [2, 3]"),
        ({"labels": {"background": 0, "a": 1, "b": 2, "c": 3}}, "labels background 0, a 1"),
        ({"channel_names": {"0": "T1n", "1": "T1c", "2": "T2w", "3": "CT"}}, "channels T1n, T1c, T2w, CT"),
        ({"channel_names": {"0": "T1n", "1": "T1", "2": "T2w", "3": "T2f"}}, "channels T1n, T1, T2w, T2f"),
    ],
)
def test_a_task_that_does_not_fit_dataset_json_is_refused(folders, tmp_path, change, found):
    raw = tmp_path / "raw"
    nnunet_folder(folders("gli-2023"), raw, {"channel_names": CHANNELS, "labels": LABELS, **change})
    (problem,) = exactly(1, refused(lambda: scan_folder(raw, task=built_in("gli-2023"))))
    assert problem.where == str(raw / "dataset.json")
    assert found in problem.found
    assert "leave dataset.task or --task out" in problem.advice


def test_every_problem_of_nnunets_dataset_is_named(folders, tmp_path):
    raw = tmp_path / "raw"
    first, second = nnunet_folder(folders("gli-2023"), raw, {"channel_names": CHANNELS, "labels": LABELS})
    shutil.copy(raw / "imagesTr" / f"{first}_0003.nii.gz", raw / "imagesTr" / f"{first}_0004.nii.gz")
    (raw / "imagesTr" / f"{second}_0001.nii.gz").unlink()
    shutil.copy(raw / "labelsTr" / f"{first}.nii.gz", raw / "labelsTr" / "third.nii.gz")
    shutil.copy(raw / "labelsTr" / f"{first}.nii.gz", raw / "stray.nii.gz")
    (raw / "imagesTr" / "picture.mha").touch()
    set_values(raw / "labelsTr" / f"{second}.nii.gz", [5])
    found = refused(lambda: check_dataset(raw, task=paper_task()), code=1)
    text = "\n".join(f"{problem.where} {problem.found}" for problem in found)
    assert f"{first} {first}_0004.nii.gz" in text
    assert f"imagesTr/{second}_0001.nii.gz no such file" in text
    assert "imagesTr/third_0000.nii.gz no such file" in text
    assert "numTraining 2, and 3 cases" in text
    for name in ("stray.nii.gz", "picture.mha"):
        assert f"{name} an image of another name or format" in text
    assert f"{second}.nii.gz label 5 (1 voxels)" in text


def test_images_in_other_folders_of_nnunets_dataset_are_remarked(folders, tmp_path):
    raw = tmp_path / "raw"
    cases = nnunet_folder(folders("gli-2023"), raw, {"channel_names": CHANNELS, "labels": LABELS})
    shutil.copytree(folders("met"), raw / "more")
    (raw / "imagesTs").mkdir()
    (raw / "code").mkdir()
    (raw / "code" / "notes.txt").touch()
    shutil.copy(raw / "labelsTr" / f"{cases[0]}.nii.gz", raw / "imagesTs")
    scan = scan_folder(raw, task=paper_task())
    assert [case.case_id for case in scan.cases] == cases
    assert scan.notes == [
        "imagesTs, more/BraTS-MET-00000-000, more/BraTS-MET-00001-000 of raw: not used",
    ]


def test_cases_of_nnunets_dataset_can_be_left_out(folders, tmp_path):
    raw = tmp_path / "raw"
    first, second = nnunet_folder(folders("gli-2023"), raw, {"channel_names": CHANNELS, "labels": LABELS})
    scan = scan_folder(raw, exclude=[first], task=paper_task())
    assert (scan.excluded, [case.case_id for case in scan.cases]) == ({first}, [second])
    scan = scan_folder(raw, exclude=[f"{second}.nii.gz"], task=paper_task())
    assert [case.case_id for case in scan.cases] == [first]
    scan = scan_folder(raw, exclude=[f"{second}_0002.nii.gz", "unknown"], task=paper_task())
    assert [case.case_id for case in scan.cases] == [first]
    assert scan.excluded == {f"{second}_0002.nii.gz"}


def test_files_that_dataset_json_lists_are_read_where_they_are(folders, tmp_path):
    source, raw = folders("gli-2023"), tmp_path / "raw"
    case = sorted(path.name for path in source.iterdir() if path.is_dir())[0]
    for name in ("imagesTr", "labelsTr"):
        (raw / name).mkdir(parents=True)
    files = [str(source / case / f"{case}-{modality}.nii.gz") for modality in ("t1n", "t1c", "t2w", "t2f")]
    listing = {"anna": {"images": files, "label": str(source / case / f"{case}-seg.nii.gz")}}
    content = {"channel_names": CHANNELS, "labels": LABELS, "numTraining": 1, "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps({**content, "dataset": listing}))
    (found,) = scan_folder(raw, task=paper_task()).cases
    assert (found.case_id, [str(file) for file in found.images]) == ("anna", files)


@pytest.mark.parametrize("listed", [None, [1], {"images": "a.nii.gz", "label": 5}, {"images": ["a.nii.gz"]}])
def test_a_list_of_dataset_json_that_names_no_files_is_refused(folders, tmp_path, listed):
    raw = tmp_path / "raw"
    content = {"channel_names": CHANNELS, "labels": LABELS, "dataset": {"anna": listed}}
    nnunet_folder(folders("gli-2023"), raw, content)
    (problem,) = exactly(1, refused(lambda: scan_folder(raw, task=paper_task()), code=1))
    assert "dataset.anna" in problem.where


def test_a_dataset_json_may_begin_with_a_byte_order_mark(folders, tmp_path):
    raw = tmp_path / "raw"
    cases = nnunet_folder(folders("gli-2023"), raw, {"channel_names": CHANNELS, "labels": LABELS})
    file = raw / "dataset.json"
    file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert len(scan_folder(raw, task=paper_task()).cases) == len(cases)


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_a_part_of_nnunets_dataset_is_refused_with_the_folder_to_give(folders, tmp_path, part):
    raw = tmp_path / "raw"
    nnunet_folder(folders("gli-2023"), raw, {"channel_names": CHANNELS, "labels": LABELS})
    found = refused(lambda: scan_folder(raw / part, task=paper_task()), code=1)
    assert any(problem.advice == f"give {raw}" for problem in found)


def test_another_lesion_rule_than_names_tell_is_a_remark(folders, tmp_path):
    raw = tmp_path / "Dataset001_Mets"
    nnunet_folder(folders("met"), raw, {"channel_names": CHANNELS, "labels": LABELS})
    found = check(raw)
    assert found.exit_code == 0, found.output
    assert "BraTS-MET-00000-000 is a name of task met" in found.output
    assert "counts lesions of more than 50 mm³, 3 dilations" in found.output


def test_a_task_of_ones_own_may_choose_regions_and_lesions_of_nnunets_dataset(folders, tmp_path):
    raw = tmp_path / "raw"
    nnunet_folder(folders("met"), raw, {"channel_names": CHANNELS, "labels": LABELS})
    own = {
        "modalities": ["t2f", "t1n", "t1c", "t2w"],
        "labels": {"NCR": 1, "ED": 2, "ET": 3},
        "regions": {"all_tumour": ["NCR", "ED", "ET"], "ET": ["ET"]},
        "lesions": {"dilations": 0, "smallest_mm3": 5},
    }
    (case, _) = scan_folder(raw, task=Task.model_validate(own)).cases
    assert [file.name for file in case.images] == [f"BraTS-MET-00000-000_{n:04d}.nii.gz" for n in (3, 0, 1, 2)]
    # nnU-Net's numbers hold, whatever the task's files hold elsewhere
    elsewhere = {"hospital": {"images": {name: f"_{name}" for name in own["modalities"]}}}
    values = {"NCR": 10, "ED": 20, "ET": 30}
    own["conventions"] = {"hospital": {**elsewhere["hospital"], "values": values}}
    (problem,) = exactly(1, refused(lambda: scan_folder(raw, task=Task.model_validate(own))))
    assert problem.expected == "those of task own: 10 NCR, 20 ED, 30 ET"
    own["conventions"]["nnunet"] = {"images": {name: f"_{n:04d}" for n, name in enumerate(own["modalities"])}}
    scan = scan_folder(raw, task=Task.model_validate(own))
    assert (scan.convention, scan.convention_reason) == ("nnunet", "by dataset.json")


def test_cases_to_predict_of_nnunets_dataset_have_the_models_channels(folders, tmp_path):
    raw, task = tmp_path / "raw", built_in("gli-2023")
    names = nnunet_folder(folders("gli-2023"), raw, {"channel_names": CHANNELS, "labels": LABELS})
    model = {"channel_names": {"0": "T2f", "1": "T1c", "2": "T2w", "3": "T1n"}}
    for references in ("ignored", "optional"):
        cases = find_inputs(raw, model, references, task=task).cases
        assert [case.case_id for case in cases] == names
        assert [file.name for file in cases[0].images] == [f"{names[0]}_{n:04d}.nii.gz" for n in (3, 1, 2, 0)]
        assert (cases[0].reference is None) == (references == "ignored")
    # of cases without a reference, none can be scored, and all can be predicted
    (raw / "labelsTr" / f"{names[0]}.nii.gz").unlink()
    (raw / "dataset.json").write_text(json.dumps({"channel_names": CHANNELS, "labels": LABELS}))
    first, second = find_inputs(raw, model, "optional", task=task).cases
    assert (first.reference, second.reference is None) == (None, False)


def test_what_nnunets_references_mean_is_no_matter_where_they_are_not_read(folders, tmp_path):
    raw, task = tmp_path / "raw", built_in("gli-2023")
    nnunet_folder(folders("met"), raw, {"channel_names": CHANNELS, "labels": {"background": 0, "metastasis": 1}})
    assert len(find_inputs(raw, {"channel_names": CHANNELS}, task=task).cases) == 2
    (problem,) = exactly(1, refused(lambda: find_inputs(raw, {"channel_names": CHANNELS}, "optional", task=task)))
    assert "metastasis 1" in problem.found
