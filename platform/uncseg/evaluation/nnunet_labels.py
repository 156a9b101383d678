"""What the masks in a folder of nnU-Net's mean: its datasets and predictions say so in dataset.json."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from uncseg.dataset.labels import CONVENTION_LABELS, LABELS, Convention
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json
from uncseg.method.inference.label_meaning import label_numbers
from uncseg.tasks.built_in_tasks import paper_task

_ABOVE = {"labels*": 1, "gt_segmentations": 1, "validation*": 2}
"""How far above nnU-Net's folders of masks dataset.json lies."""


def nnunet_convention(folder: Path, option: str) -> Convention | None:
    """Return the convention that nnU-Net's dataset.json gives the labels of its masks.

    It lies beside predictions, above labelsTr and gt_segmentations, and above a fold that has a folder validation.

    nnU-Net's own BraTS datasets and the Medical Segmentation Decathlon call oedema 1, in place of 2, so their masks
    would be scored as others.

    Args:
        folder: of masks.
        option: that sets a convention.

    Returns:
        The convention; None where there is no dataset.json of nnU-Net's.

    Raises:
        ProblemsFound: the labels are of neither convention.
    """
    folder = folder.resolve()
    above = next((number for pattern, number in _ABOVE.items() if fnmatch(folder.name, pattern)), 0)
    file = next(
        (file for place in (folder, *folder.parents[:above]) if (file := place / "dataset.json").is_file()), None
    )
    labels = None if file is None else _labels(file)
    if file is None or labels is None:
        return None
    advice = f"number them so, or give {option} if the masks have these labels"
    meaning = label_numbers(labels, paper_task())
    if meaning is None:
        problem = Problem(str(file), f"labels {labels}", "NCR, ED and ET, or WT, TC and ET", advice)
        raise ProblemsFound("The masks cannot be scored.", [problem], exit_code=1)
    for convention, values in CONVENTION_LABELS.items():
        if meaning == dict(zip(values[1:], LABELS.values(), strict=True)):
            return convention
    names = {value: name for name, value in LABELS.items()}
    found = "labels " + ", ".join(f"{value} {names[label]}" for value, label in sorted(meaning.items()))
    expected = "labels " + ", ".join(f"{value} {name}" for name, value in LABELS.items())
    problem = Problem(str(file), found, expected, advice)
    raise ProblemsFound("The masks have other labels.", [problem], exit_code=1)


def _labels(file: Path) -> dict[str, Any] | None:
    """Return labels by name; the Medical Segmentation Decathlon lists them the other way round."""
    try:
        labels = read_json(file)["labels"]
        if all(isinstance(name, str) for name in labels.values()):
            labels = {name: int(value) for value, name in labels.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return labels if isinstance(labels, dict) else None
