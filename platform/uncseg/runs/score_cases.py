"""Scoring spread over the cluster, a case a task; what is scored already is only read."""

from collections.abc import Callable, Sequence
from pathlib import Path

from uncseg.cluster.tasks import collect, cpus_times_two
from uncseg.errors import Problem
from uncseg.evaluation.case_scores import SCORES_VERSION, Row
from uncseg.evaluation.pairs import Pair, Scale, score_pair
from uncseg.files import digest, file_states, read_json, remove_partial, write_json


def score_pairs(
    pairs: Sequence[Pair], scale: Scale, kept: Path, progress: Callable[[int, int], None]
) -> tuple[list[Row], list[Problem]]:
    """Score every pair; needs a connected Ray.

    Args:
        pairs: of :func:`~uncseg.evaluation.pairs.find_pairs`.
        scale: of the uncertainty.
        kept: folder for CASE.json, from which a second run goes on.
        progress: called with (done, all).

    Returns:
        Rows sorted by case, and a problem for each file that could not be used.
    """
    work = [(pair.case_id, _score_once, (pair, scale, kept)) for pair in pairs]
    rows, problems = collect(work, progress, cpus_times_two, "scores")
    remove_partial(kept)
    return [row for case in sorted(rows) for row in rows[case]], problems


def _score_once(pair: Pair, scale: Scale, kept: Path) -> list[Row]:
    file = kept / f"{pair.case_id}.json"
    source = digest([SCORES_VERSION, file_states(pair.files), scale, sorted(pair.uncertainty)])
    if file.is_file():
        record = read_json(file)
        if record["source"] == source:
            rows: list[Row] = record["rows"]
            return rows
    rows = score_pair(pair, scale)
    write_json(file, {"source": source, "rows": rows})
    return rows
