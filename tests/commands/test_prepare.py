"""Preparation: it writes what nnU-Net would have written, and goes on where it was stopped."""

import contextlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from uncseg.config.experiment import load_experiment
from uncseg.dataset.case_volumes import read_case_volumes, read_reference
from uncseg.dataset.finite import naming
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.preparation import chosen_cases, nnunet_environment, plan, survey_folder
from uncseg.dataset.preprocessing import checked
from uncseg.errors import ProblemsFound
from uncseg.files import read_json
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.tasks.built_in_tasks import paper_task

OURS = ("patch_size", "batch_size", "base_features", "max_features", "max_stages", "foreground_samples")


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepare") / "phantoms"
    write_phantoms(folder, cases=6, size=32, seed=0, task=paper_task())
    return folder


def load(experiment_file, phantoms, **sections):
    storage = {"path": str(phantoms.with_name("storage"))}  # what one test prepared, another finds
    return load_experiment(experiment_file(phantoms, **{"storage": storage, **sections}))


def left_to_nnunet(experiment_file, phantoms, foreground_samples=None):
    """Return an experiment that leaves every choice to nnU-Net, but for the number of foreground samples."""
    return load(experiment_file, phantoms, plan=dict.fromkeys(OURS) | {"foreground_samples": foreground_samples})


def load_arrays(folder, case):
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    data, seg, _, properties = nnUNetDatasetBlosc2(str(folder), [case]).load_case(case)
    return np.asarray(data[:]), np.asarray(seg[:]), properties


NNUNETS_NUMBER = pytest.param(None, marks=pytest.mark.slow, id="nnU-Net's own number of samples")


@pytest.mark.parametrize("samples", [60_000, NNUNETS_NUMBER])
def test_what_is_prepared_equals_nnunets_own(local_ray, experiment_file, phantoms, tmp_path, monkeypatch, samples):
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprint_dataset,
        plan_experiment_dataset,
    )
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    class Extractor(DatasetFingerprintExtractor):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more)
            self.num_foreground_voxels_for_intensitystats = samples or self.num_foreground_voxels_for_intensitystats

    experiment = left_to_nnunet(experiment_file, phantoms, samples)
    prepared = prepare_cases(experiment)
    theirs = tmp_path / "nnunet" / "nnUNet_preprocessed"
    for name, value in (nnunet_environment(prepared) | {"nnUNet_preprocessed": str(theirs)}).items():
        monkeypatch.setenv(name, value)
    with contextlib.redirect_stdout(None):
        extract_fingerprint_dataset(501, Extractor, num_processes=2, show_progress_bar=False)
        plan_experiment_dataset(501)
    theirs = theirs / prepared.dataset_name
    ours_print, their_print = (
        json.loads((folder / "dataset_fingerprint.json").read_text()) for folder in (prepared.dataset, theirs)
    )
    assert ours_print == their_print
    ours_plans = json.loads(prepared.plans.read_text())
    their_plans = json.loads((theirs / "nnUNetPlans.json").read_text())
    assert ours_plans == their_plans
    plans = PlansManager(their_plans)
    settings = plans.get_configuration("3d_fullres")
    for case in chosen_cases(experiment)[0]:
        # in this process, from the files themselves
        data, seg, properties = DefaultPreprocessor(verbose=False).run_case(
            [str(file) for file in case.images],
            str(case.reference),
            plans,
            settings,
            str(theirs / "dataset.json"),
        )
        ours = load_arrays(prepared.dataset / "nnUNetPlans_3d_fullres", case.case_id)
        np.testing.assert_array_equal(ours[0], data)
        np.testing.assert_array_equal(ours[1], seg)
        for label, places in properties["class_locations"].items():
            np.testing.assert_array_equal(ours[2]["class_locations"][label], places)


