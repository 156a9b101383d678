"""Loading a study: its YAML file, the base experiment that it names, and the JSON record of both in its folder."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import Field, ValidationError

from uncseg.config.experiment import Experiment, load_experiment, saved_experiment
from uncseg.config.fields import as_assignments
from uncseg.config.reading import Override, read_yaml, require_kind, validate
from uncseg.config.sections import Storage
from uncseg.errors import DamagedFile, Problem, ProblemsFound
from uncseg.files import json_text, read_json, write_text
from uncseg.section import FilePath, RunName, Section, first_wrong
from uncseg.studies.study_folder import StudyFolder


class Study(Section):
    """Fields that the files of all kinds of studies share."""

    kind: ClassVar[str]
    """As in the kind's folder."""
    name: RunName
    base: FilePath
    """Experiment file."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """FIELD: VALUE, set in the base for all runs."""

    @property
    @abstractmethod
    def params(self) -> dict[str, str]:
        """Parameters of the study's own run in MLflow."""


AnyStudy = TypeVar("AnyStudy", bound=Study)


def load_study(path: Path, model: type[AnyStudy], overrides: list[str] | None) -> tuple[AnyStudy, Experiment]:
    """Read a study's YAML file and its base experiment; apply ``overrides``, FIELD=VALUE, after the file's own.

    Raises:
        ProblemsFound: with every problem of the file, or of the base.
    """
    title = _title(path, model)
    content = read_yaml(path, title, f"experiments/{model.kind}s")
    require_kind(content, path, model.kind, title)
    study = validate(model, content, path, title)
    return study, load_experiment(study.base, [*placed(study.overrides, f"{path}: overrides."), *(overrides or [])])


def placed(fields: Mapping[str, Any], before: str) -> list[Override]:
    """Return the fields that a study's file sets in its base, with their place: their name after ``before``."""
    return [Override(one, f"{before}{name}") for one, name in zip(as_assignments(fields), fields, strict=True)]


def _title(path: Path, model: type[Study]) -> str:
    return f"The {model.kind} {path} cannot be used."


class Checks(list[Problem]):
    """The problems that the checks of a study find in its file; each says ``where`` by the field's name."""

    def require(self, holds: bool, where: str, found: object, expected: str, advice: str) -> None:
        """Add a problem unless what is required holds."""
        if not holds:
            self.append(Problem(where, str(found), expected, advice))

    def raise_all(self, path: Path, study: Study) -> None:
        """Raise :class:`ProblemsFound` with all problems, each naming the file, if there are any."""
        if self:
            problems = [replace(problem, where=f"{path}: {problem.where}") for problem in self]
            raise ProblemsFound(_title(path, type(study)), problems)


STUDY_ADVICE = "restore it from a copy; the folder cannot be used without it"


def study_record(study: Study, base: Experiment) -> dict[str, Any]:
    """Return what a study's folder keeps of its file and of its base."""
    experiment = base.resolved().model_dump(mode="json")
    return {study.kind: study.model_dump(mode="json", exclude={"base"}), "experiment": experiment}


def save_study(folder: StudyFolder, study: Study, base: Experiment) -> None:
    """Write the study's record into its folder; the order of its fields is kept, because that of regions counts."""
    write_text(folder.content, json_text(study_record(study, base), indent=2) + "\n")


def read_study(folder: StudyFolder, model: type[AnyStudy]) -> tuple[AnyStudy, Experiment]:
    """Read the study and its base back from the study's folder; the storage is the one in which that lies now.

    Raises:
        DamagedFile: the record is not as it was written.
    """
    record = read_json(folder.content, STUDY_ADVICE, dict[str, dict[str, Any]], keys=(model.kind, "experiment"))
    try:
        study = model.model_validate({"base": str(folder.content)} | record[model.kind])
        base = saved_experiment(record["experiment"])
    except ValidationError as error:
        found = f"wrong fields: {first_wrong(error)}"
        raise DamagedFile.of(folder.content, found, "the study that was written", STUDY_ADVICE) from error
    return study, base.model_copy(update={"storage": Storage(path=folder.root.parent)})
