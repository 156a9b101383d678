"""Lists of cases that an experiment names: who is a patient, and folds of one's own. They are read once, at loading.

An experiment that was loaded holds their content, so that a run needs none of these files again, and other content
under the same path is seen as another setting.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from uncseg.config.list_files import read_csv, read_nnunet_splits
from uncseg.errors import Problem, listed
from uncseg.files import digest
from uncseg.section import Section

PATIENTS, FILE, GROUPS = "dataset.patients", "split.file", "split.groups"


class PatientList(Section):
    """The patient of each case, from a csv file."""

    read_from: Path
    patients: dict[str, str]
    """Patient by case."""


class FoldCases(Section):
    """One fold of a split of one's own."""

    val: tuple[str, ...]
    """Cases that this fold predicts."""
    train: tuple[str, ...] | None = None
    """Cases that it is trained on. None: those that the other folds predict."""
    group: str | None = None
    """The group that is left out, for example a site."""


class FoldList(Section):
    """A split of one's own, from a file."""

    read_from: Path
    folds: Annotated[tuple[FoldCases, ...], Field(min_length=2)]

    @property
    def groups(self) -> list[str] | None:
        """The group that each fold leaves out; None unless the split is one by groups."""
        return [str(fold.group) for fold in self.folds] if self.folds[0].group is not None else None


def read_lists(content: dict[str, Any]) -> list[Problem]:
    """Replace the names of files in an experiment's content by what the files say, in place; return what is wrong.

    A file that cannot be used is replaced by None, so that the other fields can be checked. ``split.folds`` is set
    where it is absent.
    """
    problems: list[Problem] = []
    dataset, split = (
        section if isinstance(section := content.get(name), dict) else {} for name in ("dataset", "split")
    )
    readers = {PATIENTS: (dataset, read_patients), FILE: (split, _read_fold_file), GROUPS: (split, _read_groups)}
    if split.get("file") is not None and split.get("groups") is not None:
        problems.append(Problem(GROUPS, "split.file as well", "one of the two", "remove one of them"))
    for where, (section, reader) in readers.items():
        field = where.rpartition(".")[2]
        value = section.get(field)
        if value is None or isinstance(value, Mapping):  # a mapping: read before, by the command that began the run
            continue
        if isinstance(value, str):
            read, wrong = reader(value, where)
        else:
            expected = "a text: the name of a file" + " or a pattern" * (where == PATIENTS)
            read, wrong = None, [Problem(where, repr(value), expected, "put it into quotes, or correct it")]
        section[field] = read.model_dump(mode="json") if isinstance(read, Section) else read
        problems += wrong
    given = split.get("file") or split.get("groups")
    if isinstance(given, Mapping) and split.get("folds") is None:
        folds = given.get("folds")
        split["folds"] = len(folds) if isinstance(folds, list) else 0
    return problems


