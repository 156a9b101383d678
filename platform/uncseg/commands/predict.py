"""``uncseg predict``: new cases, by one fold or several together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.resources import Slots, plan_slots
from uncseg.cluster.session import ray_session
from uncseg.console import console, counting
from uncseg.dataset.brats import BratsCase
from uncseg.dataset.inputs import find_inputs
from uncseg.errors import Problem, ProblemsFound
from uncseg.runs.model_sources import Model, find_model
from uncseg.runs.new_cases import PredictionTask, Record, predict_new_cases
from uncseg.runs.preflight import require_folders
from uncseg.table_files import write_table


@dataclass(frozen=True)
class PredictionOptions:
    """What is made of each prediction; None: as the model's experiment says."""

    probabilities: bool = False
    """CASE_wt_probability.nii.gz, _tc_ and _et_ too."""
    overlays: bool = False
    """CASE.png too."""
    mirroring: bool | None = None
    """Test-time mirroring, 8 passes."""
    review_below: float | None = None
    """Expected WT Dice under which a case is flagged."""
    scores: bool = False
    """Scores against the cases' references too."""


def predict_cases(
    source: str,
    folder: Path,
    output: Path,
    folds: Sequence[int] | None = None,
    overrides: list[str] | None = None,
    trust: bool = False,
    wanted: PredictionOptions | None = None,
) -> int:
    """Predict every case of a folder; what is there already is not done again.

    Args:
        source: MODEL, as :func:`~uncseg.runs.model_sources.find_model` takes it.
        folder: BraTS folder, of one case or many, or nnU-Net's input files; references are not needed.
        output: folder for CASE.nii.gz, CASE_uncertainty.nii.gz, CASE_between_folds.nii.gz, a map for each of
            evaluation.estimators and CASE.json.
        folds: folds to average; None: all that are finished.
        overrides: ``FIELD=VALUE`` of resources and evaluation.
        trust: let checkpoints run code of their own.
        wanted: what else.

    Raises:
        ProblemsFound: naming every case that could not be predicted; the others are done.
    """
    model = find_model(source, output, folds, overrides, trust)
    found, problems = find_inputs(folder.resolve(), model.folder.dataset_json)
    cases = [replace(case, reference=None) for case in found]  # whatever is wrong with one does not matter here
    reads = {"INPUT": folder, "MODEL": model.folder.root}
    records, failed = predict_with(
        model,
        cases,
        output,
        wanted or PredictionOptions(),
        trust,
        writes={"OUTPUT": output},
        reads=reads,
        what="predicted cases",
    )
    if records:
        _show(output, model, records)
    if problems + failed:
        raise ProblemsFound("Some cases could not be predicted.", problems + failed, exit_code=1)
    return 0


def _show(output: Path, model: Model, records: dict[str, dict]) -> None:
    """Every case's record as a table in OUTPUT, the flagged ones by name."""
    table = pd.DataFrame([records[case] for case in sorted(records)]).drop(columns=["source", "files", "folds"])
    write_table(table, output, "predictions")
    for row in table[table["review"]].to_dict("records"):
        console.print(f"review {row['case']}: {row['review_reason']}")
    folds = f"fold{'s' * (len(model.folds) > 1)} {', '.join(map(str, model.folds))}"
    below = f"expected WT Dice below {table['review_below'].iloc[0]:.3f}, or no tumour"
    console.print(f"{len(table)} predicted by {folds}, {table['review'].sum()} flagged for review ({below})")
    console.print(f"predictions: {output}", soft_wrap=True)


def predict_with(
    model: Model,
    cases: Sequence[BratsCase],
    output: Path,
    wanted: PredictionOptions,
    trust: bool,
    *,
    writes: Mapping[str, Path],
    reads: Mapping[str, Path],
    what: str,
) -> tuple[dict[str, Record], list[Problem]]:
    """Predict cases on whatever Ray the model's resources name.

    Args:
        model, cases, output, wanted, trust: as :func:`predict_cases` has found them.
        writes, reads: folders that every node has to see, by the names that the user knows them under.
        what: is counted, for the progress.

    Returns:
        As :func:`~uncseg.runs.new_cases.predict_new_cases`.
    """
    if wanted.mirroring and model.evaluation.estimators.augmentation is not None:
        expected = "one of them, since mirrored copies of mirrored copies are all the same"
        advice = "leave --mirroring out"
        problem = Problem("--mirroring", "with evaluation.estimators.augmentation", expected, advice)
        raise ProblemsFound("Both cannot be done at once.", [problem])
    with ray_session(model.resources.ray_address) as own_ray:
        require_folders(writes, reads, own_ray)
        slots = plan_slots(model.resources, max(1, len(cases)), connected_cluster(model.resources, own_ray))
        task = _task(model, output, slots, trust, wanted)
        with counting() as progress:
            return predict_new_cases(task, cases, slots, lambda done, of: progress(what, done, of))


def _task(model: Model, output: Path, slots: Slots, trust: bool, wanted: PredictionOptions) -> PredictionTask:
    """How cases are predicted with a model; what its labels mean is looked at first.

    Raises:
        ProblemsFound: where they are not BraTS'.
    """
    _ = model.folder.meaning
    return PredictionTask(
        model=model.folder,
        folds=model.folds,
        output=output.resolve(),
        threads=slots.cpus_per_process,
        tile_step=model.evaluation.tile_step,
        mirroring=model.evaluation.mirroring if wanted.mirroring is None else wanted.mirroring,
        review_below=model.review_below if wanted.review_below is None else wanted.review_below,
        trust=trust,
        probabilities=wanted.probabilities,
        overlays=wanted.overlays,
        scores=wanted.scores,
        estimators=model.evaluation.estimators,
        members=model.members,
    )
