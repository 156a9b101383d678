"""Whether the spool of a fold whose training has ended is complete: tables, figures and MLflow are made from it."""

from collections.abc import Iterable, Sequence

from uncseg.errors import DamagedFile, Problem, listed, raise_if_any
from uncseg.files import read_json
from uncseg.layout import DONE, RunFolder, folds_in
from uncseg.tracking.spool import FoldHistory, fold_file, read_history

RESTORE = "restore it from a copy of the run"
AGAIN = "restore it from a copy, or {}uncseg cross-validate: it verifies the checkpoint, and writes the file again"
"""What to do about a done.json that is lost or damaged."""


def lost_epochs(run: RunFolder) -> list[Problem]:
    """Return a problem for each finished fold whose spool lacks epochs, its end, or holds another fold.

    The last line of a fold that has not finished may be torn: its epoch is trained again.

    Raises:
        DamagedFile: done.json of a fold cannot be read.
    """
    finished = [fold for fold in folds_in(run.model) if (run.fold(fold) / DONE).is_file()]
    return [problem for fold in finished for problem in _problems(run, fold)]


def require_epochs(runs: Iterable[RunFolder]) -> None:
    """Refuse runs of which finished folds have lost metrics (:func:`lost_epochs`), with exit code 1.

    Raises:
        ProblemsFound: naming each such spool.
    """
    problems = [problem for run in runs for problem in lost_epochs(run)]
    raise_if_any(problems, "Metrics of finished folds are lost.", exit_code=1)


def _problems(run: RunFolder, fold: int) -> list[Problem]:
    done = run.fold(fold) / DONE
    record = read_json(done, AGAIN.format("delete it and give "), keys=("fold", "epochs"))
    if not isinstance(record["epochs"], int):
        raise DamagedFile.of(done, f"{record['epochs']!r} epochs", "their number", AGAIN.format("delete it and give "))
    if record["fold"] != fold:  # folders were exchanged: said by others
        return []
    file, history = fold_file(run.spool, fold), read_history(run.spool, fold)
    found = _lost(history, record["epochs"]) if file.is_file() else "no file"
    expected = f"the {record['epochs']} epochs of fold {fold}, whose training has ended"
    return [Problem(str(file), found, expected, RESTORE)] if found else []


def _lost(history: FoldHistory, epochs: int) -> str:
    """Return what a spool lacks, or holds that is not its fold's; nothing if it is whole."""
    if history.foreign:
        return f"records of fold {listed(map(str, sorted(history.foreign)))}"
    if missing := [epoch for epoch in range(epochs) if epoch not in history.epochs]:
        return f"{epochs - len(missing)} of {epochs} epochs: {_spans(missing)} missing"
    return "no record of its end" if history.state in ("waiting", "running") else ""


def _spans(epochs: Sequence[int]) -> str:
    """Return ascending epochs as text: 3, 7 to 19."""
    starts = [epoch for epoch in epochs if epoch - 1 not in epochs]
    ends = [epoch for epoch in epochs if epoch + 1 not in epochs]
    return listed(str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True))
