"""What a model in MLflow says about itself: to programs in a JSON file, to people in a model card.

Both are written from a run's folder alone, so that MLflow can be filled again from it.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from uncseg.config.case_lists import short_lists
from uncseg.config.failures import LEARNERS
from uncseg.errors import DamagedFile
from uncseg.estimators.chosen_map import possible_choices
from uncseg.evaluation.expectation import (
    MAPS_IN_WORDS,
    REVIEW_BELOW,
    expected_dice_column,
    maps_of,
    review_thresholds,
)
from uncseg.evaluation.failure_table import failures_table, regions_table
from uncseg.evaluation.figures import shown_in
from uncseg.evaluation.page_tables import dice_table, uncertainty_table
from uncseg.files import read_json
from uncseg.layout import FAILURES_RECORD, RunFolder
from uncseg.page_table import UNKNOWN, PageTable, Row, fixed, listed
from uncseg.table_files import read_table
from uncseg.tasks.task import Task
from uncseg.tracking.manifest import read_manifest
from uncseg.tracking.run_settings import read_task

_SETTINGS = ("split", "plan", "model", "loss", "memory", "training", "evaluation")
HEADS = {"output_layer": "one more channel of the last layer", "decoder_stages": "own layers on all decoder stages"}
SOURCES = {
    "cases": "the running average of the network's own errors",
    "visit": "the failures of each training step",
    "teacher": "the errors of a copy with averaged weights",
    "members": "where the members of the run {run} disagree with the network's own decision",
    "cross_fitted": "what the folds of the run {run} have learnt from each other's failures",
}
"""What a head is trained on, by ``memory.source``."""
LEARNS_BY = {"perceptron": "a perceptron of {} units", "trees": "{} boosted trees", "steps": "a network, {} steps"}
"""What learns from the other folds' failures, by the field of ``failures`` that is not 0."""
_APPLIED = ("tile_step", "mirroring", "uncertainty")
"""Settings of the evaluation that a model is applied with."""


def describe_model(
    run: RunFolder, experiment: Mapping[str, Any], tags: Mapping[str, str], folds: Sequence[int]
) -> dict[str, Any]:
    """Return the content of uncseg.json for the model of a run that is finished and evaluated; NaN is null.

    Returns:
        ``run``, ``folds``, ``cases`` (number), ``dataset`` (name), ``synthetic``, ``digests``, ``git_commit``,
        ``versions``, ``settings``, ``configuration``, ``task`` (name), ``channels`` in order, ``labels`` by number,
        ``regions`` with the numbers of their labels, ``main_region``, ``failures`` (of each fold,
        the settings of what it has learnt from failures); for ``uncseg predict``:
        ``evaluation`` (tile_step, mirroring, uncertainty), ``review_below``, ``review_thresholds`` (by map);
        ``uncertainty_from`` (in words); and out of fold ``calibration`` (region →
        figure → mean over cases) and ``reliability`` (rows of the diagram).
    """
    manifest, per_case = read_manifest(run.manifest), read_table(run.tables, "per_case")
    summary, bins = read_table(run.tables, "scores_summary"), read_table(run.tables, "scores_reliability")
    evaluation, dataset = experiment.get("evaluation") or {}, experiment.get("dataset") or {}
    settings, task = short_lists(experiment), read_task(run)
    has_head = bool((experiment.get("model") or {}).get("uncertainty", True))
    choices, thresholds = possible_choices(evaluation.get("uncertainty"), has_head), review_thresholds(per_case, task)
    return {
        "run": run.root.name,
        "folds": list(folds),
        "cases": 0 if per_case is None else len(per_case),
        "dataset": dataset.get("name"),
        "synthetic": dataset.get("phantoms") is not None,
        "digests": manifest.get("digests", {}),
        "git_commit": tags.get("git_commit"),
        "versions": manifest.get("versions", {}),
        "settings": {part: settings[part] for part in _SETTINGS if part in settings},
        "configuration": (experiment.get("plan") or {}).get("configuration"),
        "task": task.name,
        "channels": list(task.modalities),
        "labels": {str(value): name for name, value in task.labels.items()},
        "regions": {region: list(numbers) for region, numbers in task.numbers.items()},
        "main_region": task.main_region,
        "failures": _failures(run, folds),
        "evaluation": {name: evaluation[name] for name in _APPLIED if name in evaluation},
        "review_below": next((thresholds[name] for name in choices if name in thresholds), REVIEW_BELOW),
        "review_thresholds": thresholds,
        "uncertainty_from": list(maps_of(per_case)),
        "calibration": {} if summary is None else _calibration(summary),
        "reliability": [] if bins is None else [_plain(row) for row in bins.to_dict("records")],
    }


