"""What a run was made from: its cases by content, their patients and folds, and its settings, in its data.json.

    problems = changed_data(run, experiment)        # before anything is written
    record_data(run, experiment, prepared)          # when the run is opened

A file that was touched, copied or moved but has the same bytes is no change.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from uncseg.config.experiment import Experiment
from uncseg.dataset.cases import Case, digest_of_files, oracle_path
from uncseg.dataset.preparation import REMAKE, cases_of
from uncseg.dataset.splits import Splits, read_splits
from uncseg.errors import DamagedFile, Problem, listed
from uncseg.files import digest, file_digest, json_text, read_json, write_text
from uncseg.layout import PreparedFolder, RunFolder, storage_of

LOST = "restore it from a copy; without it nothing tells which cases the folds were trained on"
SAME = "restore them, or train a new run under another name"
MOVED = "restore them; if they were moved, add --set dataset.path=FOLDER"
MOST_NAMED = 10
READERS = 8
"""Files that are read side by side."""


@dataclass(frozen=True)
class CaseData:
    """A case as its run knows it."""

    digest: str
    """Of the content of images and reference."""
    patient: str
    files: dict[str, list[int]] = field(default_factory=dict)
    """Bytes, and times of modification and of change (ns) of each file by its path in the dataset: while they stay the
    same, the file need not be read again."""


@dataclass(frozen=True)
class RunData:
    """The content of data.json."""

    cases: dict[str, CaseData]
    splits: list[dict[str, list[str]]]
    """Cases that each fold is trained on, and those that it predicts, as in nnU-Net's splits_final.json."""
    settings: dict[str, Any]
    """The resolved experiment that the run was begun with."""
    digests: dict[str, str]
    """Of ``dataset``, ``split``, ``preparation`` and ``settings``."""

    def folds(self) -> dict[str, int]:
        """Return the fold that predicts each case."""
        return {case: number for number, fold in enumerate(self.splits) for case in fold["val"]}


def read_data(run: RunFolder) -> RunData | None:
    """Return what a run was made from; None where it has not begun.

    Raises:
        DamagedFile: data.json cannot be read, or is gone while there are checkpoints.
    """
    if run.data.exists():
        data: RunData = read_json(run.data, LOST, shape=RunData)
        lacks = [f"digests.{name}" for name in ("dataset", "split", "preparation") if name not in data.digests]
        lacks += [f"splits.{n}" for n, fold in enumerate(data.splits) if not {"train", "val"} <= fold.keys()]
        if lacks:
            raise DamagedFile.of(run.data, f"no whole {listed(lacks)}", "the content that was written", LOST)
        return data
    if any(run.results.glob("*/*/fold_*/checkpoint_*.pth")):
        raise DamagedFile.of(run.data, "nothing", "what the run was made from", LOST)
    return None


def record_data(run: RunFolder, experiment: Experiment, prepared: PreparedFolder) -> RunData:
    """Write data.json when a run begins, or the new states of files that were touched since; return it.

    Raises:
        DamagedFile: data.json, or what the prepared folder says of itself, cannot be read.
    """
    before, done = read_data(run), read_json(prepared.done, REMAKE, keys=("digests", "case_digests"))
    known = done["case_digests"] if before is None else {case: data.digest for case, data in before.cases.items()}
    cases = {case.case_id: case for case in cases_of(experiment).cases if case.case_id in known}
    root = experiment.dataset.path
    described = {name: CaseData(known[name], case.patient, _states(case, root)) for name, case in cases.items()}
    settings = experiment.resolved().model_dump(mode="json") if before is None else before.settings
    digests = done["digests"] | {"settings": digest(settings)}
    data = RunData(described, read_splits(prepared.splits), settings, digests)
    if data != before:
        write_text(run.data, json_text(asdict(data), indent=2) + "\n")  # the order of a task's regions counts
    return data


def _states(case: Case, root: Path) -> dict[str, list[int]]:
    states = {}
    for file in case.files:
        status = file.stat()
        states[os.path.relpath(file, root.resolve())] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return states


def kept_preparation(run: RunFolder, experiment: Experiment) -> tuple[PreparedFolder, str] | None:
    """Return the folder of prepared cases that a run uses, and its digest; None where the run has not begun.

    It is used even where files were touched since, as long as they have the same content.
    """
    data = read_data(run)
    if data is None:
        return None
    dataset, preparation = experiment.dataset, data.digests["preparation"]
    root = storage_of(run.root) / "prepared" / f"{dataset.name}-{preparation[:10]}"
    return PreparedFolder(root, f"Dataset{dataset.id:03d}_{dataset.name}"), preparation


def changed_data(run: RunFolder, experiment: Experiment) -> list[Problem]:
    """Return what differs between the cases that a run was begun with and those that there are now.

    Files whose size and times are as they were are not read.

    Raises:
        ProblemsFound: there is no dataset, or data.json cannot be read.
    """
    data = read_data(run)
    if data is None:
        return []
    if not experiment.dataset.path.exists():
        expected = f"the {len(data.cases)} cases that the run was begun with"
        return [Problem("dataset.path", f"nothing at {experiment.dataset.path}", expected, MOVED)]
    now = _present(data, experiment)
    changes = _changes(data, now)
    if changes:
        kept, present = (_dataset_digest(cases) for cases in (data.cases, now))
        expected = f"the {len(data.cases)} cases that the run was begun with (digest {kept})"
        found = f"{'; '.join(changes)} (digest {present})"
        return [Problem(str(experiment.dataset.path), found, expected, SAME)]
    return _moved_folds(data, run, experiment)


