"""Syncer: a thread of the driver that carries the spool to MLflow and never disturbs the training.

    syncer = Syncer(run, Destination.from_experiment(experiment), description, folds)
    syncer.start()
    ...                                   # folds train and write their spool
    syncer.finish()                       # tables, figures, report, checkpoints
    left = syncer.stop()                  # > 0: say "run uncseg sync RUN"

Where MLflow is down, it warns once, tries again at growing intervals, and loses nothing: the spool is the truth.
Drivers of the same run side by side (one per fold, say) share one parent run; they take turns by a lock.
"""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

import yaml

from uncseg.errors import Problem, ProblemsFound
from uncseg.files import file_lock
from uncseg.layout import RunFolder
from uncseg.tracking import model_registry, push, uploads
from uncseg.tracking.destination import Destination
from uncseg.tracking.record import MlflowRecord, RunDescription, RunEntry
from uncseg.tracking.spool import FoldHistory, spooled_folds
from uncseg.tracking.store import PARENT_TAG, NotStored, Store, storing

logger = logging.getLogger(__name__)
LONGEST_PAUSE_S = 60.0


class Syncer:
    """Keeps MLflow at what a run's spool says.

    Args:
        run: the run's folder.
        destination: opened when it is first needed.
        description: what MLflow is told about the run.
        folds: folds of this run; those an earlier command trained belong to it as well.
        interval_s: pause between two rounds in seconds; doubled after each failure, up to 60.
    """

    def __init__(
        self,
        run: RunFolder,
        destination: Destination,
        description: RunDescription,
        folds: Iterable[int],
        interval_s: float = 5.0,
    ) -> None:
        self.run = run
        self.interval_s = interval_s
        self._destination, self._description = destination, description
        self._record = MlflowRecord()
        self._histories = {fold: FoldHistory(fold) for fold in folds}
        self._store: Store | None = None
        self._verify = True
        self._warned = False
        self._extra: list[str] = []
        self._uploads_left = 0
        self._pictures_wait = False
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin pushing in the background. Never raises, whatever MLflow does."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._work, name="uncseg-syncer", daemon=True)
        self._thread.start()

    def push_once(self) -> bool:
        """Push what there is; False (and one warning) where MLflow did not take it."""
        return self._guarded(outcome=None, upload=False)

    def finish(self, extra: Iterable[Path] = ()) -> bool:
        """Log the run's results: final figures, tables, pictures, report.html, experiment.yaml and ``extra`` files on
        the parent; the epochs table and the final checkpoint (as a logged model) of each finished fold on its child.

        Whatever lies there already and is unchanged is not logged again. False where MLflow did not take them all.
        """
        self._extra += [str(Path(path).resolve()) for path in extra]
        return self._guarded(outcome=None, upload=True)

    def stop(self, outcome: push.Outcome | None = None) -> int:
        """End the thread, push the rest, close the MLflow runs; the number of epochs and uploads that are left.

        Args:
            outcome: "finished", "failed" or "interrupted" (parent and open folds: KILLED; a later start sets them
                RUNNING again). None: as the folds' states say.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._refresh()
        closed = self._guarded(outcome=outcome or self._outcome(), upload=False)
        left = push.unpushed(self._record, self._histories) + self._uploads_left
        return left if closed else max(left, 1)  # the final status is left at least

    def _outcome(self) -> push.Outcome:
        states = {history.state for history in self._histories.values()}
        if "failed" in states:
            return "failed"
        return "finished" if states == {"finished"} else "interrupted"

    def _work(self) -> None:
        pause_s = self.interval_s
        while not self._stopping.is_set():
            pushed = self.push_once()
            pause_s = self.interval_s if pushed else min(2 * pause_s, max(LONGEST_PAUSE_S, self.interval_s))
            self._stopping.wait(pause_s)

    def _guarded(self, outcome: push.Outcome | None, upload: bool) -> bool:
        """One round; whatever goes wrong is logged and left for the next, because a driver has better things to do
        than to die of a metric."""
        uri = self._destination.tracking_uri
        try:
            with file_lock(self._lock):
                self._round(outcome, upload)
        except NotStored as error:
            self._uploads_left = max(self._uploads_left, 1)
            what, reason, root = error.problems[0].where, error.problems[0].found, self.run.root
            logger.warning("MLflow at %s did not store %s: %s. To try again: uncseg sync %s", uri, what, reason, root)
            return False
        except Exception as error:
            self._verify = True
            self._uploads_left = self._uploads_left or int(upload)
            level = logging.DEBUG if self._warned else logging.WARNING
            found = error.problems[0].found if isinstance(error, ProblemsFound) else str(error) or repr(error)
            reason = found.splitlines()[0]
            logger.log(level, "MLflow at %s did not take the metrics; they wait in %s. %s", uri, self.run.spool, reason)
            logger.debug("The failed round:", exc_info=True)
            self._warned = True
            return False
        if self._warned:
            logger.info("MLflow at %s has everything again.", uri)
        self._warned = self._verify = False
        self._uploads_left = 0 if upload else self._uploads_left
        return True

    def _round(self, outcome: push.Outcome | None, upload: bool) -> None:
        closing = outcome is not None
        record = self._record = self._read_record()
        self._refresh()
        record.write(self.run.manifest)  # keys before runs
        try:
            store = self._open(record)
            push.drop_void_runs(store, record, self._histories)
            record.write(self.run.manifest)
            verify = self._verify or closing or upload
            push.ensure_runs(store, record, self._histories, self._description, verify)
            push.push_folds(store, record, self._histories, closing)
            push.push_parent(store, record, self._histories, closing)
            if upload:
                with storing("tables, figures and report"):
                    uploads.upload_files(store, record, self.run)
                    uploads.upload_results(store, record, self.run)
                    uploads.upload_folds(store, record, self.run, self._histories)
            if closing or not upload:  # files may be added after the end
                push.push_statuses(store, record, self._histories, outcome)
            if upload:
                model_registry.store_models(store, record, self.run, self._histories, self._description.name)
            # last, and after a failure only when all files are tried again: curves are worth more
            if upload or not self._pictures_wait:
                self._pictures_wait = True
                with storing("pictures of the training"):
                    uploads.upload_progress(store, record, self.run, self._histories)
                self._pictures_wait = False
        finally:
            record.write(self.run.manifest)

    @property
    def _lock(self) -> Path:
        return self.run.root / ".sync.lock"

    def _read_record(self) -> MlflowRecord:
        """Return the manifest's record, with an entry for every fold of this run."""
        record = MlflowRecord.read(self.run.manifest)
        for fold in record.folds:
            self._histories.setdefault(fold, FoldHistory(fold))
        self._histories = dict(sorted(self._histories.items()))
        for fold in self._histories:
            record.folds.setdefault(fold, RunEntry())
        record.extra = list(dict.fromkeys([*record.extra, *self._extra]))
        record.tags = dict(self._description.tags)
        return record

    def _refresh(self) -> None:
        for history in self._histories.values():
            history.refresh(self.run.spool)

    def _open(self, record: MlflowRecord) -> Store:
        if self._store is None:
            self._store = self._destination.open()
        record.tracking_uri, record.experiment = self._destination.tracking_uri, self._destination.experiment
        return self._store


