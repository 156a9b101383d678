"""Finding the pairs to score in folders of NIfTI files from any source."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uncseg.dataset.cases import FileNames
from uncseg.dataset.labels import AS_NAMED, AS_SET, as_convention, describe_convention, title_of
from uncseg.errors import Problem, ProblemsFound, listed
from uncseg.evaluation.folder_files import MapFolder, files_by_case, without_a_region
from uncseg.evaluation.masks_task import MasksDescription, choose_task, folder_of_masks, own_convention
from uncseg.evaluation.pairs import Pair
from uncseg.tasks.fields import MASK, ConventionName
from uncseg.tasks.task import Task

NOTHING = "There is nothing to score."


@dataclass(frozen=True)
class Pairs:
    """What two folders hold.

    Args:
        task: by which they are scored.
        complete: pairs, sorted by case.
        problems: one for each file that another one lacks, and files of which it is not clear what they are.
        notes: sentences on the task, and on what the labels of each folder mean.
    """

    task: Task
    complete: list[Pair] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Masks:
    """The masks of a folder by case, and what their labels mean."""

    files: dict[str, Path]
    convention: ConventionName


def find_pairs(
    predictions: Path,
    references: Path,
    uncertainty: Path | None = None,
    brain: Path | None = None,
    prediction_convention: str | None = None,
    reference_convention: str | None = None,
    task: Task | None = None,
) -> Pairs:
    """Find each case's prediction and reference, and on request its maps and its brain mask.

    Args:
        predictions, references: CASE.nii.gz, or CASE with an ending of the task's references (CASE-seg.nii.gz), also in
            subfolders, so that a folder of cases can serve as references. Or nnU-Net's raw dataset, with labelsTr.
        uncertainty: CASE_REGION.nii.gz for some or all regions, or one map: CASE_uncertainty.nii.gz or
            CASE.nii.gz.
        brain: CASE.nii.gz, or a folder of cases, of which the first modality is read; the brain is where it is not 0.
        prediction_convention, reference_convention: names of the task's conventions; None: as its files are named.
        task: what labels mean; None: as names of cases tell, as dataset.json says, or the paper's.

    Raises:
        ProblemsFound: no case is in both folders, or the task does not fit.
    """
    predictions, references = folder_of_masks(predictions), folder_of_masks(references)
    chosen = choose_task(predictions, references, task)
    found = Pairs(chosen.task, notes=[chosen.note])
    names = FileNames.of(chosen.task)
    reference = _masks(references, "REFERENCES", names, reference_convention, found)
    prediction = _masks(predictions, "PREDICTIONS", names, prediction_convention, found)
    brains = {} if brain is None else files_by_case(brain, names.task.modalities[0], names, found.problems).files
    found.problems.extend(_without(prediction.files, reference.files, "reference", references))
    found.problems.extend(_without(reference.files, prediction.files, "prediction", predictions))
    both = sorted(prediction.files.keys() & reference.files.keys())
    if not both:
        no_file = Problem(f"{predictions}, {references}", "no NIfTI file", "CASE.nii.gz in both", "correct the paths")
        raise ProblemsFound(NOTHING, found.problems or [no_file])
    maps_there = None if uncertainty is None else MapFolder.of(uncertainty, chosen.task)
    for case in both:
        files = prediction.files[case], reference.files[case]
        wrong: list[Problem] = []
        maps = {} if maps_there is None else maps_there.maps_of(case, files, wrong)
        if brain and case not in brains:
            wrong.append(Problem(case, f"no brain mask in {brain}", f"{case}.nii.gz", "add it, or leave --brain out"))
        found.problems.extend(wrong)
        if not wrong:
            conventions = reference.convention, prediction.convention
            found.complete.append(Pair(case, *files, maps, brains.get(case), chosen.task, *conventions))
    return _with_all_regions(found)


def _with_all_regions(found: Pairs) -> Pairs:
    """Leave out the cases that lack a map of a region of which others have one."""
    lacking = without_a_region({pair.case_id: pair.uncertainty for pair in found.complete}, found.task)
    complete = [pair for pair in found.complete if pair.case_id not in lacking]
    return Pairs(found.task, complete, [*found.problems, *lacking.values()], found.notes)


def _without(files: Mapping[str, Path], others: Container[str], what: str, folder: Path) -> list[Problem]:
    """Return a problem for each file whose case is not among the others."""
    return [
        Problem(str(file), f"no {what}", f"one in {folder}", "add it, or leave this out")
        for name, file in sorted(files.items())
        if name not in others
    ]


def _masks(folder: Path, side: str, names: FileNames, wanted: str | None, found: Pairs) -> _Masks:
    """Return the masks of a folder; names of several conventions are a problem unless one is wanted.

    Endings tell a convention. CASE.nii.gz tells none: under it this program writes labels as the task numbers them.
    What nnU-Net's models and datasets mean by their labels stands in dataset.json.
    """
    option, task = f"--{side.lower().removesuffix('s')}-convention", names.task
    chosen = as_convention(wanted, option, task)
    there = files_by_case(folder, MASK, names, found.problems)
    described = MasksDescription.of(folder)
    if chosen is not None:
        reason = AS_SET
    elif there.examples:
        chosen, reason = next(iter(there.examples)), AS_NAMED
        if len(there.examples) > 1:
            found.problems.append(_several_conventions(folder, there.examples, task, option))
    elif described is not None:
        chosen, reason = described.convention(task, option), "by dataset.json"
    else:
        chosen, reason = own_convention(task), "no name tells another"
    found.notes.append(f"{side}: {describe_convention(chosen, reason, task)}")
    if there.left:
        what = f"{len(there.left)} other file{'s' * (len(there.left) != 1)} of the masks' cases or in their folders"
        found.notes.append(f"{side}: {what}: not taken as masks ({listed(there.left)})")
    return _Masks(there.files, chosen)


def _several_conventions(folder: Path, examples: Mapping[ConventionName, str], task: Task, option: str) -> Problem:
    found = " and ".join(f"names of {title_of(task, key)} ({name})" for key, name in examples.items())
    expected = "one convention per folder, because a value may have a meaning in one of them only"
    return Problem(str(folder), found, expected, f"keep them in two folders, or give {option}")
