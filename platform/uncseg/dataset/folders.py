"""What a folder of cases holds, and the walk through its folders."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from uncseg.dataset.cases import Case, stem_of
from uncseg.errors import Problem, ProblemsFound, listed, similar_path
from uncseg.tasks.fields import ConventionName
from uncseg.tasks.task import Task

References = Literal["required", "optional", "ignored"]


@dataclass(frozen=True)
class Scan:
    """What a folder holds.

    Args:
        task: what its files mean.
        convention: of the folder's labels.
        convention_reason: how it is known.
        cases: the complete ones, sorted by id.
        problems: incomplete cases, and whatever looks like an image and belongs to no case.
        partial: what there is of the cases that are incomplete, or cannot be used beside others.
        excluded: names that were to be left out, and are there.
        unused: image files in the cases' folders that are not read.
        remarks: sentences on what is odd in the folder as a whole.
    """

    task: Task
    convention: ConventionName
    convention_reason: str = "by default"
    cases: list[Case] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    partial: list[Case] = field(default_factory=list)
    excluded: set[str] = field(default_factory=set)
    unused: list[Path] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """The remarks, and a sentence on the image files that are not read, if there are any."""
        if not self.unused:
            return self.remarks
        count, names = len(self.unused), listed(file.name for file in self.unused)
        unused = f"{count} other image file{'s' * (count != 1)} in the cases' folders: not used ({names})"
        return [*self.remarks, unused]


def require_folder(folder: Path) -> None:
    """Refuse a dataset that is no folder.

    Raises:
        ProblemsFound: with exit code 2.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        advice = similar_path(folder, "correct the path, or make phantoms: uncseg phantom")
        problem = Problem(str(folder), found, "a folder with one folder per case", advice)
        raise ProblemsFound(f"The dataset {folder} cannot be used.", [problem])


def walk_folders(root: Path, problems: list[Problem], skip: Path | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Yield every folder once with the names in it, in order; folders behind links come after all others."""
    unvisited = [root.resolve()]
    links: list[Path] = []
    visited: set[tuple[int, int]] = set()
    while unvisited or links:
        folder = unvisited.pop() if unvisited else links.pop(0)
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            advice = "correct the permissions or the link, or move it away"
            problems.append(Problem(str(folder), str(error.strerror), "a folder that can be read", advice))
            continue
        if (status.st_dev, status.st_ino) in visited or (skip is not None and folder == skip.resolve()):
            continue
        visited.add((status.st_dev, status.st_ino))
        names: list[str] = []
        below: list[Path] = []
        for entry in entries:
            # a folder with the name of an image stands where the image should be
            if stem_of(entry.name) is not None or not _is_folder(entry):
                names.append(entry.name)
            elif not entry.name.startswith((".", "__MACOSX")):
                (links if entry.is_symlink() else below).append(Path(entry.path))
        unvisited += reversed(below)
        yield folder, names


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
