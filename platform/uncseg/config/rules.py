"""Rules between settings: what cannot work together, and what to set instead.

Each problem is one line, "FIELD what is wrong; what to do". In a dictionary of rules, the value says if it is there.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

from pydantic import ValidationError

from uncseg.config.failures import LEARNERS, Failures
from uncseg.config.secret_addresses import ADVICE, secret_in
from uncseg.config.sections import Dataset, Evaluation, Plan, Resources, Split, Tracking
from uncseg.config.task_files import classes_of
from uncseg.config.training_sections import Loss, Memory, Model, Training
from uncseg.errors import Problem
from uncseg.estimators.registry import ESTIMATORS
from uncseg.tasks.rules import problems_of_drawing
from uncseg.tasks.task import Task

OF_THE_HEAD = ("detached", "head", "residual")
"""Fields of the section ``model`` that say how the uncertainty head is built."""


def rules_of_task(dataset: Dataset, model: Model, loss: Loss) -> dict[str, Any]:
    """Return what does not fit the task, and whether it is there."""
    task, weights = dataset.task, loss.weight_ce
    drawing = problems_of_drawing(task) if model.output == "regions" else []
    return {
        f"dataset.convention is {dataset.convention}, and task {task.name} knows {', '.join(task.conventions)}; "
        "write one of these": dataset.convention is not None and dataset.convention not in task.conventions,
        _weights_rule(weights or (), task.name, task.classes): weights is not None
        and len(weights) != len(task.classes),
        **dict.fromkeys(drawing, True),
    }


def _weights_rule(weights: Sequence[Any], task: str, classes: Sequence[str]) -> str:
    number = f"{len(weights)} weight{'s' * (len(weights) != 1)}"
    return (
        f"loss.weight_ce has {number}, and task {task} has {len(classes)} classes; "
        f"write one each for {', '.join(classes)}"
    )


def problems_beside_a_wrong_task(content: Mapping[str, Any]) -> list[Problem]:
    """Return the problem of class weights where the task is refused, so that no rule on whole experiments is asked."""
    dataset, loss = (content.get(name) for name in ("dataset", "loss"))
    task = dataset.get("task") if isinstance(dataset, Mapping) else None
    weights, classes = loss.get("weight_ce") if isinstance(loss, Mapping) else None, classes_of(content)
    try:
        Task.model_validate(task)
    except ValidationError:
        if isinstance(weights, list) and classes and len(weights) != len(classes):
            name = str(task.get("name", "own")) if isinstance(task, Mapping) else "own"
            found, _, advice = _weights_rule(weights, name, classes).partition("; ")
            return [Problem("loss.weight_ce", found, f"{len(classes)} weights", advice)]
    return []


def rules_of_split(split: Split) -> dict[str, Any]:
    """Return the problems of a split, and whether they are there."""
    given, field = split.given, "split.groups" if split.file is None else "split.file"
    folds = split.folds if given is None else len(given.folds)
    return {
        "split.groups and split.file say both what the folds are; remove one of them": split.file is not None
        and split.groups is not None,
        f"split.folds is {split.folds}, and {field} has {folds} folds; "
        f"remove `split.folds`, or set it to {folds}": split.folds != folds,
        f"split.seed draws folds, and {field} says what they are; remove `split.seed`": given is not None
        and split.seed != Split.model_fields["seed"].default,
        f"split.drawn says how folds are drawn, and {field} says what they are; remove `split.drawn`": given is not None
        and split.drawn == "cases",
        "split.allow_shared_patients is about split.file, split.groups and split.drawn: cases, and other folds share "
        "no patient; remove `split.allow_shared_patients`": given is None
        and split.drawn == "patients"
        and split.allow_shared_patients,
    }


def rules_of_model(model: Model, memory: Memory, plan: Plan) -> dict[str, Any]:
    """Return the problems of a network, of what it learns from, and of its patches, and whether they are there."""
    judges, taught = model.error_network is not None, memory.source != "cases"
    of_run = memory.source in ("members", "cross_fitted")
    return {
        "model.heteroscedastic takes the place of the head, and model.uncertainty asks for the head; "
        "set `model.uncertainty` to false": model.uncertainty and model.heteroscedastic,
        **{
            f"model.{name} says how an uncertainty map is trained, and without model.uncertainty there is none; "
            f"set `model.uncertainty` to true, or remove `model.{name}`": _is_set(model, name) and not model.uncertainty
            for name in (*OF_THE_HEAD, "error_network")
        },
        **{
            f"model.{name} is about the head, which model.error_network replaces; remove `model.{name}`": _is_set(
                model, name
            )
            and judges
            for name in OF_THE_HEAD
        },
        "model.dropout is about a network that segments, and model.error_network trains another; "
        "set `model.dropout` to 0, or train the other run with it": model.dropout > 0 and judges,
        f"memory.source is {memory.source}, which teaches a head, and this network has none; "
        "set `memory.source` to cases": taught and (not model.uncertainty or judges),
        f"memory.published is about the error memory, and memory.source is {memory.source}; "
        "set `memory.source` to cases, or remove `memory.published`": taught and memory.published is not None,
        f"memory.source is {memory.source}, of another run; write the name of a finished run in `memory.run`": of_run
        and memory.run is None,
        f"memory.run names a run that teaches the head, and memory.source: {memory.source} needs none; "
        "remove `memory.run`, or set `memory.source` to members or cross_fitted": memory.run is not None and not of_run,
        "memory.source is cross_fitted, which judges volumes, and plan.configuration is 2d; "
        "set `plan.configuration` to 3d_fullres": memory.source == "cross_fitted" and plan.configuration == "2d",
        f"model.head is decoder_stages, which only the networks of nnU-Net's plans have, and not {model.backbone}; "
        "set `model.head` to output_layer": model.head == "decoder_stages" and model.backbone != "plans",
        **_rules_of_backbone(model, plan),
    }


def _is_set(model: Model, name: str) -> bool:
    return bool(getattr(model, name) != Model.model_fields[name].default)


def _rules_of_backbone(model: Model, plan: Plan) -> dict[str, Any]:
    settings, field = model.backbone_settings, f"model.backbone ({model.backbone})"
    if settings is None:
        return {}
    patch = list(plan.patch_size or ())
    nearest = settings.fitting_patch(patch)
    return {
        f"{field} is a network of volumes, and plan.configuration is 2d; "
        "set `plan.configuration` to 3d_fullres": plan.configuration == "2d",
        f"{field} is not among the networks of plan.preset; remove `plan.preset`": plan.preset,
        f"{field} has one output, and no deep supervision; "
        "set `model.deep_supervision` to false": model.deep_supervision,
        **dict.fromkeys(settings.problems(f"model.{model.backbone}"), True),
        f"plan.patch_size {patch} does not fit {field}, whose patches are {settings.patches}; "
        f"set `plan.patch_size` to {nearest}": nearest != patch,
    }


def rules_of_failures(failures: Failures) -> dict[str, Any]:
    """Return the problem of two things that would learn from failures, and whether it is there."""
    learn = [name for name in LEARNERS if getattr(failures, name)]
    rule = "failures.{} and failures.{} each choose what learns from failures, and only one can; set one of them to 0"
    return {rule.format(*pair): True for pair in pairwise(learn)}


def rules_of_values(model: Model, loss: Loss, plan: Plan, training: Training, tracking: Tracking) -> dict[str, Any]:
    """Return the problems of the values of loss, plan, training and tracking, and whether they are there."""
    axes, patch = 2 if plan.configuration == "2d" else 3, plan.patch_size
    secret = secret_in(tracking.uri or "")
    return {
        "loss.weight_ce weighs classes, and with model.output: regions there are none; "
        "remove `loss.weight_ce`, or set `model.output` to labels": model.output == "regions" and loss.weight_ce,
        f"plan.patch_size has {len(patch or ())} numbers, and {plan.configuration} needs {axes}; "
        f"write {axes} numbers": patch is not None and len(patch) != axes,
        "loss.weight_ce weighs no class; write a number above 0 for the background, or for a label": loss.weight_ce
        is not None
        and not any(loss.weight_ce),
        f"tracking.uri holds {secret}, which would be kept with the run and shown; {ADVICE}": secret,
        f"loss.warmup_epochs ({loss.warmup_epochs}) is longer than training.epochs ({training.epochs}); "
        f"set `loss.warmup_epochs` to {training.epochs} at most": loss.warmup_epochs > training.epochs,
        f"training.averaged_epochs ({training.averaged_epochs}) is more than training.epochs ({training.epochs}); "
        f"set `training.averaged_epochs` to {training.epochs} at most": training.averaged_epochs > training.epochs,
    }


def rules_of_published(memory: Memory, model: Model, training: Training, resources: Resources) -> dict[str, Any]:
    """Return what the memory of a public trainer does not go together with, and whether it is there."""
    published = memory.published
    return {
        "memory.published is about a head, and model.error_network trains another map; "
        "remove `memory.published`": published is not None and model.error_network is not None,
        f"memory.published needs the whole batch at once, and training.accumulate is {training.accumulate}; "
        "set `training.accumulate` to 1": published is not None and training.accumulate > 1,
        "memory.published.shifted_labels is about the channels of labels, and model.output is regions; "
        "set `memory.published.shifted_labels` to false": published is not None
        and published.shifted_labels
        and model.output == "regions",
        "memory.published needs the whole batch in one process, and resources.gpus_per_fold is "
        f"{resources.gpus_per_fold}; set `resources.gpus_per_fold` to 1": published is not None
        and (resources.gpus_per_fold or 1) > 1,
    }


def problems_of_estimators(evaluation: Evaluation, model: Model, training: Training) -> list[str]:
    """Return which chosen estimators a network was not trained for, or undo another setting."""
    sections = SimpleNamespace(evaluation=evaluation, model=model, training=training)
    no_head = (
        "evaluation.uncertainty is head, and this network has none; "
        "set `model.uncertainty` to true and train, or remove `evaluation.uncertainty`"
    )
    return [no_head] * (evaluation.uncertainty == "head" and not model.uncertainty) + [
        f"evaluation.estimators.{name} {requirement.message.format(**vars(sections))}"
        for name in evaluation.estimators.several_pass
        for requirement in ESTIMATORS[name].needs
        if not requirement.met(sections)
    ]


def problems_of_judged(judged: Model, own: Model, name: str, field: str = "model") -> list[Problem]:
    """Return why an error network cannot judge the segmentation of a run or training of this name.

    ``own`` are the error network's settings, in the section ``field``.
    """
    problems = []
    for setting, what in (("error_network", "an error network itself"), ("heteroscedastic", "heteroscedastic logits")):
        if getattr(judged, setting):
            found, advice = f"{name}, which has {what}", "name a run that segments, with or without the head"
            expected = "a run whose outputs are a segmentation"
            problems.append(Problem(f"{field}.error_network.run", found, expected, advice))
    # both networks share the meaning of the outputs, and the backbone with its own section
    for setting in ("output", "backbone", *([] if own.backbone_settings is None else [own.backbone])):
        if (theirs := getattr(judged, setting)) != (ours := getattr(own, setting)):
            advice = f"write the same, or name another run than {name}"
            problems.append(Problem(f"{field}.{setting}", str(ours), f"{theirs}, as in {name}", advice))
    return problems