def sync_run(run_root: Path, tracking_uri: str | None = None, parent_run_id: str | None = None) -> int:
    """Bring MLflow to what a run's folder says, from files alone; the number of epochs and uploads that are left.

    Runs that MLflow does not have (a new database, another server) are made anew. Needs no training to be going on;
    if one is, its own syncer sets the runs back to RUNNING.

    Args:
        run_root: the run's folder.
        tracking_uri: where to; None: where the run went before, else what its experiment says.
        parent_run_id: the run above it there, a sweep's; None: as before.

    Raises:
        ProblemsFound: ``run_root`` is no run, or MLflow cannot be reached.
    """
    run = RunFolder(Path(run_root).resolve())
    if not run.experiment.exists():
        problem = Problem(str(run.root), "no experiment.yaml", "the folder of a run", "correct the path")
        raise ProblemsFound(f"{run.root} cannot be synced.", [problem])
    content = yaml.safe_load(run.experiment.read_text(encoding="utf-8"))
    record = MlflowRecord.read(run.manifest)
    tracking = content.get("tracking", {})
    default = f"sqlite:///{run.root.parent / 'mlflow.db'}"
    uri = tracking_uri or record.tracking_uri or tracking.get("uri") or default
    destination = Destination(uri, record.experiment or tracking.get("experiment") or "uncseg")
    destination.open()  # raises an error for people; the syncer would only log it
    tags = record.tags | ({} if parent_run_id is None else {PARENT_TAG: parent_run_id})
    description = RunDescription.from_experiment(content, run.root.name, tags)
    syncer = Syncer(run, destination, description, spooled_folds(run.spool))
    syncer.finish()
    return syncer.stop()
