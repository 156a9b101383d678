"""What ``uncseg score`` is asked, read and checked before torch, Ray or MLflow are imported."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from uncseg.commands.early_checks import problems_of_place
from uncseg.config.task_files import require_task
from uncseg.dataset.patients import Patients, as_patients, require_patients
from uncseg.errors import Problem, did_you_mean, raise_if_any, similar_path
from uncseg.evaluation.find_pairs import Pairs, find_pairs
from uncseg.evaluation.pairs import Scale

SCALES = ("unit", "percent")


@dataclass(frozen=True)
class ScoringRequest:
    """Pairs to score, and where the scores go.

    Args:
        folders: absolute, by their names on the command line: PREDICTIONS, REFERENCES, --uncertainty, --brain.
        pairs: what they hold; at least one pair is complete.
        patients: of the complete pairs.
        scale: of the uncertainty.
        out: Parquet file to write.
    """

    folders: dict[str, Path]
    pairs: Pairs
    patients: Patients
    scale: Scale
    out: Path

    @property
    def with_air(self) -> bool:
        """Whether maps are scored without a brain mask, so that the air around the head counts."""
        return "--uncertainty" in self.folders and "--brain" not in self.folders


def checked_scoring(
    folders: dict[str, Path | None],
    out: Path,
    scale: str,
    conventions: tuple[str | None, str | None],
    patients: str | None,
    task: str | None,
) -> ScoringRequest:
    """Return what there is to score.

    Args:
        folders: see :class:`ScoringRequest`; None: not given.
        out: Parquet file to write.
        scale: unit or percent.
        conventions: of predictions and references; None: as the files are named.
        patients: who is a patient, see :func:`~uncseg.dataset.patients.as_patients`.
        task: a built-in one, or a file; None: as names of cases tell, as dataset.json says, or the paper's.

    Raises:
        ProblemsFound: with every problem of the folders, the name of the table and the scale at once; or no case is in
            both folders, or the task, a convention or the patients do not fit.
    """
    problems = [
        Problem(name, f"no folder {folder}", "a folder of NIfTI files", similar_path(folder, "correct the path"))
        for name, folder in folders.items()
        if folder is not None and not folder.is_dir()
    ]
    if out.suffix != ".parquet":
        problems.append(Problem("--out", str(out), "a name that ends in .parquet", "for example scores.parquet"))
    if scale not in SCALES:
        advice = did_you_mean(scale, SCALES, "give one of them")
        problems.append(Problem("--uncertainty-scale", scale, "unit (0 to 1) or percent (0 to 100)", advice))
    problems += [replace(problem, where="--out") for problem in problems_of_place(out.parent)]
    raise_if_any(problems, "There is nothing to score.")
    setting, wanted = as_patients(patients), require_task(task)
    # workers have another working directory
    there = {name: folder.resolve() for name, folder in folders.items() if folder is not None}
    others = there.get("--uncertainty"), there.get("--brain")
    found = find_pairs(there["PREDICTIONS"], there["REFERENCES"], *others, *conventions, wanted)
    raise_if_any([] if found.complete else found.problems, "No case can be scored.", exit_code=1)
    known = require_patients([pair.case_id for pair in found.complete], setting, found.task)
    return ScoringRequest(there, found, known, cast(Scale, scale), out)
