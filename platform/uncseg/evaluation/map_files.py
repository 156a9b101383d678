"""Finding the uncertainty maps of cases that are to be scored."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uncseg.dataset.cases import ending_of
from uncseg.errors import Problem
from uncseg.layout import UNCERTAINTY
from uncseg.tasks.task import Task


@dataclass(frozen=True)
class MapFolder:
    """A folder of maps.

    Args:
        folder: CASE_REGION.nii.gz for some or all regions, or one map for the main region and those within it:
            CASE_uncertainty.nii.gz or CASE.nii.gz.
        files: NIfTI files in it by their names without the ending, in lower case.
        task: whose regions they are.
    """

    folder: Path
    files: Mapping[str, Sequence[Path]]
    task: Task

    @classmethod
    def of(cls, folder: Path, task: Task) -> "MapFolder":
        """List a folder."""
        found: dict[str, list[Path]] = defaultdict(list)
        for file in sorted(folder.iterdir()):
            if ending := ending_of(file.name):
                found[file.name[: -len(ending)].lower()].append(file)
        return cls(folder, found, task)

    def maps_of(self, case: str, masks: Sequence[Path], problems: list[Problem]) -> dict[str, Path]:
        """Return a case's maps by region; its masks, where they lie in the same folder, do not count as maps."""

        def find(suffix: str) -> Path | None:
            files = self.files.get(f"{case}{suffix}".lower(), ())
            files = [file for file in files if file.name.startswith(case)] or files
            files = [file for file in files if not any(_is_same(file, mask) for mask in masks)]
            if len(files) > 1:
                names = " and ".join(file.name for file in files)
                problems.append(Problem(f"{case}: uncertainty", names, "one of them", "remove the other"))
            return files[0] if files else None

        keys = self.task.region_keys
        maps = {region: file for region, key in keys.items() if (file := find(f"_{key}")) is not None}
        whole = find(f"_{UNCERTAINTY}") or find("")
        if whole is not None:
            # beside maps of other regions it is that of the main one
            maps = {self.task.main_region: whole, **maps} if maps else dict.fromkeys(self.task.regions_of_map, whole)
        if not maps:
            expected = ", ".join(f"{case}_{key}.nii.gz" for key in keys.values()) + f", or {case}.nii.gz"
            found = f"no map in {self.folder}"
            problems.append(Problem(f"{case}: uncertainty", found, expected, "add it, or exclude the case"))
        return maps


def _is_same(one: Path, other: Path) -> bool:
    # a link to nothing is no other file; whoever reads it says so
    return one.exists() and other.exists() and one.samefile(other)


def without_a_region(maps: Mapping[str, Collection[str]], task: Task) -> dict[str, Problem]:
    """Return a problem per case that lacks a map of a region of which others have one.

    Args:
        maps: by case the regions that it has maps of.
        task: whose regions they are.
    """
    regions = [region for region in task.regions if any(region in known for known in maps.values())]
    missing = {case: [region for region in regions if region not in known] for case, known in maps.items()}
    expected = f"maps of {', '.join(regions)}, as other cases have"
    return {
        case: Problem(f"{case}: uncertainty", f"no map of {', '.join(without)}", expected, "add it")
        for case, without in missing.items()
        if without
    }
