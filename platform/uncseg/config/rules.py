"""Rules between settings: what cannot work together, and what to set instead.

Each problem is one line, "FIELD what is wrong; what to do".
"""

from collections.abc import Iterator
from types import SimpleNamespace
from urllib.parse import urlsplit

from uncseg.config.sections import Evaluation, Loss, Memory, Model, Plan, Tracking, Training
from uncseg.errors import Problem
from uncseg.estimators.registry import ESTIMATORS


def problems_of_model(model: Model, memory: Memory, plan: Plan) -> Iterator[str]:
    """Yield what is wrong with a network, with what it learns from, and with its patches."""
    judges, teacher = model.error_network is not None, memory.source == "teacher"
    if model.uncertainty and model.heteroscedastic:
        yield (
            "model.heteroscedastic takes the place of the head, and model.uncertainty asks for the head; "
            "set `model.uncertainty` to false"
        )
    for name in ("detached", "error_network"):
        if getattr(model, name) and not model.uncertainty:
            yield (
                f"model.{name} says how an uncertainty map is trained, and without model.uncertainty there is none; "
                f"set `model.uncertainty` to true, or remove `model.{name}`"
            )
    if model.detached and judges:
        yield "model.detached is about the head, which model.error_network replaces; set `model.detached` to false"
    if model.dropout > 0 and judges:
        yield (
            "model.dropout is about a network that segments, and model.error_network trains another; "
            "set `model.dropout` to 0, or train the other run with it"
        )
    if teacher and (not model.uncertainty or judges):
        yield "memory.source is teacher, which teaches a head, and this network has none; set `memory.source` to cases"
    if teacher and memory.coordinates == "patch":
        yield (
            "memory.coordinates is patch, a mistake of a case memory, and a teacher keeps no memory; "
            "set `memory.coordinates` to case, or `memory.source` to cases"
        )
    yield from _problems_of_backbone(model, plan)


def _problems_of_backbone(model: Model, plan: Plan) -> Iterator[str]:
    settings, field = model.backbone_settings, f"model.backbone ({model.backbone})"
    if settings is None:
        return
    if plan.configuration == "2d":
        yield f"{field} is a network of volumes, and plan.configuration is 2d; set `plan.configuration` to 3d_fullres"
    if plan.preset is not None:
        yield f"{field} is not among the networks of plan.preset; remove `plan.preset`"
    if model.deep_supervision:
        yield f"{field} has one output, and no deep supervision; set `model.deep_supervision` to false"
    yield from settings.problems(f"model.{model.backbone}")
    patch = list(plan.patch_size or ())
    if (nearest := settings.fitting_patch(patch)) != patch:
        yield (
            f"plan.patch_size {patch} does not fit {field}, whose patches are {settings.patches}; "
            f"set `plan.patch_size` to {nearest}"
        )


def problems_of_values(model: Model, loss: Loss, plan: Plan, training: Training, tracking: Tracking) -> Iterator[str]:
    """Yield which values of the loss and the plan contradict others, and whether a password would be shown."""
    if model.output == "regions" and loss.weight_ce is not None:
        yield (
            "loss.weight_ce weighs classes, and with model.output: regions there are none; "
            "remove `loss.weight_ce`, or set `model.output` to labels"
        )
    axes, patch = 2 if plan.configuration == "2d" else 3, plan.patch_size
    if patch is not None and len(patch) != axes:
        yield f"plan.patch_size has {len(patch)} numbers, and {plan.configuration} needs {axes}; write {axes} numbers"
    if plan.target_spacing_mm is not None and min(plan.target_spacing_mm) <= 0:
        yield "plan.target_spacing_mm must be positive; write millimetres per voxel, as [1.0, 1.0, 1.0]"
    if urlsplit(tracking.uri or "").password is not None:
        yield (
            "tracking.uri holds a password, which would be kept with the run and shown; write the address without it, "
            "and put it into the environment: MLFLOW_TRACKING_PASSWORD for a server, PGPASSWORD for PostgreSQL"
        )
    if loss.warmup_epochs > training.epochs:
        yield (
            f"loss.warmup_epochs ({loss.warmup_epochs}) is longer than training.epochs ({training.epochs}); "
            f"set `loss.warmup_epochs` to {training.epochs} at most"
        )


def problems_of_estimators(evaluation: Evaluation, model: Model, training: Training) -> list[str]:
    """Return which chosen estimators a network was not trained for, or undo another setting."""
    sections = SimpleNamespace(evaluation=evaluation, model=model, training=training)
    return [
        f"evaluation.estimators.{name} {requirement.message.format(**vars(sections))}"
        for name in evaluation.estimators.several_pass
        for requirement in ESTIMATORS[name].needs
        if not requirement.met(sections)
    ]


def problems_of_judged(judged: Model, own: Model, name: str, field: str = "model") -> list[Problem]:
    """Return why an error network cannot judge another network's segmentation.

    Args:
        judged, own: settings of the two networks.
        name: name of the run or training that is judged.
        field: name of the error network's section.
    """
    problems = []
    for setting, what in (("error_network", "an error network itself"), ("heteroscedastic", "heteroscedastic logits")):
        if getattr(judged, setting):
            found, advice = f"{name}, which has {what}", "name a run that segments, with or without the head"
            expected = "a run whose outputs are a segmentation"
            problems.append(Problem(f"{field}.error_network.run", found, expected, advice))
    # both networks share the meaning of the outputs, and the backbone with its own section
    sizes = () if own.backbone_settings is None else (own.backbone,)
    for setting in ("output", "backbone", *sizes):
        theirs, ours = getattr(judged, setting), getattr(own, setting)
        if theirs != ours:
            advice = f"write the same, or name another run than {name}"
            problems.append(Problem(f"{field}.{setting}", str(ours), f"{theirs}, as in {name}", advice))
    return problems
