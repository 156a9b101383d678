"""What a model in MLflow says of itself: to programs in a JSON file, to people in a model card.

Read from a run's folder alone, so that MLflow can be filled again from it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from uncseg.dataset.brats import LABELS, MODALITIES
from uncseg.evaluation.expectation import review_threshold
from uncseg.evaluation.tables import DICE_COLUMNS, mean_sd
from uncseg.layout import RunFolder
from uncseg.table_files import read_table
from uncseg.tracking.manifest import read_manifest

CALIBRATION = (
    "ece",
    "ace",
    "auroc_brain",
    "auroc_band",
    "aurc",
    "e_aurc",
    "spearman_uncertainty_dice",
    "qu_score",
    "qu_score_always_certain",
)
_SETTINGS = ("split", "plan", "model", "loss", "memory", "training", "evaluation")
_NOT_OF_THE_MODEL = ("git_commit", "versions")
MODALITY_NAMES = {"t1n": "T1", "t1c": "T1 with contrast", "t2w": "T2", "t2f": "FLAIR"}
LABEL_NAMES = {"NCR": "necrotic core", "ED": "oedema", "ET": "enhancing tumour"}


def describe_model(
    run: RunFolder, experiment: Mapping[str, Any], tags: Mapping[str, str], folds: Sequence[int]
) -> dict[str, Any]:
    """What goes into uncseg.json; NaN is null.

    Args:
        run: finished and evaluated.
        experiment: as resolved.
        tags: of its run in MLflow.
        folds: whose weights the model has.

    Returns:
        ``run``, ``folds``, ``cases`` (number), ``dataset`` (name), ``synthetic``, ``digests``,
        ``git_commit``, ``versions``, ``settings``, ``configuration``, ``channels`` in order, ``labels``; how
        ``uncseg predict`` uses it: ``evaluation`` (tile_step, mirroring), ``review_below``; and out of fold
        ``calibration`` (region → figure → mean over cases) and ``reliability`` (rows of the diagram).
    """
    manifest, per_case = read_manifest(run.manifest), read_table(run.tables, "per_case")
    summary, bins = read_table(run.tables, "scores_summary"), read_table(run.tables, "scores_reliability")
    evaluation, dataset = experiment.get("evaluation") or {}, experiment.get("dataset") or {}
    return {
        "run": run.root.name,
        "folds": list(folds),
        "cases": 0 if per_case is None else len(per_case),
        "dataset": dataset.get("name"),
        "synthetic": dataset.get("phantoms") is not None,
        "digests": manifest.get("digests", {}),
        "git_commit": tags.get("git_commit"),
        "versions": manifest.get("versions", {}),
        "settings": {part: experiment[part] for part in _SETTINGS if part in experiment},
        "configuration": (experiment.get("plan") or {}).get("configuration"),
        "channels": list(MODALITIES),
        "labels": {str(value): name for name, value in LABELS.items()},
        "evaluation": {name: evaluation[name] for name in ("tile_step", "mirroring") if name in evaluation},
        "review_below": review_threshold(per_case),
        "calibration": {} if summary is None else _calibration(summary),
        "reliability": [] if bins is None else [_plain(row) for row in bins.to_dict("records")],
    }


def what_it_predicts(about: Mapping[str, Any]) -> dict[str, Any]:
    """The part of it that makes another model; what the last command ran on does not."""
    return {name: value for name, value in about.items() if name not in _NOT_OF_THE_MODEL}


def _calibration(summary: pd.DataFrame) -> dict[str, dict[str, Any]]:
    wanted = summary[summary["figure"].isin(CALIBRATION)]
    return {
        str(region): _plain(dict(zip(rows["figure"], rows["mean"], strict=True)))
        for region, rows in wanted.groupby("region", sort=False)
    }


def _plain(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(k): None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def write_card(run: RunFolder, about: Mapping[str, Any], registered: str, alias: str) -> str:
    """The model card, Markdown.

    Args:
        run: finished and evaluated.
        about: of :func:`describe_model`.
        registered: name in MLflow's registry.
        alias: under which it is found there.
    """
    parts = [
        _opening(about, registered),
        _USE,
        _interface(about),
        _dice(read_table(run.tables, "table1")),
        _uncertainty(read_table(run.tables, "table2"), about),
        _calibrated(about),
        _loading(f"{registered}@{alias}", len(about["folds"])),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _opening(about: Mapping[str, Any], registered: str) -> str:
    settings, training = about["settings"], about["settings"].get("training", {})
    kind = "with an uncertainty head" if settings.get("model", {}).get("uncertainty", True) else "without the head"
    synthetic = "synthetic cases (phantoms), " if about["synthetic"] else ""
    rows = [
        ("what", f"nnU-Net {kind}, {about['configuration']}, {training.get('epochs')} epochs"),
        (
            "trained on",
            f"{about['dataset']}: {synthetic}{about['cases']} cases, digest {about['digests'].get('dataset')}",
        ),
        (
            "folds",
            f"{', '.join(map(str, about['folds']))}: each has trained on the cases of the others, all predict together",
        ),
        ("split", f"by patient, digest {about['digests'].get('split')}"),
        ("mask of the loss", settings.get("loss", {}).get("cancer_mask")),
        ("code", about["git_commit"] or "not under version control"),
        ("versions", ", ".join(f"{name} {version}" for name, version in sorted(about["versions"].items()))),
    ]
    title = (
        f"# {registered}\n\nSegmentation of brain tumours in MRI, and where it may be wrong. Run {about['run']}.\n\n"
    )
    return title + _table(("", ""), rows)


_USE = """## Use and limits

