"""nnU-Net's raw dataset, taken as it is: imagesTr/CASE_0000.nii.gz, labelsTr/CASE.nii.gz and dataset.json."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from uncseg.config.task_files import nnunet_dataset_json, read_dataset_json
from uncseg.dataset.cases import Case, is_image, is_oracle, name_problems, stem_of
from uncseg.dataset.folders import References, Scan, walk_folders
from uncseg.dataset.labels import AS_SET, BY_DATASET_JSON, TASK_SETTING
from uncseg.dataset.patients import patient_of
from uncseg.errors import Problem, ProblemsFound, first_problems, listed, raise_if_any
from uncseg.files import read_json
from uncseg.tasks.fields import ConventionName
from uncseg.tasks.nnunet_dataset import by_all_names, modalities_of, plain
from uncseg.tasks.task import Task

IMAGES, REFERENCES = "imagesTr", "labelsTr"
Images = dict[str, dict[int, list[Path]]]
"""Files by case and channel; more than one where a file is there as .nii and as .nii.gz."""


def scan_nnunet(
    folder: Path, references: References, wanted: ConventionName | None, exclude: Collection[str], task: Task
) -> Scan:
    """Find the cases of nnU-Net's raw dataset, as :func:`~uncseg.dataset.scan.scan_folder` does.

    Raises:
        ProblemsFound: the task does not fit dataset.json (exit code 2), or that or the cases are wrong (1).
    """
    folder = folder.resolve()
    content, order, convention = _description(folder, task, wanted, with_labels=references != "ignored")
    scan = Scan(task, convention, AS_SET if wanted is not None else BY_DATASET_JSON)
    images, masks = _files(folder, content, scan.problems)
    masks = {} if references == "ignored" else masks
    scan.problems.extend(_problems_of_description(folder / "dataset.json", content, masks or images))
    left_out = _left_out(images, masks, exclude)
    scan.excluded.update(*left_out.values())
    for name in sorted((images.keys() | masks.keys()) - left_out.keys()):
        problems = [*name_problems(name), *_problems_of_case(name, images, masks, order, references == "required")]
        files = [by_channel[0] for number in order if (by_channel := images.get(name, {}).get(number))]
        case = Case(name, patient_of(name, task), tuple(files), next(iter(masks.get(name, [])), None), convention)
        (scan.partial if problems else scan.cases).append(case)
        scan.problems.extend(problems)
    if not (scan.cases or scan.partial or scan.excluded):
        seen = listed(sorted(path.name for path in (folder / IMAGES).iterdir())) or "nothing"
        problem = Problem(str(folder / IMAGES), f"no case; there is {seen}", "CASE_0000.nii.gz, …", "add the images")
        raise ProblemsFound(f"The dataset {folder} cannot be used.", [problem, *scan.problems], exit_code=1)
    with_images = [parent for parent, names in walk_folders(folder, []) if any(map(is_image, names))]
    own = (folder, folder / IMAGES, folder / REFERENCES)
    if unused := sorted(str(parent.relative_to(folder)) for parent in with_images if parent not in own):
        scan.remarks.append(f"{listed(unused)} of {folder.name}: not used")
    return scan


def _description(
    folder: Path, task: Task, wanted: ConventionName | None, with_labels: bool
) -> tuple[dict[str, Any], list[int], ConventionName]:
    """Return dataset.json, the channel of each of the task's modalities, and the convention of the masks.

    Raises:
        ProblemsFound: the task has other channels, or other labels where these are needed.
    """
    file = nnunet_dataset_json(folder)
    assert file is not None
    described, problems = read_dataset_json(file, str(file))
    if described is None:
        raise ProblemsFound(f"The dataset {folder} cannot be used.", problems, exit_code=1)
    content = dict(read_json(file))
    if described == task:
        return content, list(range(len(task.modalities))), task.convention
    advice = f"leave {TASK_SETTING} out, so that dataset.json says what they mean, or name the task that it describes"
    numbers = modalities_of(described.modalities, task)
    if len(numbers) != len(task.modalities) or set(numbers) != set(range(len(task.modalities))):
        found, expected = "channels " + ", ".join(described.modalities), ", ".join(task.modalities)
        problems.append(Problem(str(file), found, f"those of task {task.name}: {expected}", advice))
    conventions = list(task.conventions) if wanted is None else [wanted]
    fitting = _fitting(content, described, task, conventions)
    if with_labels and not fitting:
        found = ", ".join(f"{name} {value}" for name, value in content["labels"].items())
        expected = " or ".join(dict.fromkeys(task.describe_labels(name) for name in conventions))
        problems.append(Problem(str(file), f"labels {found}", f"those of task {task.name}: {expected}", advice))
    raise_if_any(problems, f"Task {task.name} does not fit the dataset {folder}.")
    order = [numbers.index(number) for number in range(len(task.modalities))]
    return content, order, fitting[0] if fitting else task.convention


def _fitting(
    content: Mapping[str, Any], described: Task, task: Task, conventions: Sequence[ConventionName]
) -> list[ConventionName]:
    """Return the conventions in which the task's labels, or its regions, have the values of dataset.json."""
    regions = any(isinstance(value, list) for value in content["labels"].values())
    same = _same_regions if regions else _same_labels
    return [name for name in conventions if same(described, task.values(name), task)]


