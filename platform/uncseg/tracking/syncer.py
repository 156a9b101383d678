"""The syncer: a thread of the driver that carries the spool to MLflow and never disturbs the training.

    syncer = Syncer(run, Destination.from_experiment(experiment), description, folds)
    syncer.start()
    ...                                   # folds train and write their spool
    syncer.finish()                       # tables, figures, report, models
    left = syncer.stop()                  # > 0: say "run uncseg sync RUN"

While MLflow is down, the syncer warns once, tries again at growing intervals, and loses nothing: the spool is the
source of truth. Drivers of the same run side by side (one per fold, for example) share one parent run; a lock makes
them take turns.
"""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

from uncseg.errors import Problem, ProblemsFound, raise_if_any
from uncseg.files import file_lock
from uncseg.layout import RunFolder, own_database
from uncseg.ownership import holds
from uncseg.tracking import model_registry, push, uploads
from uncseg.tracking.destination import Destination, open_store
from uncseg.tracking.given_address import is_given, keep_address, require_artifacts_beside, usable_address
from uncseg.tracking.lost_epochs import require_epochs
from uncseg.tracking.reasons import whole_reason
from uncseg.tracking.record import MlflowRecord, RunDescription, RunEntry
from uncseg.tracking.run_settings import read_settings
from uncseg.tracking.spool import FoldHistory, spooled_folds
from uncseg.tracking.store import PARENT_TAG, NotStored, Store, storing

logger = logging.getLogger(__name__)
LONGEST_PAUSE_S = 60.0


class Syncer:
    """Keeps MLflow, opened when it is first needed, up to date with a run's spool.

    Folds that an earlier command trained belong to the run as well as ``folds``. ``interval_s`` is the pause between
    two rounds in seconds; it is doubled after each failure, up to 60.
    """

    def __init__(
        self,
        run: RunFolder,
        destination: Destination,
        description: RunDescription,
        folds: Iterable[int],
        interval_s: float = 5.0,
    ) -> None:
        self.run, self.interval_s = run, interval_s
        self._destination, self._description = destination, description
        self._record = MlflowRecord()
        self._histories = {fold: FoldHistory(fold) for fold in folds}
        self._store: Store | None = None
        self._verify, self._warned, self._pictures_wait = True, False, False
        self._uploads_left = 0
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin pushing in the background; never raises, whatever MLflow does."""
        self._stopping.clear()
        self._thread = threading.Thread(target=self._work, name="uncseg-syncer", daemon=True)
        self._thread.start()

    def push_once(self) -> bool:
        """Push the finished epochs; return False (after one warning) if MLflow did not take them."""
        return self._guarded(outcome=None, upload=False)

    def finish(self) -> bool:
        """Log the run's results; return False if MLflow did not take them all.

        The parent gets final figures, tables, pictures, report.html and experiment.yaml; the run of each finished fold
        gets its table of epochs. The models follow. What has not changed is not logged again.
        """
        return self._guarded(outcome=None, upload=True)

    def stop(self, outcome: push.Outcome | None = None) -> int:
        """End the thread, push the rest, close the MLflow runs; return the number of epochs and uploads left.

        "interrupted" sets parent and open folds to KILLED (a later start sets them to RUNNING again). Without an
        outcome, it is derived from the states of the folds.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
        self._refresh()
        closed = self._guarded(outcome=outcome or self._outcome(), upload=False)
        left = push.unpushed(self._record, self._histories) + self._uploads_left
        return left if closed else max(left, 1)  # at least the final status is left

    def _outcome(self) -> push.Outcome:
        states = {history.state for history in self._histories.values()}
        return "failed" if "failed" in states else "finished" if states == {"finished"} else "interrupted"

    def _work(self) -> None:
        pause_s = self.interval_s
        while not self._stopping.is_set():
            pushed = self.push_once()
            pause_s = self.interval_s if pushed else min(2 * pause_s, max(LONGEST_PAUSE_S, self.interval_s))
            self._stopping.wait(pause_s)

    def _guarded(self, outcome: push.Outcome | None, upload: bool) -> bool:
        """Do one round; log any error and leave its work for the next round, because no error here may end a run."""
        uri = self._destination.tracking_uri
        try:
            with file_lock(self.run.root / ".sync.lock"):
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
            reason = error.problems[0].found if isinstance(error, ProblemsFound) else whole_reason(error)
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
        record = self._record = self._read_record()
        self._refresh()
        record.write(self.run.manifest)  # the keys of the runs before the runs
        try:
            work = push.SyncRound(self._open(), self.run, self._description, record, self._histories)
            self._push(work, outcome, upload)
            if upload:
                model_registry.store_models(work)
            # Pictures are last, and after a failure they wait for the next upload: curves are worth more.
            if upload or not self._pictures_wait:
                self._pictures_wait = True
                with storing("pictures of the training"):
                    uploads.upload_progress(work)
                self._pictures_wait = False
        finally:
            record.write(self.run.manifest)

    def _push(self, work: push.SyncRound, outcome: push.Outcome | None, upload: bool) -> None:
        """Bring runs, metrics, results and statuses up to date."""
        closing = outcome is not None
        push.drop_void_runs(work)
        work.record.write(self.run.manifest)
        push.ensure_runs(work, verify=self._verify or closing or upload)
        push.push_folds(work, closing)
        push.push_parent(work, closing)
        if upload:
            with storing("tables, figures and report"):
                uploads.upload_files(work)
                uploads.upload_results(work)
                uploads.upload_folds(work)
                uploads.upload_learning(work)
        if closing or not upload:  # files may be added to a run that has ended
            push.push_statuses(work, outcome)

    def _read_record(self) -> MlflowRecord:
        """Return the manifest's record, with an entry for every fold of this run."""
        record = MlflowRecord.read(self.run.manifest)
        known = {fold: FoldHistory(fold) for fold in record.folds} | self._histories
        self._histories = dict(sorted(known.items()))
        record.folds = {fold: RunEntry() for fold in self._histories} | record.folds
        record.tags = dict(self._description.tags)
        return record

    def _refresh(self) -> None:
        for history in self._histories.values():
            history.refresh(self.run.spool)

    def _open(self) -> Store:
        self._store = self._store or open_store(*self._destination)
        keep_address(self._record, self._destination.tracking_uri)
        self._record.experiment = self._destination.experiment
        return self._store


