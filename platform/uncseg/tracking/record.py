"""What MLflow is told, and what the manifest remembers about it.

    record = MlflowRecord.read(run.manifest)
    record.parent.run_id
    record.write(run.manifest)

The syncer changes the record as it goes, so that it always says what MLflow holds. A run has a parent entry and one
entry per fold; a study (a sweep or a benchmark) has a parent entry alone.
"""

import dataclasses
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, field
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from uncseg.config.addresses import sqlite_path
from uncseg.errors import Problem, ProblemsFound
from uncseg.layout import own_database
from uncseg.tracking.manifest import read_manifest, update_manifest
from uncseg.tracking.shown import shown_params
from uncseg.tracking.spool import now_ms

EMBEDDED = "embedded"
"""Stands in a manifest for the database of the storage that its folder lies in, wherever that is."""
_STRICT = ConfigDict(extra="forbid")


@dataclasses.dataclass(frozen=True)
class RunDescription:
    """What MLflow is told about a run when it is created."""

    name: str
    """Name of the parent run; a fold's run appends its number."""
    params: Mapping[str, str]
    """Settings, logged on the parent."""
    tags: Mapping[str, str]
    """Set on the parent and on every fold; ``mlflow.parentRunId`` puts the parent below a study's run."""
    dataset: tuple[str, str] | None = None
    """Name and folder of the cases, shown with the parent under the digest among the tags."""

    @classmethod
    def from_experiment(cls, experiment: Mapping[str, Any], name: str, tags: Mapping[str, str]) -> Self:
        """Describe the run of a resolved experiment, a nested dict; ``name`` is used if the experiment has none."""
        cases = experiment.get("dataset")
        dataset = (str(cases["name"]), str(cases["path"])) if cases else None
        return cls(str(experiment.get("name", name)), shown_params(experiment), dict(tags), dataset)


@dataclass(config=_STRICT)
class RunEntry:
    """What MLflow holds of one run."""

    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Tag of the run, written here before the run is created: a driver killed between the two finds the run by it."""
    run_id: str = ""
    """MLflow's id; empty before the run is created."""
    start_ms: int | None = None
    """Start of the run, Unix time in milliseconds; a run that is created again keeps it."""
    status: str | None = None
    """MLflow's status as last set."""
    has_params: bool = False
    """Whether params and dataset have been logged."""
    files: dict[str, Any] = field(default_factory=dict)
    """Signature of each upload, by name."""
    final: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Final figures, or a study's result, by metric: the value, and since when it has it (Unix time in ms)."""
    model_id: str | None = None
    """Logged model that holds the run's weights."""
    version: str | None = None
    """Parent: its model in the registry, NAME/VERSION."""
    pushed_epoch: int = -1
    """Last epoch whose metrics MLflow holds."""
    averaged_folds: list[int] = field(default_factory=list)
    """Parent: folds over which its metrics are averaged."""
    parent_run_id: str | None = None
    """Fold: the parent under which MLflow shows it."""
    attempt: int = 0
    """Fold: last attempt of its training that was seen."""
    epochs_trained: int | None = None
    """Fold: number of epochs trained, as last tagged."""

    def again(self, start_ms: int) -> "RunEntry":
        """Return the entry of the same run, to be created again because MLflow no longer has it."""
        start_ms = self.start_ms or start_ms
        return RunEntry(self.key, start_ms=start_ms, averaged_folds=self.averaged_folds, attempt=self.attempt)

    def upload_once(self, name: str, signature: Any, upload: Callable[..., object], *arguments: Any) -> None:
        """Call ``upload`` with these arguments, unless it was called for the same signature before."""
        if self.files.get(name) != signature:
            upload(*arguments)
            self.files[name] = signature

    def set_final(self, figures: Mapping[str, float]) -> None:
        """Take over final figures; those that have not changed keep their time."""
        known = {name: entry for name, entry in self.final.items() if figures.get(name) == entry[0]}
        self.final = {name: known.get(name, (value, now_ms())) for name, value in figures.items()}


@dataclass(config=_STRICT)
class MlflowRecord:
    """The manifest's entry ``mlflow``."""

    tracking_uri: str = ""
    """The MLflow that holds the runs; in a manifest :data:`EMBEDDED` for the storage's own. Empty before any."""
    experiment: str = ""
    """Name of the MLflow experiment that collects the runs."""
    tags: dict[str, str] = field(default_factory=dict)
    """Tags of every run."""
    parent: RunEntry = field(default_factory=RunEntry)
    """The run itself, or the study."""
    folds: dict[int, RunEntry] = field(default_factory=dict)
    """The run of each fold."""
    address_code: str = ""
    """Tells that this user gave the address (:func:`~uncseg.ownership.sign`)."""

    @classmethod
    def read(cls, manifest: Path) -> "MlflowRecord":
        """Return the record of a manifest; a new one if it has none.

        Raises:
            ProblemsFound: the manifest is not JSON, or its entry has unknown keys or wrong values.
        """
        content = read_manifest(manifest)
        try:
            record = _RECORD.validate_python(content.get("mlflow", {}))
        except ValidationError as error:
            found = {".".join(map(str, item["loc"])): f"{item['msg']}: {item['input']}" for item in error.errors()}
            expected, advice = "an entry of this version of uncseg", "use the version that wrote it, or delete it"
            problems = [Problem(f"mlflow.{where}", what, expected, advice) for where, what in found.items()]
            raise ProblemsFound(f"{manifest} cannot be read.", problems, exit_code=1) from error
        if record.tracking_uri == EMBEDDED:
            record.tracking_uri = own_database(manifest.parent)
        if _is_copy(manifest, content.get("place"), record):  # it goes to the same MLflow, as runs of its own
            folds, code = {fold: RunEntry() for fold in record.folds}, record.address_code
            return MlflowRecord(record.tracking_uri, record.experiment, record.tags, folds=folds, address_code=code)
        return record

    def write(self, manifest: Path) -> None:
        """Write the record into a manifest, and where that lies; its other keys stay."""
        root = manifest.parent.resolve()
        uri = EMBEDDED if sqlite_path(self.tracking_uri) == sqlite_path(own_database(root)) else self.tracking_uri
        update_manifest(manifest, mlflow=asdict(self) | {"tracking_uri": uri}, place=str(root))


def _is_copy(manifest: Path, place: Any, record: MlflowRecord) -> bool:
    """Return whether the folder was copied, and the original, which is still there, uses the same MLflow."""
    if not isinstance(place, str) or Path(place) == manifest.parent.resolve():
        return False
    try:
        original = _RECORD.validate_python(read_manifest(Path(place) / manifest.name).get("mlflow", {}))
    except (ProblemsFound, ValidationError, OSError):
        return False
    uri = own_database(Path(place)) if original.tracking_uri == EMBEDDED else original.tracking_uri
    return original.parent.key == record.parent.key and uri == record.tracking_uri


_RECORD = TypeAdapter(MlflowRecord)
