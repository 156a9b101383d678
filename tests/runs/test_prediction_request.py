"""What a new case's prediction depends on: any option, setting, checkpoint or input file that changes makes it anew."""

import json
import os
import shutil
from dataclasses import fields, replace

import pytest

from uncseg.config.sections import Evaluation, Resources
from uncseg.dataset.cases import Case
from uncseg.method.inference.model_folder import ModelFolder
from uncseg.method.settings import TrainerSettings
from uncseg.runs.model_sources import PredictionModel
from uncseg.runs.prediction_request import PredictionOptions, PredictionRequest
from uncseg.tasks.built_in_tasks import built_in
from uncseg.tasks.task import Task

CHANNELS = {"0": "T1n", "1": "T1c", "2": "T2w", "3": "T2f"}
CHANGED = {
    "probabilities": True,
    "overlays": True,
    "mirroring": True,
    "review_below": 0.5,
    "scores": True,
    "scored_as": built_in("met"),
}


@pytest.fixture
def case(tmp_path):
    images = tuple(tmp_path / f"case_{channel:04d}.nii.gz" for channel in range(4))
    for file in (*images, tmp_path / "case.nii.gz"):
        file.write_bytes(b"image")
    return Case("case", "case", images, tmp_path / "case.nii.gz", "2023")


@pytest.fixture
def of_two_folds(tmp_path):
    for fold in (0, 1):
        checkpoint = tmp_path / "model" / f"fold_{fold}" / "checkpoint_final.pth"
        checkpoint.parent.mkdir(parents=True)
        checkpoint.write_bytes(b"weights")
    plans, labels = TrainerSettings().into_plans({}), {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
    (tmp_path / "model" / "plans.json").write_text(json.dumps(plans))
    (tmp_path / "model" / "dataset.json").write_text(json.dumps({"labels": labels, "channel_names": CHANNELS}))
    folder = ModelFolder(tmp_path / "model", "3d_fullres")
    model = PredictionModel(folder, (0, 1), Resources(), Evaluation(), review_below={"head": 0.8})
    return PredictionRequest(model, PredictionOptions(), tmp_path / "out", threads=1)


@pytest.mark.parametrize("option", [option.name for option in fields(PredictionOptions)])
def test_every_option_changes_what_a_prediction_depends_on(of_two_folds, case, option):
    other = replace(of_two_folds, options=replace(of_two_folds.options, **{option: CHANGED[option]}))
    assert other.sources([case]) != of_two_folds.sources([case])


def test_an_option_that_repeats_the_model_changes_nothing(of_two_folds, case):
    same = replace(of_two_folds, options=PredictionOptions(mirroring=False, review_below=0.8))
    assert same.sources([case]) == of_two_folds.sources([case])


@pytest.mark.parametrize("evaluation", [{"tile_step": 0.25}, {"estimators": {"one_pass": ["entropy"]}}])
def test_settings_of_the_evaluation_count_if_predictions_depend_on_them(of_two_folds, case, evaluation):
    def sources(**settings):
        model = replace(of_two_folds.model, evaluation=Evaluation.model_validate(settings))
        return replace(of_two_folds, model=model).sources([case])

    assert sources(**evaluation) != of_two_folds.sources([case])
    assert sources(baseline="another") == of_two_folds.sources([case])


def test_folds_checkpoints_and_images_count_and_references_only_if_they_are_scored(of_two_folds, case):
    before = of_two_folds.sources([case])
    scored = replace(of_two_folds, options=PredictionOptions(scores=True))
    scored_before = scored.sources([case])
    case.reference.write_bytes(b"another reference")
    assert of_two_folds.sources([case]) == before
    assert scored.sources([case]) != scored_before
    other = replace(case, convention="2018")
    assert of_two_folds.sources([other]) == before
    assert scored.sources([other]) != scored.sources([case])
    case.images[2].write_bytes(b"another image")
    assert (changed := of_two_folds.sources([case])) != before
    of_two_folds.model.folder.checkpoint(1).write_bytes(b"other weights")
    assert of_two_folds.sources([case]) != changed
    assert replace(of_two_folds, model=replace(of_two_folds.model, folds=(0,))).sources([case]) != changed


def test_the_values_of_labels_count_whatever_their_convention_is_called(of_two_folds, case):
    fields = built_in("gli-2023").model_dump(mode="json")
    values = {"NCR": 3, "ED": 2, "ET": 1}
    other = Task.model_validate(
        {**fields, "conventions": {"2023": {**fields["conventions"]["2023"], "values": values}}}
    )
    scored = [
        replace(of_two_folds, options=PredictionOptions(scores=True, scored_as=t))
        for t in (built_in("gli-2023"), other)
    ]
    assert scored[0].sources([case]) != scored[1].sources([case])


def test_files_count_by_content_and_not_by_place_or_time(of_two_folds, case, tmp_path):
    before = of_two_folds.sources([case])
    shutil.copytree(tmp_path, copy := tmp_path.with_name(f"{tmp_path.name}_copy"))
    images = tuple(copy / file.name for file in case.images)
    model = replace(of_two_folds.model, folder=ModelFolder(copy / "model", "3d_fullres"))
    moved = replace(of_two_folds, model=model)
    for file in copy.rglob("*"):
        os.utime(file, ns=(0, 0))
    copied = replace(case, images=images, reference=copy / "case.nii.gz")
    assert moved.sources([copied]) == before
    for file, other in ((images[1], b"IMAGE"), (model.folder.checkpoint(1), b"WEIGHTS")):
        content = file.read_bytes()
        file.write_bytes(other)  # of the same size
        os.utime(file, ns=(0, 0))
        assert moved.sources([copied]) != before
        file.write_bytes(content)
    assert moved.sources([copied]) == before