def _failures(run: RunFolder, folds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the settings of what each fold has learnt from failures, which may have been given after the training."""
    found = []
    for file in (run.fold(fold) / FAILURES_RECORD for fold in folds):
        with contextlib.suppress(DamagedFile):  # as one that is not there
            found += [read_json(file).get("settings", {})] if file.is_file() else []
    return found


def model_identity(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a description that tells models apart: all but what the last command ran on, and what failures
    taught, which the model's files hold."""
    return {name: value for name, value in about.items() if name not in ("git_commit", "versions", "failures")}


def _calibration(summary: pd.DataFrame) -> dict[str, dict[str, Any]]:
    shown = summary[summary["figure"].isin(list(shown_in("card")))]
    return {
        str(region): _plain(dict(zip(rows["figure"], rows["mean"], strict=True)))
        for region, rows in shown.groupby("region", sort=False)
    }


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(k): None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def write_card(run: RunFolder, about: Mapping[str, Any], registered: str, alias: str) -> str:
    """Return the model card, Markdown, from the result of :func:`describe_model` and the name and alias it gets."""
    first, second, third, fourth = (read_table(run.tables, f"table{number}") for number in (1, 2, 3, 4))
    task = read_task(run)
    last_epochs = about["settings"].get("evaluation", {}).get("last_epochs")
    parts = [
        _opening(about, registered, task),
        _use(len(task.modalities), about["uncertainty_from"]),
        _interface(task, about["review_below"]),
        "" if first is None else dice_table(first, task).to_markdown(2),
        "" if third is None else failures_table(third, task).to_markdown(2),
        "" if fourth is None else regions_table(fourth).to_markdown(2),
        "" if second is None else uncertainty_table(second, last_epochs, task).to_markdown(2),
        _calibrated(about),
        _loading(f"{registered}@{alias}", len(about["folds"]), task),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _opening(about: Mapping[str, Any], registered: str, task: Task) -> str:
    settings, training = about["settings"], about["settings"].get("training", {})
    kind = "with an uncertainty head" if settings.get("model", {}).get("uncertainty", True) else "without the head"
    cases = f"{'synthetic cases (phantoms), ' if about['synthetic'] else ''}{about['cases']} cases"
    folds = ", ".join(map(str, about["folds"]))
    rows = {
        "what": f"nnU-Net {kind}, {about['configuration']}, {training.get('epochs')} epochs",
        "task": f"{task.name}: {task.title}" if task.title else task.name,
        "trained on": f"{about['dataset']}: {cases}, digest {about['digests'].get('dataset')}",
        "folds": f"{folds}: each was trained on the cases of the others; predictions are their average",
        "split": f"{_split(settings.get('split', {}))}, digest {about['digests'].get('split')}",
        **_learnt(settings, about.get("failures", [])),
        "code": about["git_commit"] or "not under version control",
        "versions": ", ".join(f"{name} {version}" for name, version in sorted(about["versions"].items())),
    }
    note = f"Segmentation of {listed(task.regions)}, and where it may be wrong. Run {about['run']}."
    header = ("", registered)
    return PageTable("model", registered, header, [Row(row) for row in rows.items()], note, words=header).to_markdown(1)


def _learnt(settings: Mapping[str, Any], failures: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return in words how the uncertainty head is built and what it has learnt, and what failures taught each fold."""
    model, memory = (settings.get(part) or {} for part in ("model", "memory"))
    judged, rows = model.get("error_network"), {}
    if judged is not None:
        rows["uncertainty map"] = f"a second network, which judges the run {judged.get('run')}"
    elif model.get("uncertainty", True):
        beside = ", added to calibrated p" if model.get("residual") else ""
        source = SOURCES[memory.get("source", "cases")].format(run=memory.get("run"))
        if memory.get("published") is not None:
            source += ", averaged as memory.published says"
        rows["uncertainty map"] = f"{HEADS[model.get('head', 'output_layer')]}{beside}; trained on {source}"
    if model.get("uncertainty", True):
        rows["mask of the loss"] = str(settings.get("loss", {}).get("cancer_mask"))
    learnt = {LEARNS_BY[name].format(own[name]) for own in failures for name in LEARNERS if own.get(name)}
    if learnt:
        rows["failures"] = f"learnt from the other folds by {' or '.join(sorted(learnt))}, beside calibrated p"
    return rows


def _split(settings: Mapping[str, Any]) -> str:
    """Return in words how the folds were made."""
    shared = "; a patient may be in several" if settings.get("allow_shared_patients") else ""
    if not settings.get("file") and not settings.get("groups"):
        return f"case by case{shared}" if settings.get("drawn") == "cases" else "by patient"
    return ("each fold leaves out a group" if settings.get("groups") else "one's own, from a file") + shared


def _use(images: int, maps: Sequence[str]) -> str:
    of_map = f"The uncertainty is {' or '.join(maps)}." if maps else "There is no uncertainty map."
    if MAPS_IN_WORDS["head"] in maps:
        of_map += " A head is trained on the error inside the mask named above and means little elsewhere."
    shown = "one image" if images == 1 else f"{images} co-registered images"
    return f"""## Use and limits

For research. Not a medical device: no decision about a patient may rest on it.

The model was trained on what its training cases show, {shown} each, which a new case needs as well, prepared alike
(those of BraTS: without the skull). How it performs on images of other scanners, other diseases, other ages, or before
or after other treatment is not known. The expected Dice ranks cases for review; it must not be quoted as a measured
Dice. {of_map} Table 3
holds it against the floors, the maps of the same network that need no training."""


def _interface(task: Task, review_below: float) -> str:
    channels = ", ".join(f"{number} {task.described(name)}" for number, name in enumerate(task.modalities))
    labels = ", ".join(f"{value} {task.described(name)}" for name, value in task.labels.items())
    regions = "; ".join(f"{task.described(name)} of {', '.join(labels)}" for name, labels in task.regions.items())
    main = task.described(task.main_region)
    return f"""## Input and output

Channels: {channels}. Labels: 0 background, {labels}.
Regions: {regions}.
Uncertainty: 0 to 1, to be read as the probability that a voxel is wrong about {main} (see the calibration below),
inside the prediction dilated by 2 voxels.
Review: a case is marked for review if its expected Dice of {main} is below {review_below:.3f}, or nothing of it was
found."""


def _calibrated(about: Mapping[str, Any]) -> str:
    if not about["calibration"]:
        return ""
    figures = [name for name in shown_in("card") if any(name in known for known in about["calibration"].values())]
    rows = [
        Row([region, *(UNKNOWN if known.get(name) is None else fixed(known[name], 3) for name in figures)])
        for region, known in about["calibration"].items()
    ]
    note = (
        "Means over cases; ece, ace, auroc_brain and qu_score in the brain. The bins of the reliability diagram are in "
        "uncseg.json. qu_score_always_certain is the QU score of a map of zeros."
    )
    return PageTable("calibration", "Calibration, out of fold", ["region", *figures], rows, note).to_markdown(2)


def _loading(uri: str, folds: int, task: Task) -> str:
    numbers, images = " ".join(map(str, range(folds))), len(task.modalities)
    files = "CASE_0000.nii.gz" + (f" to CASE_{images - 1:04d}.nii.gz" if images > 1 else "")
    return f"""## How to load it

With uncseg installed and `MLFLOW_TRACKING_URI` set:

```
uncseg predict models:/{uri} CASES OUTPUT
```

```python
import mlflow
model = mlflow.pyfunc.load_model("models:/{uri}")
found = model.predict({{"image": image, "spacing_mm": (1, 1, 1)}})  # ({images}, D, H, W), channels as above
found["labels"], found["uncertainty"], found["{expected_dice_column(task)}"]
```

With nnU-Net's own command, in the folder that `mlflow artifacts download -u models:/{uri} -d FOLDER` creates (images
are named {files}; nnUNet_extTrainer names the folder of uncseg/method/for_nnunet):

```
nnUNetv2_predict_from_modelfolder -m FOLDER -i IMAGES -o OUTPUT -f {numbers}
```"""