@pytest.mark.parametrize(("drawn", "of_each"), [(60_000, 10_000), (1, 1)])
def test_fewer_foreground_samples_change_nothing_but_statistics(local_ray, experiment_file, phantoms, drawn, of_each):
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    experiment = left_to_nnunet(experiment_file, phantoms, drawn)
    few, many = prepare_cases(experiment), prepare_cases(left_to_nnunet(experiment_file, phantoms, 600_000))
    cases = chosen_cases(experiment)[0]
    by_case = [
        DatasetFingerprintExtractor.analyze_case(
            [str(file) for file in c.images], str(c.reference), SimpleITKIO, of_each
        )[2]
        for c in cases
    ]
    found = json.loads((few.dataset / "dataset_fingerprint.json").read_text())
    for channel, statistics in found["foreground_intensity_properties_per_channel"].items():
        drawn_of_it = np.concatenate([channels[int(channel)] for channels in by_case])
        assert drawn_of_it.size == of_each * len(cases)
        assert statistics["mean"] == pytest.approx(float(drawn_of_it.mean()))
        assert statistics["max"] == drawn_of_it.max()
    plans, theirs = (json.loads(folder.plans.read_text()) for folder in (few, many))
    assert plans["configurations"] == theirs["configurations"]
    for case in cases:
        a, b = (load_arrays(folder.dataset / "nnUNetPlans_3d_fullres", case.case_id) for folder in (few, many))
        np.testing.assert_array_equal(a[0], b[0])


def test_options_of_the_plan_are_followed(local_ray, experiment_file, phantoms):
    prepared = prepare_cases(load(experiment_file, phantoms, plan={"target_spacing_mm": [2.0, 2.0, 2.0]}))
    plan = json.loads(prepared.plans.read_text())["configurations"]["3d_fullres"]
    assert plan["patch_size"] == [16, 16, 16]
    assert plan["batch_size"] == 2
    assert plan["spacing"] == [2.0, 2.0, 2.0]
    assert plan["architecture"]["arch_kwargs"]["features_per_stage"] == [4, 8]
    # the oracle lies on the same grid
    case = chosen_cases(load(experiment_file, phantoms))[0][0].case_id
    data, _, _ = load_arrays(prepared.dataset / "nnUNetPlans_3d_fullres", case)
    q = np.load(prepared.oracle / f"{case}.npy")
    assert q.shape == data.shape[1:]
    assert 0 <= q.min() <= q.max() <= 1.01


def test_a_process_that_has_trained_can_plan(local_ray, experiment_file, phantoms, monkeypatch):
    experiment = load(experiment_file, phantoms, plan={"batch_size": 5})
    prepared = prepare_cases(experiment)
    expected = prepared.plans.read_text()
    prepared.plans.unlink()
    for name, value in (nnunet_environment(prepared) | {"nnUNet_n_proc_DA": "0"}).items():
        monkeypatch.setenv(name, value)  # as a training leaves it
    cases, _ = chosen_cases(experiment)
    plan(prepared, experiment, survey_folder(experiment, cases), len(cases))
    assert prepared.plans.read_text() == expected


def test_oracle_is_cropped_like_the_case(local_ray, experiment_file, phantoms):
    experiment = load(experiment_file, phantoms)
    prepared = prepare_cases(experiment)
    case = chosen_cases(experiment)[0][0]
    _, seg, _ = load_arrays(prepared.dataset / "nnUNetPlans_3d_fullres", case.case_id)
    q = np.load(prepared.oracle / f"{case.case_id}.npy").astype(float)
    labels, _ = read_reference(case, task=paper_task())
    # a rater's tumour has q's volume up to its own draw, and lies where q is high
    assert q[seg[0] > 0].mean() > 0.8
    assert (seg > 0).sum() == (labels > 0).sum()


def test_a_patch_that_does_not_fit_is_named(local_ray, experiment_file, phantoms):
    with pytest.raises(ProblemsFound) as caught:
        prepare_cases(load(experiment_file, phantoms, plan={"patch_size": [15, 16, 16]}))
    (problem,) = caught.value.problems
    assert problem.where == "plan.patch_size"
    assert "[16, 16, 16]" in problem.advice


