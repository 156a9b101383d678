"""Runs of different tasks side by side: what both have, and the sentences that say so."""

from collections.abc import Sequence

import pandas as pd

from uncseg.evaluation.figures import dice_columns
from uncseg.page_table import listed
from uncseg.tasks.task import Task

LESION_FIGURES = r"lesionwise_|num_"
"""First part of the names of the figures that depend on how lesions are told apart."""


def common_regions(tasks: Sequence[Task]) -> list[str]:
    """Return the regions that all tasks name, in the order of the first."""
    first, *others = tasks
    return [region for region in first.regions if all(region in task.regions for task in others)]


def common_dices(tasks: Sequence[Task]) -> dict[str, str]:
    """Return those columns of Table 1, and their headings, that all tasks have; a mean only over the same regions."""
    same = all(set(task.regions) == set(tasks[0].regions) for task in tasks)
    columns = {f"dice_{tasks[0].region_keys[region]}" for region in common_regions(tasks)}
    columns |= {"dice_mean"} if same else set()
    return {column: heading for column, heading in dice_columns(tasks[0]).items() if column in columns}


def comparable_scores(scores: pd.DataFrame, task: Task, other: Task) -> pd.DataFrame:
    """Return the scores of a run of ``task`` that one of ``other`` defines alike: see :func:`task_sentences`."""
    if task.lesions == other.lesions:
        return scores
    return scores.drop(columns=scores.filter(regex=f"^({LESION_FIGURES})").columns)


def task_sentences(first: str, a: Task, other: str, b: Task) -> list[str]:
    """Return sentences on what is not compared of two runs, by their names, because their tasks differ."""
    lines = []
    if not a.same_meaning(b):
        both = common_regions([a, b])
        compared = (
            f"only {listed(both)} {'is' if len(both) == 1 else 'are'} compared, by name"
            if both
            else "no region has the same name, so no region is compared"
        )
        lines.append(f"{first} and {other} have different tasks ({a.name}, {b.name}): {compared}.")
        if a.main_region != b.main_region:
            lines.append(f"The maps of {first} are those of {a.main_region}, of {other} those of {b.main_region}.")
    if a.lesions != b.lesions:
        lines.append(
            f"{first} and {other} tell lesions apart by different rules ({a.lesions}; {b.lesions}): "
            "their lesion-wise figures are not compared."
        )
    return lines
