"""Rules of a task: what contradicts itself, one line per problem, "FIELD what is wrong; what to do"."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import combinations

from uncseg.errors import did_you_mean
from uncseg.tasks.fields import ORACLE, TaskFields

RESERVED = ("background", "mean", "uncertainty", "error", "ignore", "all")
"""Names that columns and files have for something else."""
MAPS = (
    *("seg", "uncertainty_unmasked", "between_folds", "variance_stable", "var1shot", "entropy", "constant", "oracle"),
    *("min_p", "one_minus_p", "one_minus_max", "border_distance", "calibrated", "cross_fitted"),
    *(f"mc_dropout_{part}" for part in ("total", "aleatoric", "epistemic", "entropy")),
    *(f"deep_ensemble_{part}" for part in ("total", "aleatoric", "epistemic", "entropy")),
    *(f"augmentation_{part}" for part in ("total", "variance", "entropy")),
    *(f"heteroscedastic_{part}" for part in ("total", "variance", "entropy")),
)
"""Names of masks and maps. CASE_REGION.nii.gz is the map of a region, so that a region has no such name."""
SUFFIXES = ("_probability", "_calibrated", "_cross_fitted", "_std", "_sd")
"""Ends of names of maps and columns."""
MOST_LESIONS = 30
"""Bodies of the main region that a phantom has room for."""

MOST_LABELS = 255
"""Labels that a mask of one byte per voxel holds."""

LARGEST_VALUE = 2**24
"""Largest value of a label: all whole numbers up to it are exact in single precision."""
LONGEST_NAME = 100
"""Bytes of the name of a phantom."""


def problems_of_task(task: TaskFields) -> list[str]:
    """Return every contradiction among the fields of a task."""
    return [
        *_problems_of_names(task),
        *_problems_of_labels(task),
        *_problems_of_regions(task),
        *_problems_of_conventions(task),
        *_problems_of_patterns(task),
        *_problems_of_phantoms(task),
    ]


def problems_of_drawing(task: TaskFields) -> list[str]:
    """Return why regions do not tell labels, which a network with ``model.output: regions`` has to."""
    problems = []
    if all(len(labels) == 1 for labels in task.regions.values()):
        problems.append(
            "dataset.task has no region of several labels, and nnU-Net takes regions of one label each for labels; "
            "set `model.output` to labels"
        )
    for region, labels in own_labels(task).items():
        if len(labels) != 1:
            what = (
                f"cannot tell {' and '.join(labels)} apart" if labels else "has no label outside the regions within it"
            )
            advice = "add a region for each of them but one" if labels else f"leave {region} out"
            problems.append(
                f"dataset.task region {region} {what}, which model.output: regions needs; {advice}, or set "
                "`model.output` to labels"
            )
    return problems


def own_labels(task: TaskFields) -> dict[str, list[str]]:
    """Return the labels of each region that are in none of the regions within it."""
    return {
        region: [
            label
            for label in labels
            if not any(label in part for part in task.regions.values() if set(part) < set(labels))
        ]
        for region, labels in task.regions.items()
    }


def _problems_of_names(task: TaskFields) -> Iterator[str]:
    fields = {"modalities": task.modalities, "labels": task.labels, "regions": task.regions}
    for field, names in fields.items():
        for name in _repeated(name.lower() for name in names):
            yield f"{field} {name} is there twice, where upper and lower case make no difference; rename one of them"
        for name in names:
            if name.lower() in (*RESERVED, *(("seg",) if field == "modalities" else ())):
                yield f"{field} {name} is a name that has another meaning in tables and files; rename it"
    for name in task.regions:
        if name.lower() in MAPS or name.lower().endswith(SUFFIXES):
            yield f"regions {name} is, or ends as, the name of a map or column of something else; rename it"
    if task.shown is not None and task.shown not in task.modalities:
        advice = did_you_mean(task.shown, task.modalities, f"write one of {', '.join(task.modalities)}")
        yield f"shown is {task.shown}, which is no modality; {advice}"
    for name in task.other_names:
        if name not in task.labels and name not in task.modalities:
            advice = did_you_mean(name, (*task.labels, *task.modalities), "correct or remove it")
            yield f"other_names.{name} is neither a label nor a modality; {advice}"
    for name in task.meanings:
        known = (*task.modalities, *task.labels, *task.regions)
        if name not in known:
            advice = did_you_mean(name, known, "correct or remove it")
            yield f"meanings.{name} is neither a modality nor a label nor a region; {advice}"


def _problems_of_labels(task: TaskFields) -> Iterator[str]:
    if len(task.labels) > MOST_LABELS:
        yield f"labels are {len(task.labels)}, and masks hold at most {MOST_LABELS}; leave some out"
    if list(task.labels.values()) != list(range(1, len(task.labels) + 1)):
        found = ", ".join(f"{name} {value}" for name, value in task.labels.items())
        in_order = sorted(task.labels, key=lambda name: task.labels[name])
        right = ", ".join(f"{name}: {number}" for number, name in enumerate(in_order, 1))
        without_gap = sorted(task.labels.values()) == list(range(1, len(task.labels) + 1))
        more = "in this order" if without_gap else "and the values in masks under conventions.NAME.values"
        yield f"labels are {found}, and a network numbers them from 1 without a gap; write {{{right}}}, {more}"


def _problems_of_regions(task: TaskFields) -> Iterator[str]:
    known: dict[str, set[str]] = {}
    for region, labels in task.regions.items():
        if unknown := [label for label in labels if label not in task.labels]:
            advice = did_you_mean(unknown[0], task.labels, f"use {', '.join(task.labels)}")
            yield f"regions.{region} names {', '.join(unknown)}, which is no label; {advice}"
            continue
        for label in _repeated(labels):
            yield f"regions.{region} names {label} twice; write it once"
        known[region] = set(labels)
    if len(known) == len(task.regions):
        within = set[str]().union(*known.values())
        for label in task.labels:
            if label not in within:
                yield f"regions hold no label {label}, so it has no score; add {label}: [{label}], or leave it out"
    for (first, one), (second, other) in combinations(known.items(), 2):
        if one == other:
            yield f"regions {first} and {second} have the same labels; keep one of them"
        elif one < other:
            yield f"regions {first} lies within {second}, which is drawn over it; write {second} before {first}"
        elif one & other and not other < one:
            shared = ", ".join(sorted(one & other, key=list(task.labels).index))
            yield (
                f"regions {first} and {second} share {shared}, and neither lies within the other; "
                "make one of them part of the other, or separate them"
            )
    if task.main_region not in task.regions:
        advice = did_you_mean(task.main_region, task.regions, f"write one of {', '.join(task.regions)}")
        yield f"main_region is {task.main_region}, which is no region; {advice}"


def _problems_of_conventions(task: TaskFields) -> Iterator[str]:
    used: dict[str, tuple[str, str]] = {}
    for name, convention in task.conventions.items():
        field = f"conventions.{name}"
        yield from _differences(f"{field}.images", convention.images, task.modalities, "modality")
        roles = [(role, ending.lower()) for role, ending in (*convention.images.items(), ("seg", convention.mask))]
        for ending in _repeated(ending for _, ending in roles):
            yield f"{field} has the ending {ending} twice; give each file an ending of its own"
        for ending in (ending for _, ending in roles if ending.endswith((".nii", ".nii.gz"))):
            yield f"{field} has the ending {ending}, and .nii or .nii.gz follows by itself; leave it out"
        if ORACLE in (ending for _, ending in roles):
            yield f"{field} has the ending {ORACLE}, which true probabilities of phantoms have; take another one"
        for role, ending in roles:
            known_role, known_name = used.setdefault(ending, (role, name))
            if known_name != name and known_role != role:
                yield (
                    f"{field} gives the ending {ending} to {role}, and conventions.{known_name} to {known_role}; "
                    "give them different endings"
                )
        if convention.values is not None:
            yield from _differences(f"{field}.values", convention.values, task.labels, "label")
            for value in _repeated(convention.values.values()):
                yield f"{field}.values has {value} twice; give each label a value of its own"
            if (largest := max(convention.values.values(), default=0)) > LARGEST_VALUE:
                yield f"{field}.values has {largest}, and masks hold at most {LARGEST_VALUE}; give the values in masks"


def _problems_of_patterns(task: TaskFields) -> Iterator[str]:
    for field in ("cases", "patients"):
        if (text := getattr(task, field)) is None:
            continue
        try:
            pattern = re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            yield f"{field} is {text}, which is no regular expression: {error}; correct it"
            continue
        if field == "patients" and not pattern.groups:
            yield f"{field} is {text}, which has no group; put the patient's part into parentheses"


def _problems_of_phantoms(task: TaskFields) -> Iterator[str]:
    fewest, most = task.phantom.lesions
    if not fewest <= most <= MOST_LESIONS:
        yield f"phantom.lesions is {fewest}, {most}; write the smaller number first, and at most {MOST_LESIONS}"
    if (text := task.phantom.cases) is None:
        return
    advice = "write a name with {patient}, as in own-{patient:05d}-{scan:03d}"
    try:
        names = {text.format(patient=patient, scan=0) for patient in range(2)}
    except (KeyError, IndexError, ValueError, AttributeError, TypeError, MemoryError) as error:
        yield f"phantom.cases is {text}, which cannot be filled in: {error}; {advice}"
        return
    if (longest := max(len(name.encode()) for name in names)) > LONGEST_NAME:
        yield f"phantom.cases is {text}, which makes names of {longest} bytes; write at most {LONGEST_NAME}"
    elif len(names) == 1 or any(set(name) & set("/\\\0") or name.startswith(".") for name in names):
        yield f"phantom.cases is {text}, which names no case of each patient; {advice}"


def _differences(field: str, found: Iterable[str], expected: Iterable[str], what: str) -> Iterator[str]:
    found, expected = list(found), list(expected)
    for name in expected:
        if name not in found:
            yield f"{field} lacks {name}; add it"
    for name in found:
        if name not in expected:
            advice = did_you_mean(name, expected, "correct or remove it")
            yield f"{field} names {name}, which is no {what}; {advice}"


def _repeated(names: Iterable[object]) -> list[object]:
    return [name for name, count in Counter(names).items() if count > 1]