def test_a_stopped_preparation_goes_on_where_it_was(local_ray, experiment_file, phantoms):
    experiment = load(experiment_file, phantoms)
    prepared = prepare_cases(experiment)
    folder = prepared.dataset / "nnUNetPlans_3d_fullres"
    cases = sorted(file.stem for file in folder.glob("*.pkl"))
    before = {case: (folder / f"{case}.b2nd").stat().st_mtime_ns for case in cases}
    # as a kill leaves it: one case half done, the record of the end not written
    (folder / f"{cases[2]}.pkl").unlink()
    prepared.done.unlink()
    prepare_cases(experiment)
    after = {case: (folder / f"{case}.b2nd").stat().st_mtime_ns for case in cases}
    assert [case for case in cases if before[case] != after[case]] == [cases[2]]
    assert prepared.done.is_file()
    assert not list(folder.glob(".part-*"))


def test_other_plans_share_the_survey(local_ray, experiment_file, phantoms):
    experiment = load(experiment_file, phantoms)
    prepared = prepare_cases(experiment)
    steps = []
    again = load(experiment_file, phantoms, plan={"batch_size": 3})
    other = prepare_cases(again, progress=lambda what, done, _all: steps.append((what, done)))
    assert other.root != prepared.root
    assert "fingerprint" not in {what for what, _ in steps}
    fingerprints = {(folder.dataset / "dataset_fingerprint.json").read_text() for folder in (prepared, other)}
    assert len(fingerprints) == 1
    assert (
        json.loads(other.done.read_text())["digests"]["split"]
        == (json.loads(prepared.done.read_text())["digests"]["split"])
    )


def test_a_finished_preparation_is_returned_at_once(local_ray, experiment_file, phantoms):
    experiment = load(experiment_file, phantoms)
    prepared = prepare_cases(experiment)
    done = prepared.done.stat().st_mtime_ns
    steps = []
    assert prepare_cases(experiment, progress=lambda *step: steps.append(step)) == prepared
    assert steps == []
    assert prepared.done.stat().st_mtime_ns == done


def test_a_patch_larger_than_the_memory_target_is_refused(local_ray, experiment_file, phantoms):
    plan = dict.fromkeys(OURS) | {"patch_size": [128, 128, 128], "memory_target_gib": 1, "foreground_samples": 60_000}
    with pytest.raises(ProblemsFound) as caught:
        prepare_cases(load(experiment_file, phantoms, plan=plan))
    (problem,) = caught.value.problems
    assert problem.where == "plan.patch_size"
    assert "plan.memory_target_gib" in problem.advice


def test_naming_of_2018_gives_the_same_arrays(local_ray, experiment_file, phantoms, tmp_path):
    old = tmp_path / "cases"
    cases = sorted(folder.name for folder in phantoms.iterdir() if folder.is_dir())[:2]
    for case in cases:
        (old / case).mkdir(parents=True)
        for new, name in (("t1n", "t1"), ("t1c", "t1ce"), ("t2w", "t2"), ("t2f", "flair")):
            shutil.copy(phantoms / case / f"{case}-{new}.nii.gz", old / case / f"{case}_{name}.nii.gz")
        image = sitk.ReadImage(str(phantoms / case / f"{case}-seg.nii.gz"))
        labels = sitk.GetArrayFromImage(image)
        labels[labels == 3] = 4
        mapped = sitk.GetImageFromArray(labels)
        mapped.CopyInformation(image)
        sitk.WriteImage(mapped, str(old / case / f"{case}_seg.nii.gz"))
    storage = {"path": str(tmp_path / "storage")}
    ours = prepare_cases(load(experiment_file, phantoms)).dataset
    theirs = prepare_cases(load(experiment_file, old, storage=storage)).dataset
    for case in cases:
        a, b = (load_arrays(folder / "nnUNetPlans_3d_fullres", case) for folder in (ours, theirs))
        np.testing.assert_array_equal(a[1], b[1])
        np.testing.assert_allclose(a[0], b[0], atol=1e-6)


