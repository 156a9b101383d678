"""Predicted masks scored against references, one Ray task per case."""

from collections.abc import Callable, Sequence
from pathlib import Path

from uncseg.cluster.tasks import map_cases, two_per_cpu
from uncseg.errors import Problem
from uncseg.evaluation.case_scores import SCORES_VERSION, ScoreRow
from uncseg.evaluation.pairs import Pair, Scale, score_pair
from uncseg.files import compute_once, digest, file_states, remove_partial


def score_pairs(
    pairs: Sequence[Pair], scale: Scale, folder: Path, progress: Callable[[int, int], None]
) -> tuple[list[ScoreRow], list[Problem]]:
    """Score every pair, unless an earlier command has done so; needs a connected Ray.

    Args:
        pairs: as :func:`~uncseg.evaluation.pairs.find_pairs` returns them.
        scale: of the uncertainty.
        folder: for CASE.json, the scores of each case.
        progress: called with (done, total).

    Returns:
        Rows sorted by case, and a problem per file that could not be used.
    """
    calls = [(pair.case_id, _score_once, (pair, scale, folder)) for pair in pairs]
    rows, problems = map_cases(calls, progress, two_per_cpu, "scores")
    remove_partial(folder)
    return [row for case in sorted(rows) for row in rows[case]], problems


def _score_once(pair: Pair, scale: Scale, folder: Path) -> list[ScoreRow]:
    source = digest([SCORES_VERSION, file_states(pair.files), scale, sorted(pair.uncertainty)])
    record = compute_once(folder / f"{pair.case_id}.json", source, lambda: {"rows": score_pair(pair, scale)})
    rows: list[ScoreRow] = record["rows"]
    return rows
