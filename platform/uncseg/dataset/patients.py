"""Who is a patient: by the names of cases, the task, a csv file, or a pattern. Scans of a patient stay in one fold."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from uncseg.config.case_lists import PATIENTS, PatientList, read_patients
from uncseg.errors import Problem, first_problems, listed, raise_if_any
from uncseg.tasks.task import Task

OPTION, UNKNOWN = "--patients", "It is not known who is a patient."
_NAMES = {
    "BraTS-XXX-NNNNN-NNN": r"(BraTS(?:-[A-Z]+)+-\d+)-\d+",
    "UPENN-GBM-NNNNN_NN": r"(UPENN-GBM-\d+)_\d+",
    "UCSF-PDGM-NNNN_FUNNNd": r"(UCSF-PDGM-\d+)(?:_FU\d+d)?(?:_nifti)?",
    "sub-NN_ses-NN": r"(sub-[A-Z0-9]+)(?:_.*)?",
}
"""Names of public datasets that tell the patient, the first group, and how such names are written."""
_ONE_SCAN_EACH = re.compile(r"BraTS(?:\d\d|20\d\d)_.*", re.IGNORECASE)
"""Names of BraTS 2017 to 2021: whatever they end in, each is another patient."""
_DATE = re.compile(r"(.*[^-_. ])[-_. ]+(\d{4}[-_.]\d\d?[-_.]\d\d?)")
_LAST_PART = re.compile(r"(.*[^-_. ])[-_. ]+([^-_. ]+)")
_MOST_SCANS = 10
"""Names that differ only in a last number are probably scans of one patient if there are at most so many."""


@dataclass(frozen=True)
class Patients:
    """The patients of some cases.

    Args:
        of: patient by case.
        known_by: how they are known, for example "by patients.csv".
        warnings: names in which the task's pattern finds no patient, and names that look like scans of one patient and
            count as several patients.
    """

    of: Mapping[str, str]
    known_by: str
    warnings: tuple[Problem, ...] = ()

    def __str__(self) -> str:
        number = len(set(self.of.values()))
        return f"{number} patient{'s' * (number != 1)}, {self.known_by}"


def patient_of(case_id: str, task: Task) -> str:
    """Return the patient that a case's name tells: BraTS-GLI-00012 of BraTS-GLI-00012-000; of other names the name."""
    known = _known_name(case_id, task)
    return case_id if known is None else known[1]


def _known_name(case_id: str, task: Task) -> tuple[str, str] | None:
    """Return how names like this are written, and the patient: as the task says, else as public datasets do."""
    if task.patients and (match := re.search(task.patients, case_id)) and match[1]:
        return f"{task.patients} of task {task.name}", match[1]
    for written, pattern in _NAMES.items():
        if match := re.fullmatch(pattern, case_id, re.IGNORECASE):
            return written, match[1]
    return None


def find_patients(
    case_ids: Collection[str], setting: PatientList | str | None = None, where: str = PATIENTS, *, task: Task
) -> tuple[Patients, list[Problem]]:
    """Return the patients of cases, and the cases whose patient a setting does not tell.

    Args:
        case_ids: names of cases.
        setting: of :func:`~uncseg.config.case_lists.read_patients`; None: the names tell.
        where: the field or option, for the problems.
        task: whose pattern of patients holds without a setting.
    """
    if setting is None:
        return _by_names(case_ids, task), []
    if isinstance(setting, PatientList):
        patients = {case: setting.patients[case] for case in case_ids if case in setting.patients}
        name = setting.read_from.name
        where, found, known_by = f"{where}: {setting.read_from}", "no line", f"by {name}"
        expected, advice = "the patient of every case", "add a line, or exclude the case"
    else:
        matches = {case: re.search(setting, case) for case in case_ids}
        patients = {case: match[1] for case, match in matches.items() if match and match[1]}
        found, known_by = f"{setting}, which finds no patient", f"by the pattern {setting}"
        expected, advice = "a pattern that fits every case", "correct the pattern, or exclude the case"
    missing = [
        Problem(where, f"{found} for {case}", expected, advice) for case in sorted(case_ids) if case not in patients
    ]
    return Patients(patients, known_by), first_problems(missing)