def test_bad_cases_among_good_ones_are_all_named(local_ray, experiment_file, phantoms, tmp_path):
    shutil.copytree(phantoms, tmp_path / "cases")
    for number, role in ((1, "t1c"), (3, "seg")):
        case = f"BraTS-GLI-{number:05d}-000"
        file = tmp_path / "cases" / case / f"{case}-{role}.nii.gz"
        file.write_bytes(file.read_bytes()[:500])
    (tmp_path / "cases" / "BraTS-GLI-00002-000" / "BraTS-GLI-00002-000-t2w.nii.gz").unlink()
    experiment = load(experiment_file, tmp_path / "cases", storage={"path": str(tmp_path / "storage")})
    with pytest.raises(ProblemsFound) as caught:
        prepare_cases(experiment)
    assert caught.value.exit_code == 1
    assert len(caught.value.problems) == 3
    # with the incomplete case left out, the others are still wrong
    dataset = experiment.dataset.model_copy(update={"exclude": ("BraTS-GLI-00002-000",)})
    with pytest.raises(ProblemsFound) as caught:
        prepare_cases(experiment.model_copy(update={"dataset": dataset}))
    assert len(caught.value.problems) == 2
    assert not list((tmp_path / "storage").rglob("prepared.json"))


def test_the_output_decides_the_labels(local_ray, experiment_file, phantoms):
    labels = prepare_cases(load(experiment_file, phantoms))
    regions = prepare_cases(load(experiment_file, phantoms, model={"output": "regions"}, loss={"weight_ce": None}))
    assert labels.root != regions.root
    content = json.loads((regions.dataset / "dataset.json").read_text())
    assert list(content["labels"]) == ["background", "WT", "TC", "ET"]
    assert content["regions_class_order"] == [2, 1, 3]


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"dataset": {"expected_cases": 7}}, "dataset.expected_cases"),
        ({"dataset": {"exclude": ["BraTS-GLI-00099-000"]}}, "dataset.exclude"),
        ({"split": {"folds": 6}}, "split.folds"),
    ],
)
def test_choices_of_cases_that_cannot_work_are_refused(experiment_file, phantoms, sections, field):
    with pytest.raises(ProblemsFound) as caught:
        chosen_cases(load_experiment(experiment_file(phantoms, **sections)))
    assert caught.value.exit_code == 2
    assert [problem.where for problem in caught.value.problems] == [field]


def test_cases_listed_in_a_file_are_excluded(experiment_file, phantoms, tmp_path):
    listed = tmp_path / "excluded.txt"
    listed.write_text("BraTS-GLI-00001-000\n\n")
    sections = {"dataset": {"exclude": str(listed), "expected_cases": 5}}
    cases, _ = chosen_cases(load_experiment(experiment_file(phantoms, **sections)))
    assert "BraTS-GLI-00001-000" not in {case.case_id for case in cases}


def test_images_are_linked_and_not_copied(local_ray, experiment_file, phantoms):
    experiment = load(experiment_file, phantoms)
    prepared = prepare_cases(experiment)
    for file in (prepared.raw_dataset / "imagesTr").iterdir():
        assert Path(os.path.realpath(file)).is_relative_to(phantoms)


def test_nnunets_preprocessor_saves_no_case_that_is_not_finite(local_ray, experiment_file, phantoms, tmp_path):
    """A value that the files' own check cannot foresee: it is put in behind that check."""
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    from uncseg.dataset.nnunet_case import LoadedCasePlans

    experiment = load(experiment_file, phantoms)
    prepared = prepare_cases(experiment)
    case = chosen_cases(experiment)[0][0]
    volumes = read_case_volumes(case, task=paper_task())
    voxels = volumes.images[1].voxels.astype(np.float32)
    voxels[5, 5, 5] = np.nan
    with_nan = (volumes.images[0], replace(volumes.images[1], voxels=voxels), *volumes.images[2:])
    content = read_json(prepared.plans)
    for images, refused in ((volumes.images, False), (with_nan, True)):
        plans = LoadedCasePlans(content, replace(volumes, images=images))
        described = plans, plans.get_configuration("3d_fullres"), read_json(prepared.dataset / "dataset.json")
        preprocessor, _ = checked(DefaultPreprocessor(verbose=False), experiment.dataset.task)
        with pytest.raises(ProblemsFound) if refused else contextlib.nullcontext() as caught, naming(case.case_id):
            preprocessor.run_case_save(str(tmp_path / str(refused)), [], "", *described)
        assert len(list(tmp_path.glob(f"{refused}*"))) == (0 if refused else 3)
    (problem,) = caught.value.problems
    assert problem.where == f"{case.case_id}, channel t1c after normalisation"