def _same_labels(described: Task, values: Mapping[str, int], task: Task) -> bool:
    """Return whether the labels of dataset.json have the task's names, and its values in a convention."""
    known = by_all_names(values, task)
    return sorted(described.labels.values()) == sorted(values.values()) and all(
        known.get(plain(name)) == value for name, value in described.labels.items()
    )


def _same_regions(described: Task, values: Mapping[str, int], task: Task) -> bool:
    """Return whether the regions of dataset.json have the task's values in a convention; names may be others."""
    own = {plain(name): sorted(values[label] for label in part) for name, part in task.regions.items()}
    theirs = {plain(name): sorted(part) for name, part in described.numbers.items()}
    return sorted(own.values()) == sorted(theirs.values()) and all(
        own.get(name, part) == part for name, part in theirs.items()
    )


def _files(folder: Path, content: Mapping[str, Any], problems: list[Problem]) -> tuple[Images, dict[str, list[Path]]]:
    """Return images and references by case: those that dataset.json lists, or else all that are there.

    Raises:
        ProblemsFound: the list of dataset.json cannot be read.
    """
    if isinstance(listing := content.get("dataset"), Mapping):
        _require_files(folder / "dataset.json", listing)
        listed_images = {
            name: {number: [folder / file] for number, file in enumerate(files["images"])}
            for name, files in listing.items()
        }
        return listed_images, {name: [folder / files["label"]] for name, files in listing.items()}
    images, masks = channel_files(folder / IMAGES), defaultdict[str, list[Path]](list)
    for file in sorted((folder / REFERENCES).iterdir()):
        if stem := stem_of(file.name):
            masks[stem].append(file)
    by_case = [*masks.values(), *(files for by_channel in images.values() for files in by_channel.values())]
    known = {file for files in by_case for file in files}
    there = [file for place in (folder / IMAGES, folder / REFERENCES, folder) for file in sorted(place.iterdir())]
    expected, advice = "CASE_0000.nii.gz, or in labelsTr CASE.nii.gz", "rename it, or move it away"
    stray = [
        Problem(str(file), "an image of another name or format", expected, advice)
        for file in there
        if is_image(file.name) and file not in known and not any(is_oracle(case, file.name) for case in images)
    ]
    problems += first_problems(stray)
    return images, masks


def channel_files(folder: Path) -> Images:
    """Return the images in a folder that have nnU-Net's names, CASE_0000.nii.gz; other files are left out."""
    images: Images = defaultdict(lambda: defaultdict(list))
    for file in sorted(folder.iterdir()):
        if match := re.fullmatch(r"(.+)_(\d{4})", stem_of(file.name) or ""):
            images[match[1]][int(match[2])].append(file)
    return images


def _require_files(file: Path, listing: Mapping[str, Any]) -> None:
    expected = "{images: [FILE, …], label: FILE}"
    wrong = [
        Problem(f"{file}: dataset.{name}", "no list of files", expected, "correct the file")
        for name, files in listing.items()
        if not isinstance(files, Mapping)
        or not isinstance(images := files.get("images"), list)
        or not all(isinstance(path, str) for path in [*images, files.get("label")])
    ]
    raise_if_any(first_problems(wrong), f"The dataset {file.parent} cannot be used.", exit_code=1)


def _problems_of_description(file: Path, content: Mapping[str, Any], cases: Collection[str]) -> list[Problem]:
    problems = []
    ending, number = content.get("file_ending", ".nii.gz"), content.get("numTraining")
    if stem_of(f"CASE{ending}") is None:
        problems.append(Problem(str(file), f"file_ending {ending}", ".nii.gz or .nii", "convert the images to NIfTI"))
    if isinstance(number, int) and number != len(cases):
        found, advice = f"numTraining {number}, and {len(cases)} cases", "correct the number, or complete the download"
        problems.append(Problem(str(file), found, "the number of cases", advice))
    return problems


def _left_out(images: Images, masks: Mapping[str, list[Path]], exclude: Collection[str]) -> dict[str, set[str]]:
    """Return the cases to leave out, each with the names that say so; a file's name stands for its case."""
    names = {
        case: {case, *(file.name for found in (*images.get(case, {}).values(), masks.get(case, [])) for file in found)}
        for case in images.keys() | masks.keys()
    }
    return {case: said for case, own in names.items() if (said := own.intersection(exclude))}


def _problems_of_case(
    name: str, images: Images, masks: Mapping[str, Sequence[Path]], order: Sequence[int], with_reference: bool
) -> list[Problem]:
    by_channel, problems = images.get(name, {}), []
    missing = [f"{IMAGES}/{name}_{number:04d}.nii.gz" for number in sorted(order) if not by_channel.get(number)]
    if with_reference and not masks.get(name):
        missing.append(f"{REFERENCES}/{name}.nii.gz")
    expected = f"{len(order)} image{'s' * (len(order) != 1)}{' and a reference' * with_reference}"
    problems += [Problem(file, "no such file", expected, "add it or exclude the case") for file in missing]
    if more := [file.name for number, files in by_channel.items() if number not in order for file in files]:
        problems.append(Problem(name, listed(more), expected, "remove them, or name them in dataset.json"))
    for files in (*by_channel.values(), masks.get(name, [])):
        if len(files) > 1:
            problems.append(Problem(name, " and ".join(file.name for file in files), "one file", "remove the others"))
    return problems
