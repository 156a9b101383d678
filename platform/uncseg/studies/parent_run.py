"""A study's own run in MLflow, the parent of its runs: a sweep's trials or a benchmark's trainings."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow.exceptions import MlflowException

from uncseg.config.experiment import Experiment
from uncseg.console import command_line, console, warn
from uncseg.errors import ProblemsFound
from uncseg.provenance import describe_source
from uncseg.studies.load_study import AnyStudy, Study, read_study
from uncseg.studies.study_folder import StudyFolder
from uncseg.tracking.destination import Destination, open_store
from uncseg.tracking.given_address import is_given, keep_address, require_artifacts_beside, usable_address
from uncseg.tracking.lost_epochs import require_epochs
from uncseg.tracking.push import ensure_run, final_rows
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.spool import now_ms
from uncseg.tracking.store import NOTE_TAG, Store, storing
from uncseg.tracking.syncer import sync_run
from uncseg.tracking.uploads import is_own_file


@dataclass(frozen=True)
class ParentRun:
    """A study's own run in MLflow."""

    folder: StudyFolder
    store: Store
    run_id: str

    @property
    def artifacts(self) -> str:
        """Address of the run's artifacts in MLflow's pages, for links."""
        return f"{self.store.run_page(self.run_id)}/artifacts"

    def sync_runs(self) -> int:
        """Bring MLflow to what the study's run folders say, below this run; return the number of records left."""
        runs = self.folder.begun()
        require_epochs(runs)
        return sum(sync_run(run.root, self.store.tracking_uri, self.run_id) for run in runs)

    def log(self, metrics: Mapping[str, float], note: str, files: Sequence[Path] = (), failed: bool = False) -> None:
        """Log the study's result and end the run; a result that is logged again keeps its time.

        Args:
            metrics: finite values.
            note: description of the run, Markdown.
            files: stored in addition to the study's tables and figures.
            failed: the study has no result.

        Raises:
            ProblemsFound, MlflowException: MLflow does not take it.
        """
        record = MlflowRecord.read(self.folder.manifest)
        record.parent.set_final(metrics)
        record.write(self.folder.manifest)
        rows = final_rows(record.parent)
        self.store.log_metrics(self.run_id, rows)
        self.store.set_tags(self.run_id, {NOTE_TAG: note})
        ended_ms = max((row.timestamp for row in rows), default=now_ms())
        self.store.set_status(self.run_id, "FAILED" if failed else "FINISHED", ended_ms)
        with storing(f"the {self.folder.kind}'s tables and figures"):
            found = sorted(self.folder.root.glob("tables/[!.]*")) + sorted(self.folder.root.glob("figures/[!.]*"))
            for file, place in [*((file, file.parent.name) for file in found), *((file, None) for file in files)]:
                if file.is_file() and is_own_file(self.folder.root, file):
                    self.store.log_file(self.run_id, file, place)


Log = Callable[[ParentRun, AnyStudy], None]
"""Logs a study's result from the tables in its folder; logs nothing while there are none."""


def open_parent(folder: StudyFolder, study: Study, base: Experiment) -> ParentRun:
    """Return the study's own run, which is created if MLflow does not have it; the manifest remembers it.

    Raises:
        ProblemsFound, MlflowException: MLflow cannot be reached.
    """
    store, record = open_store(*Destination.from_experiment(base)), MlflowRecord.read(folder.manifest)
    keep_address(record, base.tracking_uri)
    record.experiment = base.tracking.experiment
    record.write(folder.manifest)  # the key before the run: a command killed between the two finds it
    tags = {f"uncseg.{folder.kind}": study.name} | describe_source(f"uncseg {folder.kind}", None)
    parent = record.parent = ensure_run(store, record.parent, study.name, tags, None)
    if not parent.has_params:
        store.log_params(parent.run_id, study.params)
        parent.has_params = True
    record.write(folder.manifest)
    return ParentRun(folder, store, parent.run_id)


def close_parent(
    folder: StudyFolder, study: AnyStudy, base: Experiment, log: Log[AnyStudy], sync_runs: bool = False
) -> None:
    """Log the end of a study; ``sync_runs``: bring MLflow to what the run folders say first.

    What MLflow does not take is printed and is no error: the study's folder has everything.
    """
    again = f"when it is back: {command_line('uncseg', 'sync', folder.root)}"
    try:
        left = _fill(folder, study, base, log, sync_runs)
    except (ProblemsFound, MlflowException) as error:
        warn(f"MLflow did not take everything ({error}); {again}")
        return
    if left:
        warn(f"{left} records did not reach MLflow; {again}")
    console.print(f"MLflow:  {command_line('uncseg', 'ui', folder.root)}", soft_wrap=True)


def sync_study(folder: StudyFolder, model: type[AnyStudy], log: Log[AnyStudy], tracking_uri: str | None) -> int:
    """Bring MLflow (None: the one used before) to what a study's folder says: its own run and the runs below it.

    Returns:
        Number of epochs and uploads that are left.

    Raises:
        ProblemsFound, MlflowException: MLflow cannot be reached.
    """
    study, base = read_study(folder, model)
    record = MlflowRecord.read(folder.manifest)
    uri = usable_address(folder.root, tracking_uri, record, base.tracking_uri)
    if not tracking_uri and not is_given(folder.root, record):
        require_artifacts_beside(open_store(uri, base.tracking.experiment))
    base = base.model_copy(update={"tracking": base.tracking.model_copy(update={"uri": uri})})
    return _fill(folder, study, base, log, sync_runs=True)


def _fill(folder: StudyFolder, study: AnyStudy, base: Experiment, log: Log[AnyStudy], sync_runs: bool) -> int:
    parent = open_parent(folder, study, base)
    left = parent.sync_runs() if sync_runs else 0
    log(parent, study)
    return left
