"""Which settings of networks and estimators cannot work together, and what to write instead.

Each problem is one line, "FIELD what is wrong; what to do".
"""

from collections.abc import Sequence
from math import gcd

from uncseg.config.sections import Evaluation, Memory, Model, Plan, Training
from uncseg.errors import Problem
from uncseg.estimators.registry import ESTIMATORS, Chosen

PATCH_MULTIPLES = {"swin_unetr": 32, "transbts": 8}
SWIN_NOTE = " and more than 32 voxels along one axis, since its lowest norm needs more than one voxel"


def fitting_patch(patch: Sequence[int], backbone: str) -> list[int]:
    """The nearest patch that a backbone takes; the same one where it fits."""
    multiple = PATCH_MULTIPLES[backbone]
    nearest = [max(1, round(n / multiple)) * multiple for n in patch]
    if backbone == "swin_unetr" and nearest and max(nearest) == multiple:
        nearest[0] = 2 * multiple
    return nearest


def problems_of_model(model: Model, memory: Memory, plan: Plan) -> list[str]:
    """What is wrong with a network, how it is trained and what from."""
    wrong = []
    if model.uncertainty and model.heteroscedastic:
        wrong.append(
            "model.heteroscedastic takes the place of the head, and model.uncertainty asks for the head; "
            "write model.uncertainty: false"
        )
    for name in ("detached", "error_network"):
        if getattr(model, name) and not model.uncertainty:
            wrong.append(
                f"model.{name} says how an uncertainty map is trained, and model.uncertainty: false has none; "
                f"write model.uncertainty: true or remove model.{name}"
            )
    if model.detached and model.error_network is not None:
        wrong.append(
            "model.detached is about the head, which model.error_network replaces; write model.detached: false"
        )
    if model.dropout > 0 and model.error_network is not None:
        wrong.append(
            "model.dropout is about a network that segments, and model.error_network trains another; "
            "write model.dropout: 0, or train the other run with it"
        )
    if memory.source == "teacher" and (not model.uncertainty or model.error_network is not None):
        wrong.append(
            "memory.source is teacher, which teaches a head, and this network has none; write memory.source: cases"
        )
    if memory.source == "teacher" and memory.coordinates == "patch":
        wrong.append(
            "memory.coordinates is patch, a mistake of a case memory, and a teacher keeps no memory; "
            "write memory.coordinates: case or memory.source: cases"
        )
    return wrong + _problems_of_backbone(model, plan)


def _problems_of_backbone(model: Model, plan: Plan) -> list[str]:
    if model.backbone == "plans":
        return []
    wrong, field = [], f"model.backbone ({model.backbone})"
    if plan.configuration == "2d":
        wrong.append(f"{field} is a network of volumes, and plan.configuration is 2d; write 3d_fullres")
    if plan.preset is not None:
        wrong.append(f"{field} is not among the networks of plan.preset; remove plan.preset")
    if model.deep_supervision:
        wrong.append(f"{field} has one output, and no deep supervision; write model.deep_supervision: false")
    wrong += _problems_of_heads(model)
    nearest = fitting_patch(plan.patch_size or (), model.backbone)
    if plan.patch_size is not None and nearest != list(plan.patch_size):
        wrong.append(
            f"plan.patch_size {list(plan.patch_size)} does not fit {field}, whose patches are multiples of "
            f"{PATCH_MULTIPLES[model.backbone]}{SWIN_NOTE if model.backbone == 'swin_unetr' else ''}; write {nearest}"
        )
    return wrong


def _problems_of_heads(model: Model) -> list[str]:
    """Attention shares out the width of a token among its heads."""
    if model.backbone == "transbts":
        widths, heads = [model.transbts.embedding], [model.transbts.heads]
    else:
        heads = list(model.swin_unetr.heads)
        widths = [model.swin_unetr.feature_size * 2**stage for stage in range(len(heads))]
    divisors = [gcd(width, number) for width, number in zip(widths, heads, strict=True)]
    if divisors == heads:
        return []
    written, wide, advice = (str(n[0] if len(n) == 1 else n) for n in (heads, widths, divisors))
    field = f"model.{model.backbone}.heads"
    return [f"{field} {written} must divide the width of a token, {wide}; write {field}: {advice}"]


def problems_of_estimators(evaluation: Evaluation, model: Model, training: Training) -> list[str]:
    """Which estimators a network was not trained for, or that undo each other."""
    chosen = Chosen(evaluation, model, training)
    return [
        f"evaluation.estimators.{name} {requirement.problem.format(**chosen._asdict())}; {requirement.advice}"
        for name in evaluation.estimators.several_pass
        for requirement in ESTIMATORS[name].requirements
        if not requirement.met(chosen)
    ]


SAME = ("output", "backbone")
"""Settings of a network that an error network shares with the one that it judges, beside the backbone's own section."""


def problems_of_judged(judged: Model, own: Model, name: str, field: str = "model") -> list[Problem]:
    """Why an error network cannot judge another network's segmentation.

    Args:
        judged, own: the networks' settings.
        name: of the run or training that is judged.
        field: of the error network's settings.
    """
    problems = []
    for setting, what in (("error_network", "an error network itself"), ("heteroscedastic", "heteroscedastic logits")):
        if getattr(judged, setting):
            found, advice = f"{name}, which has {what}", "name a run that segments, with or without the head"
            expected = "a run whose outputs are a segmentation"
            problems.append(Problem(f"{field}.error_network.run", found, expected, advice))
    of_backbone = (own.backbone,) if own.backbone in Model.model_fields else ()
    for setting in (*SAME, *of_backbone):
        theirs, ours = getattr(judged, setting), getattr(own, setting)
        if theirs != ours:
            advice = f"write the same, or name another run than {name}"
            problems.append(Problem(f"{field}.{setting}", str(ours), f"{theirs}, as in {name}", advice))
    return problems