def as_patients(option: str | None) -> PatientList | str | None:
    """Return what a command's option ``--patients`` says, a csv file or a pattern; None: the names tell.

    Raises:
        ProblemsFound: the file or the pattern cannot be used.
    """
    setting, problems = (None, []) if option is None else read_patients(option, OPTION)
    raise_if_any(problems, UNKNOWN)
    return setting


def require_patients(case_ids: Collection[str], setting: PatientList | str | None, task: Task) -> Patients:
    """Return the patients of cases as the option ``--patients`` says.

    Raises:
        ProblemsFound: it does not tell the patient of every case.
    """
    patients, problems = find_patients(case_ids, setting, OPTION, task=task)
    raise_if_any(problems, UNKNOWN)
    return patients


def _by_names(case_ids: Collection[str], task: Task) -> Patients:
    known = {case: _known_name(case, task) for case in sorted(case_ids)}
    written = list(dict.fromkeys(name[0] for name in known.values() if name is not None))
    others = [case for case, name in known.items() if name is None]
    patients = {case: case if name is None else name[1] for case, name in known.items()}
    if not written:
        known_by = "each case its own: no name tells more"
    else:
        known_by = "by the names " + " and ".join(written)
        if others:
            known_by += f", and {len(others)} case{'s' * (len(others) != 1)} of other names, each its own"
    return Patients(patients, known_by, (*_not_told(others, task), *similar_names(others)))


def _not_told(others: Collection[str], task: Task) -> list[Problem]:
    """Return the problem of a task's pattern that finds no patient in some names."""
    if task.patients is None or not others:
        return []
    found = f"{task.patients}, which finds no patient in {listed(others)}, so that each counts as one"
    expected = "a pattern that fits every case"
    return [Problem(f"task {task.name}: patients", found, expected, "correct the pattern, or give --patients")]


def similar_names(case_ids: Collection[str]) -> list[Problem]:
    """Return a problem per group of names that differ only in a last part, as patient1_pre and patient1_post.

    Last parts that number all cases (case_001, case_002, …) do not count, and neither do the names of BraTS 2017 to
    2021.

    Args:
        case_ids: names that count as one patient each.
    """
    names = sorted(case for case in case_ids if not _ONE_SCAN_EACH.fullmatch(case))
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        match = _DATE.fullmatch(name) or _LAST_PART.fullmatch(name)
        stem, part = match.groups() if match else (name, "")
        groups[stem][name] = part
    for name in names:  # patient1 beside patient1_post
        if name in groups and name not in groups[name]:
            groups[name][name] = ""
    return first_problems(
        [
            _similar(stem, list(parts))
            for stem, parts in sorted(groups.items())
            if _is_one_patient(stem, parts, len(groups))
        ]
    )


def _is_one_patient(stem: str, parts: Mapping[str, str], groups: int) -> bool:
    """Return whether names of one stem are probably scans of one patient."""
    if len(parts) < 2:
        return False
    if not all(part.isdecimal() for part in parts.values()):
        return True
    # numbers of patients, as in case_001 or HGG_001, or of scans, as in patient1_1
    return len(parts) <= _MOST_SCANS and (groups > 1 or any(character.isdigit() for character in stem))


def _similar(stem: str, names: list[str]) -> Problem:
    found = f"{listed(names)}: names that differ only in a last part, and count as {len(names)} patients"
    expected = "scans of one patient under one patient, so that they stay in one fold"
    advice = "if they are, say so: dataset.patients or --patients, a csv (case, patient) or a pattern"
    return Problem(stem, found, expected, advice)
