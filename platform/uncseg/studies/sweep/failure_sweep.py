"""A sweep over what the folds of a finished run learn from failures: what its file may say, and the run it needs."""

from collections.abc import Mapping
from typing import Any

from uncseg.config.experiment import Experiment, with_new_fields
from uncseg.config.failures import LEARNERS
from uncseg.config.fields import differences, get_field, is_within
from uncseg.errors import Problem, ProblemsFound
from uncseg.evaluation.figures import shown_in
from uncseg.layout import RunFolder
from uncseg.metric_keys import learnt_key
from uncseg.runs.run_opening import finished_folds, open_existing_run, refuse_other_settings, require_settings
from uncseg.studies.sweep.space import is_number, parse_domain
from uncseg.studies.sweep.sweep_file import FAILURES_SECTION, Sweep

LEARN = tuple(f"{FAILURES_SECTION}.{name}" for name in LEARNERS)
DECIDES = (FAILURES_SECTION, "evaluation.tile_step", "evaluation.mirroring")
"""Fields on which a trial's figures depend, and that may change in a run."""


def known_metrics() -> list[str]:
    """Return the metrics by which its trials are judged."""
    return [learnt_key(figure.kind, lead) for figure in shown_in("table3").values() for lead in (False, True)]


def problems_of_learning(sweep: Sweep, base: Experiment) -> list[Problem]:
    """Return what a sweep asks for that only networks can be searched for, or only what is learnt from them.

    Every field of the space is known, and has a domain.
    """
    others = [field for field in sweep.space if not is_within(field, (FAILURES_SECTION,))]
    if len(others) == len(sweep.space):
        return []
    problems = []
    if others:
        found, expected = f"{', '.join(others)} beside fields of failures", "fields of failures alone, or none of them"
        advice = "search the networks first, then, on the finished run, what is learnt from their failures"
        problems.append(Problem("space", found, expected, advice))
    if not any(_always(sweep, base, field) for field in LEARN):
        found = "trials that learn no more than calibrated p"
        expected = "a perceptron, trees, or steps of a network, in every trial"
        problems.append(Problem(LEARN[0], found, expected, f"write {' or '.join(LEARN)}, 1 or more, in overrides"))
    if len(able := [field for field in LEARN if _most(sweep, base, field) > 0]) > 1:
        found, expected = f"{' and '.join(able)} above 0", "one of them, in all trials: only one learns"
        unwanted = next((field for field in able if field not in sweep.space), able[-1])
        advice = f"write {unwanted}: 0 in overrides, and leave it out of space"
        problems.append(Problem(able[0], found, expected, advice))
    if sweep.scheduler.type != "fifo":
        expected = "fifo: a trial has a single result, and none can be ended early"
        problems.append(Problem("scheduler.type", sweep.scheduler.type, expected, "write scheduler: {type: fifo}"))
    if sweep.promote is not None:
        found, expected = "trials of more folds later", "no promotion: a trial is over in minutes"
        problems.append(Problem("promote", found, expected, "remove it, and write all folds in folds"))
    for number, constraint in enumerate(sweep.constraints):
        if constraint.baseline is not None:
            where, expected = f"constraints.{number}.baseline", "a number: runs do not record these figures"
            problems.append(Problem(where, constraint.baseline, expected, "write at_least: NUMBER"))
    return problems


def _always(sweep: Sweep, base: Experiment, field: str) -> bool:
    """Return whether a field that counts something is 1 or more in every trial."""
    return min(_counts(sweep, base, field), default=0) > 0


def _most(sweep: Sweep, base: Experiment, field: str) -> float:
    """Return the largest value that a field that counts something has in a trial."""
    return max(_counts(sweep, base, field), default=0)


def _counts(sweep: Sweep, base: Experiment, field: str) -> list[float]:
    _, values = parse_domain(sweep.space.get(field, {"choice": [get_field(base.model_dump(), field)]}))
    return [value for value in values if is_number(value)]


def require_finished_run(sweep: Sweep, base: Experiment) -> None:
    """Refuse a sweep over what folds learn from failures where the base's own run has not finished.

    Raises:
        ProblemsFound: there is none; its folds have not finished, or it was started with other settings; or it is
            someone else's and leads out of itself.
    """
    if not sweep.of_failures:
        return
    run, missing, found = RunFolder(base.run_folder), [], "no run"
    if run.experiment.is_file():
        _, own = open_existing_run(run.root)
        missing = [fold for fold in range(own.split.folds) if fold not in finished_folds(own, run)]
        found = f"a run whose folds {', '.join(map(str, missing))} have not finished"
    else:
        require_settings(run)
    if missing or not run.experiment.is_file():
        expected = "a finished run, all of whose folds learn from each other"
        advice = f"train it first: uncseg cross-validate {sweep.base}"
        problem = Problem(str(run.root), found, expected, advice)
        raise ProblemsFound("There are no failures to learn from yet.", [problem])
    refuse_other_settings(base, run)


def changed_learning(sweep: Sweep, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Problem]:
    """Return a problem per field of the base that would make other figures of the same trials."""
    if not sweep.of_failures:
        return []
    advice = "write it as it was, or give the new sweep another name"
    return [
        Problem(name, str(new), f"{old}, as the sweep was started", advice)
        for name, old, new in differences(with_new_fields(before), with_new_fields(now))
        if is_within(name, DECIDES)
    ]


def refuse_other_sources(where: str, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Refuse to go on where the run's folds make other decisions on their cases than those that trials learnt from.

    Args:
        where: the run.
        before, now: by case, the digest of what the decisions depend on.

    Raises:
        ProblemsFound: naming the cases.
    """
    changed = sorted(case for case in {*before, *now} if before.get(case) != now.get(case))
    if changed:
        found = f"other networks, or other files, of {len(changed)} cases: {', '.join(changed[:3])}"
        problem = Problem(where, found, "those that the trials have learnt from", "give the new sweep another name")
        raise ProblemsFound("The sweep cannot go on with its trials.", [problem])
