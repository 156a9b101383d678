"""``uncseg score``: folders of masks from any source."""

from collections.abc import Sequence
from functools import partial

from uncseg.cluster.session import ray_session
from uncseg.cluster.tasks import map_cases, two_per_cpu
from uncseg.commands.checked_scoring import ScoringRequest
from uncseg.config.task_files import write_task
from uncseg.console import console, counting, show_warnings, warn
from uncseg.errors import raise_if_any
from uncseg.evaluation.case_scores import ScoreRow, definition_of_scores
from uncseg.evaluation.pairs import Pair, Scale, score_pair
from uncseg.files import digest, file_contents, short_name
from uncseg.kept_records import compute_once
from uncseg.outputs import Outputs
from uncseg.partial_files import remove_partial
from uncseg.report.score_tables import score_files, scores_table, write_scores
from uncseg.runs.preflight import require_folders
from uncseg.table_files import table_of


def score_folders(request: ScoringRequest) -> int:
    """Score every case that has a prediction and a reference, except those that an earlier command has scored.

    Beside the Parquet file go a CSV, the summary, the reliability diagram and the cases' records.

    Raises:
        ProblemsFound: naming every file that could not be used (exit code 1); the other cases are scored and written.
    """
    out, pairs = request.out, request.pairs.complete
    for note in request.pairs.notes:
        console.print(note, soft_wrap=True)
    outputs = Outputs(out.resolve().parent, short_name(f"scores-{out.stem}"), "--out")
    with outputs.claimed(_names(out.stem, pairs)):
        with ray_session(None, dashboard=False) as own_ray, counting() as progress:
            require_folders({"--out": out.parent}, request.folders, own_ray)
            calls = [(pair.case_id, _score_once, (pair, request.scale, outputs, out.stem)) for pair in pairs]
            scored, failed = map_cases(calls, partial(progress, "scored cases"), two_per_cpu, "scores")
        remove_partial(outputs.folder / f"{out.stem}_cases")
        rows = [row | {"patient": request.patients.of[case]} for case in sorted(scored) for row in scored[case]]
        if not rows and out.is_file():
            warn(f"no case was scored; {out}, which an earlier command wrote, was not changed")
        if rows:
            _write_and_show(rows, request)
            write_task(out.with_name(f"{out.stem}_task.yaml"), request.pairs.task)
    raise_if_any(request.pairs.problems + failed, "Some cases could not be scored.", exit_code=1)
    return 0


def _names(stem: str, pairs: Sequence[Pair]) -> list[str]:
    """Return the names of all files that may be written into the folder of the tables."""
    return [*score_files(stem), f"{stem}_task.yaml", *(_record(stem, pair) for pair in pairs)]


def _record(stem: str, pair: Pair) -> str:
    """Return the name of the file that keeps a pair's scores, beside the tables."""
    return f"{stem}_cases/{short_name(pair.case_id)}.json"


def _score_once(pair: Pair, scale: Scale, outputs: Outputs, stem: str) -> list[ScoreRow]:
    """Score a pair, unless its scores are kept from an earlier command."""
    meanings = [pair.task.values(name) for name in (pair.reference_convention, pair.prediction_convention)]
    scored_as = definition_of_scores(pair.task), pair.task.labels, meanings
    source = digest([scored_as, file_contents(pair.files), scale, sorted(pair.uncertainty)])
    file = outputs.folder / _record(stem, pair)
    with outputs.noting():
        return list(compute_once(file, source, lambda: {"rows": score_pair(pair, scale)})["rows"])


def _write_and_show(rows: list[ScoreRow], request: ScoringRequest) -> None:
    """Write the tables of scores and print their summary."""
    out, patients = request.out, request.patients
    summary = write_scores(table_of(rows), out.parent, out.stem)
    count = len({row["case"] for row in rows})
    console.print(scores_table(summary, f"Scores of {count} case{'s' * (count != 1)}").to_rich())
    if request.with_air:
        console.print("Without --brain the whole volume counts as brain: filtered true negatives, detection and")
        console.print("calibration include the air around the head.")
    console.print(f"patients: {patients}", soft_wrap=True)
    show_warnings(patients.warnings)
    console.print(f"scores: {out}", soft_wrap=True)
