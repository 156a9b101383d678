"""``uncseg score``: folders of masks from any source."""

from pathlib import Path

import pandas as pd

from uncseg.cluster.session import ray_session
from uncseg.console import console, counting
from uncseg.errors import Problem, ProblemsFound
from uncseg.evaluation.pairs import Scale, find_pairs
from uncseg.report.score_tables import scores_table, write_scores
from uncseg.runs.preflight import require_folders
from uncseg.runs.score_pairs import score_pairs


def score_folders(
    predictions: Path,
    references: Path,
    out: Path,
    uncertainty: Path | None = None,
    scale: str = "unit",
    brain: Path | None = None,
) -> int:
    """Score every case that has a prediction and a reference, except those that an earlier command has scored.

    Args:
        predictions, references, uncertainty, brain: folders, see :func:`~uncseg.evaluation.pairs.find_pairs`.
        out: Parquet file to write, together with a CSV, the summary, the reliability diagram and the cases' records.
        scale: of the uncertainty, unit or percent.

    Raises:
        ProblemsFound: naming every file that could not be used (exit code 1); the other cases are scored and written.
    """
    if out.suffix != ".parquet":
        problem = Problem("--out", str(out), "a name that ends in .parquet", "for example scores.parquet")
        raise ProblemsFound("The scores cannot be written.", [problem])
    chosen = _scale(scale)
    # workers have another working directory
    named = {"PREDICTIONS": predictions, "REFERENCES": references, "--uncertainty": uncertainty, "--brain": brain}
    folders = {name: folder.resolve() for name, folder in named.items() if folder is not None}
    pairs, problems = find_pairs(*(folders.get(name) for name in named))  # type: ignore[arg-type]
    kept = out.resolve().parent / f"{out.stem}_cases"
    with ray_session(None, dashboard=False) as own_ray, counting() as progress:
        require_folders({"--out": out.parent}, folders, own_ray)
        rows, failed = score_pairs(pairs, chosen, kept, lambda done, total: progress("scored cases", done, total))
    problems += failed
    if not rows and out.is_file():
        console.print(f"no case was scored; {out}, which an earlier command wrote, was not changed")
    if rows:
        summary = write_scores(pd.DataFrame(rows), out.parent, out.stem)
        count = len({row["case"] for row in rows})
        console.print(scores_table(summary, f"Scores of {count} case{'s' * (count != 1)}").to_rich())
        if uncertainty is not None and brain is None:
            console.print("Without --brain the whole volume counts as brain: filtered true negatives, detection and")
            console.print("calibration include the air around the head.")
        console.print(f"scores: {out}", soft_wrap=True)
    if problems:
        raise ProblemsFound("Some cases could not be scored.", problems, exit_code=1)
    return 0


def _scale(text: str) -> Scale:
    if text == "unit":
        return "unit"
    if text == "percent":
        return "percent"
    problem = Problem("--uncertainty-scale", text, "unit (0 to 1) or percent (0 to 100)", "give one of them")
    raise ProblemsFound("The uncertainty cannot be read.", [problem])