def changed_cases(run: RunFolder, experiment: Experiment) -> set[str]:
    """Return the cases whose files or patient are others than when the run was begun."""
    data = read_data(run)
    if data is None:
        return set()
    now = _present(data, experiment)
    return {name for name, case in now.items() if name not in data.cases or not _same(case, data.cases[name])}


def _present(data: RunData, experiment: Experiment) -> dict[str, CaseData]:
    """Return the cases that there are now; those whose files are as they were have the digests that they had."""
    scan = cases_of(experiment)

    def describe(case: Case) -> CaseData:
        known = data.cases.get(case.case_id)
        try:
            states = _states(case, experiment.dataset.path)
            same = known is not None and known.files == states
            return CaseData(known.digest if known and same else digest_of_files(case), case.patient, states)
        except OSError as error:  # a link to nothing, no permission
            return CaseData(f"unreadable: {error.strerror}", case.patient)

    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip((case.case_id for case in scan.cases), pool.map(describe, scan.cases), strict=True))


def _same(now: CaseData, before: CaseData) -> bool:
    return (now.digest, now.patient) == (before.digest, before.patient)


def _changes(data: RunData, now: Mapping[str, CaseData]) -> list[str]:
    """Return a text for each kind of change: removed, added, other files, another patient."""
    both = sorted(data.cases.keys() & now.keys())
    kinds = {
        "removed": sorted(data.cases.keys() - now.keys()),
        "added": sorted(now.keys() - data.cases.keys()),
        "changed": [case for case in both if now[case].digest != data.cases[case].digest],
        "of another patient": [case for case in both if now[case].patient != data.cases[case].patient],
    }
    return [_counted(names, kind) for kind, names in kinds.items() if names]


def _counted(names: Sequence[str], kind: str) -> str:
    return f"{len(names)} case{'s' * (len(names) != 1)} {kind}: {listed(names, MOST_NAMED)}"


def _dataset_digest(cases: Mapping[str, CaseData]) -> str:
    return digest({case: data.digest for case, data in cases.items()})[:12]


def _moved_folds(data: RunData, run: RunFolder, experiment: Experiment) -> list[Problem]:
    """Return the problem of a split of the prepared cases that was edited after the run was begun."""
    kept = kept_preparation(run, experiment)
    return [] if kept is None or not kept[0].splits.is_file() else changed_split(run, kept[0], data)


def changed_split(run: RunFolder, prepared: PreparedFolder, data: RunData | None = None) -> list[Problem]:
    """Return what differs between the folds of prepared cases and those that a run was begun with.

    Raises:
        DamagedFile: a split, or data.json, cannot be read.
    """
    data = data or read_data(run)
    if data is None or (now := read_splits(prepared.splits)) == data.splits:
        return []
    then, found = data.folds(), _folds(now)
    moved = [f"{case} in fold {found.get(case)}, was in {then.get(case)}" for case in sorted({**then, **found})
             if then.get(case) != found.get(case)]  # fmt: skip
    text = f"{len(moved)} case{'s' * (len(moved) != 1)} moved: {listed(moved, MOST_NAMED)}"
    if not moved:
        text = "other training cases in the folds"
    expected = f"the folds that the run was begun with (digest {digest(data.splits)[:12]})"
    advice = "restore the file, or delete the prepared folder: it is made again"
    return [Problem(str(prepared.splits), f"{text} (digest {digest(now)[:12]})", expected, advice)]


def _folds(splits: Splits) -> dict[str, int]:
    return {case: number for number, fold in enumerate(splits) for case in fold["val"]}


def content_digest(run: RunFolder, case: Case) -> str:
    """Return a digest of the files on which a case's scores depend: images, reference, and a phantom's oracle."""
    oracle = oracle_path(case)
    content = None if oracle is None else file_digest(oracle)
    return digest([known_digest(run, case.case_id) or digest_of_files(case), content])


def known_digest(run: RunFolder, case_id: str) -> str | None:
    """Return the digest of a case's files as a run knows it; None where the run does not know the case."""
    cases = _cases_of_run(run.data, run.data.stat().st_mtime_ns) if run.data.is_file() else {}
    return cases[case_id].digest if case_id in cases else None


def cases_of_other_files(first: RunFolder, second: RunFolder, cases: Iterable[str]) -> list[str]:
    """Return those of the cases whose files were others when one of two runs was begun, as far as both tell."""
    both = {case: (known_digest(first, case), known_digest(second, case)) for case in sorted(set(cases))}
    return [case for case, digests in both.items() if None not in digests and digests[0] != digests[1]]


@lru_cache(maxsize=4)
def _cases_of_run(file: Path, _time_ns: int) -> dict[str, CaseData]:
    data: RunData = read_json(file, LOST, shape=RunData)
    return data.cases
