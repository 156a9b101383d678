"""Which settings of networks and estimators cannot work together, and what to write instead.

Each problem is one line, "FIELD what is wrong; what to do".
"""

from uncseg.config.sections import Evaluation, Memory, Model, Plan, Training
from uncseg.errors import Problem
from uncseg.estimators.registry import ESTIMATORS, Chosen


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
    settings = model.backbone_settings
    if settings is None:
        return []
    wrong, field = [], f"model.backbone ({model.backbone})"
    if plan.configuration == "2d":
        wrong.append(f"{field} is a network of volumes, and plan.configuration is 2d; write 3d_fullres")
    if plan.preset is not None:
        wrong.append(f"{field} is not among the networks of plan.preset; remove plan.preset")
    if model.deep_supervision:
        wrong.append(f"{field} has one output, and no deep supervision; write model.deep_supervision: false")
    wrong += settings.problems(f"model.{model.backbone}")
    nearest = settings.fitting_patch(plan.patch_size or ())
    if plan.patch_size is not None and nearest != list(plan.patch_size):
        wrong.append(
            f"plan.patch_size {list(plan.patch_size)} does not fit {field}, whose patches are {settings.patches}; "
            f"write {nearest}"
        )
    return wrong


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
    sizes = () if own.backbone_settings is None else (own.backbone,)
    for setting in (*SAME, *sizes):
        theirs, ours = getattr(judged, setting), getattr(own, setting)
        if theirs != ours:
            advice = f"write the same, or name another run than {name}"
            problems.append(Problem(f"{field}.{setting}", str(ours), f"{theirs}, as in {name}", advice))
    return problems