def sync_run(run_root: Path, tracking_uri: str | None = None, parent_run_id: str | None = None) -> int:
    """Bring MLflow to what a run's folder says, from files alone; return the number of epochs and uploads left.

    Runs that MLflow does not have (a new database, another server) are created again. No training has to be going on;
    if one is, its own syncer sets the runs to RUNNING again. Without ``tracking_uri``, the MLflow is the one that the
    run used before, else that of its experiment; ``parent_run_id`` is the run of a study above this one, or as before.

    Raises:
        ProblemsFound: ``run_root`` is no run, metrics of its finished folds are lost, the address that it keeps may
            not be used (:func:`~uncseg.tracking.given_address.usable_address`), or MLflow cannot be reached.
    """
    run = RunFolder(run_root.resolve())
    if not run.experiment.exists():
        problem = Problem(str(run.root), "no experiment.yaml", "the folder of a run", "correct the path")
        raise ProblemsFound(f"{run.root} cannot be synced.", [problem])
    _require_own_files(run)
    content = read_settings(run)
    require_epochs([run])
    record = MlflowRecord.read(run.manifest)
    tracking = content.get("tracking", {})
    uri = usable_address(run.root, tracking_uri, record, tracking.get("uri") or own_database(run.root))
    destination = Destination(uri, record.experiment or tracking.get("experiment") or "uncseg")
    store = open_store(*destination)  # raises an error for people; the syncer would only log it
    if not tracking_uri and not is_given(run.root, record):
        require_artifacts_beside(store)
    tags = record.tags | ({} if parent_run_id is None else {PARENT_TAG: parent_run_id})
    description = RunDescription.from_experiment(content, run.root.name, tags)
    syncer = Syncer(run, destination, description, spooled_folds(run.spool))
    syncer.finish()
    return syncer.stop()


def _require_own_files(run: RunFolder) -> None:
    """Refuse a run whose settings, metrics or figures are links to what lies elsewhere: MLflow would show that."""
    read = [run.experiment, run.manifest, *run.spool.glob("*"), *run.tables.glob("*.parquet")]
    out = [path for path in read if path.exists() and not path.name.startswith(".") and not holds(run.root, path)]
    found = {path: "a folder" if path.is_dir() and not path.is_symlink() else "a link out of the run" for path in out}
    expected, advice = "a file of the run", "replace it by a file"
    problems = [Problem(str(path), what, expected, advice) for path, what in found.items()]
    raise_if_any(problems, f"{run.root} cannot be synced.")
