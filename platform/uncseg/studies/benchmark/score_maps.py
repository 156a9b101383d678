"""Scores of every map of every out-of-fold case of a benchmark, on the cluster.

Each case is scored on a method's own segmentation and on the shared one, which its training has written before.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uncseg.cluster.resources import Slots
from uncseg.cluster.tasks import map_cases_on_workers
from uncseg.dataset.case_volumes import read_reference
from uncseg.dataset.cases import Case
from uncseg.dataset.splits import read_splits
from uncseg.dataset.volumes import read_volume, write_volume
from uncseg.errors import Problem, ProblemsFound
from uncseg.estimators.registry import LEARNT, ORACLE
from uncseg.evaluation.overlap import main_mask
from uncseg.files import digest, read_json, whole_file
from uncseg.kept_records import keep_record, kept_record
from uncseg.method.failures.margins import against_decision
from uncseg.runs.fold_prediction import Prediction, one_pass_maps, predict_case, read_oracle, source_digest
from uncseg.runs.fold_request import FoldRequest, member_requests
from uncseg.runs.run_data import known_digest
from uncseg.studies.benchmark.benchmark_file import SeededTraining
from uncseg.studies.benchmark.benchmark_table import SEGMENTATIONS
from uncseg.studies.benchmark.map_scores import score_method_case
from uncseg.studies.benchmark.methods import Method
from uncseg.studies.study_folder import BenchmarkFolder
from uncseg.tasks.task import Task

OWN, SHARED = SEGMENTATIONS


@dataclass(frozen=True)
class ScoredFold:
    """A fold of a training whose cases are scored."""

    folder: BenchmarkFolder
    training: SeededTraining
    request: FoldRequest
    methods: tuple[Method, ...]
    shared: FoldRequest
    """The same fold of the training with the same seed whose segmentation is shared."""

    @property
    def is_shared(self) -> bool:
        """Whether this is the training whose segmentation is shared."""
        return self.request.run == self.shared.run

    @property
    def cases(self) -> list[str]:
        """The fold's validation cases."""
        cases: list[str] = read_splits(self.request.prepared.splits)[self.request.fold]["val"]
        return cases

    def record(self, case_id: str) -> Path:
        """Return the JSON file of a case's scores."""
        return self.folder.case(self.training.run_name, case_id)

    def shared_labels(self, case_id: str) -> Path:
        """Return the file of a case's shared segmentation."""
        return self.folder.shared_labels(self.shared.run.root.name, case_id)

    def source(self, case_id: str) -> str:
        """Return a digest of what a case's scores depend on: its files, checkpoints, how they are applied, the maps."""
        sources = [source_digest(self.request), *([] if self.is_shared else [source_digest(self.shared)])]
        return digest([*sources, [method.name for method in self.methods], known_digest(self.request.run, case_id)])

    def is_scored(self, case_id: str) -> bool:
        """Return whether a case's scores, and the segmentation that is shared, exist and are up to date."""
        return (
            self.shared_labels(case_id).is_file()
            and kept_record(self.record(case_id), self.source(case_id)) is not None
        )


def fold_requests(scored: Iterable[ScoredFold]) -> list[FoldRequest]:
    """Return what is to be trained, the members of ensembles included."""
    return [request for part in scored for request in member_requests(part.request)]


def comparable(finished: Sequence[ScoredFold]) -> list[ScoredFold]:
    """Return the trainings whose cases are all scored, and those of their shared training as well."""
    lacking = {part.training.run_name for part in finished if not all(map(part.is_scored, part.cases))}
    return [part for part in finished if not {part.training.run_name, part.shared.run.root.name} & lacking]


def score_cases(
    scored: Sequence[ScoredFold], cases: Sequence[Case], slots: Slots, progress: Callable[[int, int], None]
) -> list[Problem]:
    """Score every out-of-fold case of every training that is not scored yet.

    Returns:
        A problem for each case that could not be scored.
    """
    by_id, problems = {case.case_id: case for case in cases}, []
    before, total = 0, sum(len(part.cases) for part in scored)
    for shared in (True, False):  # the other trainings need the shared segmentations
        calls = [
            (f"{part.training.run_name}, {case}", score_case, (part, by_id[case]))
            for part in scored
            if part.is_shared == shared
            for case in part.cases
        ]

        def show(ended: int, _all: int, before: int = before) -> None:
            progress(before + ended, total)

        problems += map_cases_on_workers(calls, slots, show)[1]
        before += len(calls)
    return problems