For research. Not a medical device: no decision about a patient may rest on it.

It knows tumours as its training cases show them: four co-registered images without the skull. What it makes of other
scanners, diseases, children or scans after surgery is not known. The expected Dice ranks cases for review; it is no
Dice to quote. The uncertainty was trained on the error inside the mask named above, and means little elsewhere: compare
it with the floors."""


def _interface(about: Mapping[str, Any]) -> str:
    channels = ", ".join(f"{number} {name} ({MODALITY_NAMES[name]})" for number, name in enumerate(about["channels"]))
    labels = ", ".join(f"{value} {name} ({LABEL_NAMES[name]})" for value, name in about["labels"].items())
    return f"""## Input and output

Channels: {channels}. Labels: 0 background, {labels}.
Uncertainty: 0 to 1, meant as the probability that a voxel is wrong (how far it is: StepTiming), inside the prediction
dilated by 2 voxels.
Review: expected Dice of the whole tumour below {about["review_below"]:.3f}, or no tumour."""


def _dice(table: pd.DataFrame | None) -> str:
    if table is None:
        return ""
    rows = []
    for model, of_model in table.groupby("model", sort=False):
        mean, sd = (of_model[of_model["fold"] == name].iloc[0] for name in ("mean", "sd"))
        figures = [mean_sd(mean[column], sd[column], 3, " ± ") for column in DICE_COLUMNS]
        rows.append((model, mean["cases"], *figures))
    return (
        "## Table 1. Dice, out of fold\n\nEach case by the fold that did not see it; mean ± sd over folds.\n\n"
        + _table(("", "cases", *DICE_COLUMNS.values()), rows)
    )


def _uncertainty(table: pd.DataFrame | None, about: Mapping[str, Any]) -> str:
    if table is None:
        return ""
    columns = {
        "corr_ema_last": "corr, error memory",
        "corr_failure": "corr, failure",
        "rmsd_ema_last": "RMSD, error memory",
        "rmsd_failure": "RMSD, failure",
    }
    rows = []
    for row in table.to_dict("records"):
        name = f"{row['estimator']}{', a floor' if row['floor'] else ''}"
        figures = [mean_sd(row[column], row[f"{column}_std"], 3, " ± ") for column in columns]
        rows.append((f"{row['protocol']} mask", name, *figures))
    last = about["settings"].get("evaluation", {}).get("last_epochs")
    return (
        "## Table 2. Uncertainty against error\n\nMean ± sd over folds. Reference mask: inside the reference tumour, "
        "the paper's protocol, which cannot see false positives. Union mask: reference or prediction, dilated by 2 "
        f"voxels. Error memory: validation patches, last {last} epochs; failure: out of fold. A floor needs no "
        "training.\n\n" + _table(("mask", "estimator", *columns.values()), rows)
    )


def _calibrated(about: Mapping[str, Any]) -> str:
    if not about["calibration"]:
        return ""
    figures = [name for name in CALIBRATION if any(name in known for known in about["calibration"].values())]
    rows = [
        (region, *("–" if known.get(name) is None else f"{known[name]:.3f}" for name in figures))
        for region, known in about["calibration"].items()
    ]
    return (
        "## StepTiming, out of fold\n\nMeans over cases; ece, ace, auroc_brain and qu_score in the brain. "
        "The reliability diagram's 20 bins are in uncseg.json. qu_score_always_certain is that of a map of zeros.\n\n"
        + _table(("region", *figures), rows)
    )


def _loading(uri: str, folds: int) -> str:
    numbers = " ".join(map(str, range(folds)))
    return f"""## How to load it

With uncseg installed and `MLFLOW_TRACKING_URI` set:

```
uncseg predict models:/{uri} CASES OUTPUT
```

```python
import mlflow
model = mlflow.pyfunc.load_model("models:/{uri}")
found = model.predict({{"image": image, "spacing_mm": (1, 1, 1)}})  # (4, D, H, W), in the order of the channels above
found["labels"], found["uncertainty"], found["expected_dice_wt"]
```

By nnU-Net's own command, in the folder that `mlflow artifacts download -u models:/{uri} -d FOLDER` makes (images as
CASE_0000.nii.gz to CASE_0003.nii.gz; nnUNet_extTrainer names the folder of uncseg/method/for_nnunet):

```
nnUNetv2_predict_from_modelfolder -m FOLDER -i IMAGES -o OUTPUT -f {numbers}
```"""