def short_lists(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return an experiment's content with a short text in place of each list; other contents have other texts."""
    short = dict(content)
    for where in (PATIENTS, FILE, GROUPS):
        name, _, field = where.partition(".")
        section = short.get(name)
        if isinstance(section, Mapping) and isinstance(value := section.get(field), Mapping):
            cases = value.get("patients") if where == PATIENTS else value.get("folds")
            what = "cases" if where == PATIENTS else "folds"
            text = f"{len(cases or ())} {what}, digest {digest(cases)[:10]}"
            short[name] = {**section, field: text}
    return short


def read_patients(text: str, where: str) -> tuple[PatientList | str | None, list[Problem]]:
    """Return who is a patient as a setting says, and what is wrong with it.

    Args:
        text: name of a csv file with the columns case and patient, which ends in .csv; or a regular expression that is
            searched for in a case's name, and whose first group is the patient.
        where: the field or option, for the problems.
    """
    if text.lower().endswith(".csv"):
        path = Path(text)
        patients, problems = read_csv(path, "patient", where)
        return (None if problems else PatientList(read_from=path.absolute(), patients=patients)), problems
    expected = r"patients.csv, or a regular expression whose first group is the patient, as (\w+)_\d+"
    try:
        pattern = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        advice = "correct the expression; the name of a file ends in .csv"
        return None, [Problem(where, f"{text}, which is no regular expression: {error}", expected, advice)]
    if not pattern.groups:
        advice = "put the patient's part into parentheses; the name of a file ends in .csv"
        return None, [Problem(where, f"{text}, which has no group", expected, advice)]
    if pattern.search(""):
        return None, [Problem(where, f"{text}, which fits a name without letters", expected, "write + in place of *")]
    return text, []


def _read_groups(text: str, where: str) -> tuple[FoldList | None, list[Problem]]:
    """Read a csv file with the columns case and group: one fold per group, in sorted order."""
    path = Path(text)
    group_of, problems = read_csv(path, "group", where)
    members = _members(group_of)
    if not problems and len(members) < 2:
        problems.append(_too_few(f"{where}: {path}", len(members), "group"))
    folds = [FoldCases(val=tuple(members[group]), group=group) for group in sorted(members)]
    return _fold_list(path, folds, problems)


def _read_fold_file(text: str, where: str) -> tuple[FoldList | None, list[Problem]]:
    """Read nnU-Net's splits_final.json, or a csv file with the columns case and fold."""
    path = Path(text)
    if path.suffix.lower() == ".json":
        return _read_nnunet_splits(path, f"{where}: {path}")
    if path.suffix.lower() != ".csv":
        expected = "nnU-Net's splits_final.json, or a csv file with the columns case and fold"
        return None, [Problem(where, text, expected, "give a name that ends in .json or .csv")]
    fold_of, problems = read_csv(path, "fold", where)
    members = _members(fold_of)
    where = f"{where}: {path}"
    wrong = [fold for fold in members if not re.fullmatch(r"\d{1,4}(\.0*)?", fold)]
    by_number: dict[int, list[str]] = defaultdict(list)
    for fold, cases in members.items():
        if fold not in wrong:
            by_number[int(float(fold))] += cases
    if wrong:
        found, advice = "fold " + listed(sorted(wrong)), "number the folds 0, 1, 2, …"
        problems.append(Problem(where, found, "whole numbers from 0", advice))
    elif not problems and sorted(by_number) != list(range(len(by_number))):
        found, expected = "folds " + listed(map(str, sorted(by_number))), f"0 to {len(by_number) - 1} without a gap"
        problems.append(Problem(where, found, expected, "number the folds 0, 1, 2, …"))
    elif not problems and len(by_number) < 2:
        problems.append(_too_few(where, len(by_number), "fold"))
    return _fold_list(path, [FoldCases(val=tuple(sorted(by_number[n]))) for n in sorted(by_number)], problems)


def _fold_list(
    path: Path, folds: Sequence[FoldCases], problems: list[Problem]
) -> tuple[FoldList | None, list[Problem]]:
    return (None if problems else FoldList(read_from=path.absolute(), folds=tuple(folds))), problems


def _members(value_of: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the cases of each value, sorted."""
    members: dict[str, list[str]] = defaultdict(list)
    for case in sorted(value_of):
        members[value_of[case]].append(case)
    return members


def _too_few(where: str, number: int, what: str) -> Problem:
    found = f"{number} {what}{'s' * (number != 1)}"
    return Problem(where, found, "2 at least: a fold predicts what the others were trained on", f"add a {what}")


def _read_nnunet_splits(path: Path, where: str) -> tuple[FoldList | None, list[Problem]]:
    entries, problems = read_nnunet_splits(path, where)
    if problems:
        return None, problems
    if len(entries) < 2:
        return None, [_too_few(where, len(entries), "fold")]
    predicted = {case for entry in entries for case in entry["val"]}
    folds = []
    for entry in entries:
        train, others = sorted(entry["train"]), sorted(predicted.difference(entry["val"]))
        folds.append(FoldCases(val=tuple(sorted(entry["val"])), train=None if train == others else tuple(train)))
    return _fold_list(path, folds, [])