def score_case(scored: ScoredFold, case: Case) -> None:
    """Predict a case and score every map of it, on both segmentations.

    Raises:
        ProblemsFound: the shared segmentation is missing.
    """
    torch.set_num_threads(scored.request.cpus)
    if scored.is_scored(case.case_id):
        return
    source = scored.source(case.case_id)  # before the prediction, during which the checkpoints may change
    task = scored.request.experiment.dataset.task
    reference, _ = read_reference(case, task)
    image = read_volume(case.images[0])
    prediction = predict_case(scored.request, case.case_id)
    file = scored.shared_labels(case.case_id)
    if scored.is_shared:
        write_volume(file, prediction.labels.astype(np.uint8), image.geometry)
    elif not file.is_file():
        expected, advice = "a segmentation that the shared training has written", "give the command again"
        raise ProblemsFound("A case cannot be scored.", [Problem(str(file), "nothing", expected, advice)], exit_code=1)
    shared = read_volume(file).voxels
    brain = image.voxels != 0
    q = read_oracle(case)
    common = {"seed": scored.training.seed, "fold": scored.request.fold, "case": case.case_id, "patient": case.patient}
    rows: list[dict[str, Any]] = []
    counts: dict[str, np.ndarray] = {}
    for method, own, map_of in _maps(scored.methods, case, prediction, task):
        for segmentation, labels in ((OWN, own), (SHARED, shared)):
            scores = score_method_case(reference, labels, map_of(labels), brain, task, q)
            counts |= {f"{len(rows)}/{name}": array for name, array in scores.counts.items()}
            rows.append({"method": method.name, "segmentation": segmentation} | common | scores.figures)
    record = scored.record(case.case_id)
    with whole_file(record.with_suffix(".npz")) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **counts)
    written = [record.with_suffix(".npz"), *([file] if scored.is_shared else [])]
    files = [os.path.relpath(path, record.parent) for path in written]
    keep_record(record, source, {"files": files, "rows": rows})


def _maps(
    methods: Sequence[Method], case: Case, prediction: Prediction, task: Task
) -> Iterator[tuple[Method, np.ndarray, Callable[[np.ndarray], np.ndarray]]]:
    """Yield each method with its own segmentation, and a function from a segmentation to its map, all (D, H, W)."""
    one_pass = one_pass_maps(case, prediction, main_mask(prediction.labels, task))
    one_pass["constant"] = np.ones_like(prediction.p_main)  # the fitted factor makes it the training folds' mean error
    for method in methods:
        if method.map == ORACLE and ORACLE not in one_pass:
            continue
        if method.map in LEARNT and method.map not in one_pass:
            found, advice = f"{method.training} has not learnt {method.map}", "correct what its folds could not do"
            raise ProblemsFound(
                "A case cannot be scored.", [Problem(case.case_id, found, "it has", advice)], exit_code=1
            )
        estimate = prediction if method.estimator is None else prediction.estimates[method.estimator]
        if method.against_decision:
            p_main = prediction.p_main if method.estimator is None else prediction.opinions[method.estimator]
            yield method, estimate.labels, partial(_against_decision, p_main, task)
        else:
            uncertainty = (one_pass if method.estimator is None else estimate.maps)[method.map]
            yield method, estimate.labels, partial(_always, uncertainty)


def _against_decision(p_main: np.ndarray, task: Task, labels: np.ndarray) -> np.ndarray:
    return against_decision(p_main, main_mask(labels, task))


def _always(uncertainty: np.ndarray, _labels: np.ndarray) -> np.ndarray:
    return uncertainty


def read_rows(scored: Sequence[ScoredFold]) -> list[dict[str, Any]]:
    """Read the rows of all scored cases: method, segmentation, seed, fold, case, patient, and unscaled figures."""
    return [row for part in scored for case in part.cases for row in read_json(part.record(case))["rows"]]


def read_counts(scored: Sequence[ScoredFold]) -> Iterator[dict[str, np.ndarray]]:
    """Yield the counts of each row of :func:`read_rows`."""
    for record in (part.record(case) for part in scored for case in part.cases):
        with np.load(record.with_suffix(".npz")) as arrays:
            for row in range(len(read_json(record)["rows"])):
                names = [name for name in arrays.files if name.startswith(f"{row}/")]
                yield {name.partition("/")[2]: arrays[name] for name in names}
