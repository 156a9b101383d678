"""A benchmark's work on the cluster: all trainings side by side, then every map of every case scored, once each.

Each case is scored on a method's own segmentation and on the shared one, which its training has written before.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uncseg.cluster.resources import Slots
from uncseg.cluster.workers import map_cases_on_workers
from uncseg.dataset.brats import BratsCase, oracle_path, read_reference, read_voxels, write_image
from uncseg.errors import Problem, ProblemsFound
from uncseg.estimators.registry import ORACLE
from uncseg.evaluation.overlap import region_mask
from uncseg.files import digest, read_json, whole_file, write_json
from uncseg.runs.ensemble_members import member_tasks
from uncseg.runs.fold_prediction import Prediction, one_pass_maps, predict_case, source_digest
from uncseg.runs.fold_task import FoldTask
from uncseg.studies.benchmark.benchmark_file import SeededTraining
from uncseg.studies.benchmark.benchmark_table import SEGMENTATIONS
from uncseg.studies.benchmark.map_scores import score_method_case
from uncseg.studies.benchmark.methods import Method
from uncseg.studies.study_folder import BenchmarkFolder

OWN, SHARED = SEGMENTATIONS


@dataclass(frozen=True)
class ScoredFold:
    """A training's fold whose cases are scored."""

    folder: BenchmarkFolder
    training: SeededTraining
    task: FoldTask
    methods: tuple[Method, ...]
    shared: FoldTask
    """The training of the same fold and seed whose segmentation is shared."""

    @property
    def is_shared(self) -> bool:
        """Whether it is that one itself."""
        return self.task.run == self.shared.run


def fold_tasks(scored: Iterable[ScoredFold]) -> list[FoldTask]:
    """What is to be trained, members of ensembles included."""
    return [one for each in scored for one in member_tasks(each.task)]


def score_cases(
    scored: Sequence[ScoredFold], cases: Sequence[BratsCase], slots: Slots, progress: Callable[[int, int], None]
) -> list[Problem]:
    """Score every out-of-fold case of every training; cases scored already are only looked at.

    Returns:
        A problem for each case that could not be scored.
    """
    by_id = {case.case_id: case for case in cases}
    # the shared segmentations come first
    first = [one for one in scored if one.is_shared]
    rest = [one for one in scored if not one.is_shared]
    problems: list[Problem] = []
    total = sum(len(_cases_of(one.task)) for one in scored)
    for part, before in ((first, 0), (rest, sum(len(_cases_of(one.task)) for one in first))):
        work = [
            (f"{one.training.run_name}, {case}", score_case, (one, by_id[case]))
            for one in part
            for case in _cases_of(one.task)
        ]

        def show(ended: int, _all: int, before: int = before) -> None:
            progress(before + ended, total)

        problems += map_cases_on_workers(work, slots, show)[1]
    return problems


def _cases_of(task: FoldTask) -> list[str]:
    cases: list[str] = read_json(task.prepared.splits)[task.fold]["val"]
    return cases


def score_case(scored: ScoredFold, case: BratsCase) -> None:
    """Predict a case and score every map of it, on both segmentations.

    Raises:
        ProblemsFound: the shared segmentation is not there.
    """
    torch.set_num_threads(scored.task.cpus)
    if is_scored(scored, case.case_id):
        return
    task, folder = scored.task, scored.folder
    record = folder.case(scored.training.run_name, case.case_id)
    source = _source(scored)  # before the prediction: checkpoints that change meanwhile are other ones
    reference, image = read_reference(case)
    prediction = predict_case(task, case.case_id)
    file = folder.shared_labels(scored.shared.run.root.name, case.case_id)
    if scored.is_shared:
        write_image(file, prediction.labels.astype(np.uint8), image)
    elif not file.is_file():
        expected, advice = "a segmentation that the shared training has written", "give the command again"
        raise ProblemsFound("A case cannot be scored.", [Problem(str(file), "nothing", expected, advice)], exit_code=1)
    shared = read_voxels(file)
    brain = read_voxels(case.images[0]) != 0
    q_file = oracle_path(case)
    q = None if q_file is None else read_voxels(q_file).astype(np.float32)
    rows: list[dict[str, Any]] = []
    counts: dict[str, np.ndarray] = {}
    for method, labels, values in _maps(scored.methods, case, prediction):
        for segmentation, on in ((OWN, labels), (SHARED, shared)):
            one = score_method_case(reference, on, values, brain, q)
            keys = {"method": method.name, "segmentation": segmentation, "seed": scored.training.seed}
            rows.append(keys | {"fold": task.fold, "case": case.case_id, "patient": case.patient} | one.figures)
            counts |= {f"{len(rows) - 1}/{name}": array for name, array in one.counts.items()}
    with whole_file(record.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **counts)
    write_json(record, {"source": source, "rows": rows})


def is_scored(scored: ScoredFold, case_id: str) -> bool:
    """Whether a case's scores are there, of these checkpoints and maps, with the segmentation that is shared."""
    record = scored.folder.case(scored.training.run_name, case_id)
    shared = scored.folder.shared_labels(scored.shared.run.root.name, case_id)
    return record.is_file() and shared.is_file() and bool(read_json(record)["source"] == _source(scored))


def _source(scored: ScoredFold) -> str:
    sources = [source_digest(scored.task), *([] if scored.is_shared else [source_digest(scored.shared)])]
    return digest([*sources, [method.name for method in scored.methods]])


def comparable(finished: Sequence[ScoredFold]) -> list[ScoredFold]:
    """Trainings of which every case is scored, and whose shared training is among them."""
    lacking = {
        one.training.run_name for one in finished if not all(is_scored(one, case) for case in _cases_of(one.task))
    }
    return [one for one in finished if not {one.training.run_name, one.shared.run.root.name} & lacking]


def _maps(
    methods: Sequence[Method], case: BratsCase, prediction: Prediction
) -> Iterable[tuple[Method, np.ndarray, np.ndarray]]:
    """Each method with its own segmentation and its map, (D, H, W)."""
    one_pass = one_pass_maps(case, prediction, region_mask(prediction.labels, "WT"))
    one_pass["constant"] = np.ones_like(prediction.p_wt)  # its factor makes it the training folds' mean error
    for method in methods:
        if method.map == ORACLE and ORACLE not in one_pass:
            continue
        if method.estimator is None:
            yield method, prediction.labels, one_pass[method.map]
        else:
            estimate = prediction.estimates[method.estimator]
            yield method, estimate.prediction.labels, estimate.maps[method.map]


def read_rows(scored: Sequence[ScoredFold]) -> list[dict[str, Any]]:
    """Rows of all scored cases: method, segmentation, seed, fold, case, patient, and figures that no scale changes."""
    return [row for file in _records(scored) for row in read_json(file)["rows"]]


def read_counts(scored: Sequence[ScoredFold]) -> Iterator[dict[str, np.ndarray]]:
    """What belongs to each row of :func:`read_rows`, one after the other."""
    for file in _records(scored):
        with np.load(file.with_suffix(".npz")) as arrays:
            for number in range(len(read_json(file)["rows"])):
                of_row = f"{number}/"
                yield {name.removeprefix(of_row): arrays[name] for name in arrays.files if name.startswith(of_row)}


def _records(scored: Sequence[ScoredFold]) -> Iterator[Path]:
    for one in scored:
        for case in _cases_of(one.task):
            yield one.folder.case(one.training.run_name, case)
