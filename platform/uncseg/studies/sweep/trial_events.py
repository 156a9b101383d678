"""What happens when a trial starts, reports or ends: MLflow runs of its own below the sweep's, a line on the screen."""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from ray.tune import Callback

from uncseg.console import console
from uncseg.runs.train_folds import short_message
from uncseg.studies.sweep.train_trial import TrialSetup
from uncseg.studies.sweep.trials import REPORTED_FILE, VALUES, Trial
from uncseg.tracking.destination import Destination
from uncseg.tracking.push import Outcome
from uncseg.tracking.record import RunDescription
from uncseg.tracking.spool import write_state
from uncseg.tracking.store import PARENT_TAG
from uncseg.tracking.syncer import Syncer

OUTCOMES: dict[str, Outcome] = {"finished": "finished", "failed": "failed", "stopped": "interrupted"}


class TrialEvents(Callback):
    """A callback of Tune's, in the command's own process.

    Args:
        setup: the sweep and what its trials share.
        sweep_run: the sweep's own run in MLflow.
    """

    def __init__(self, setup: TrialSetup, sweep_run: str) -> None:
        self.shared, self.sweep_run = setup, sweep_run
        self.open: dict[str, tuple[Syncer, tuple[int, ...]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks; threads and locks can't be, and the next command has its own

    def begin(self, trial_id: str, values: Mapping[str, Any], folds: Sequence[int]) -> None:
        """Start to carry what the folds of a trial write to MLflow."""
        experiment = self.shared.experiment(trial_id, values)
        tags = {PARENT_TAG: self.sweep_run, "uncseg.sweep": self.shared.sweep.name}
        description = RunDescription.from_experiment(experiment.model_dump(mode="json"), trial_id, tags)
        syncer = Syncer(self.shared.run(trial_id), Destination.from_experiment(experiment), description, folds)
        self.open[trial_id] = (syncer, tuple(folds))
        syncer.start()

    def on_trial_start(self, trial: Any, **_info: Any) -> None:
        """Also of a trial that is taken up again."""
        with contextlib.suppress(ValidationError):  # values that can't be an experiment's: the trial itself will say so
            self.begin(trial.trial_id, trial.config, self.shared.sweep.folds)

    def on_trial_result(self, trial: Any, result: Mapping[str, Any], **_info: Any) -> None:
        """An epoch of all folds: what the scheduler and the search hear is kept."""
        metrics = self.shared.sweep.metrics
        names = ("epoch", *metrics, *(f"{metric}_std" for metric in metrics))
        reported = {name: result[name] for name in names if name in result}
        with (self.shared.run(trial.trial_id).root / REPORTED_FILE).open("a", encoding="utf-8") as stream:
            stream.write("\n" + json.dumps(reported))  # a line that a kill has torn ends here

    def on_trial_complete(self, trial: Any, **_info: Any) -> None:
        """The end of a trial, its own or the scheduler's."""
        self.end(trial.trial_id)

    def on_trial_error(self, trial: Any, **_info: Any) -> None:
        """A trial that failed; where none of its folds could say so, it is written down for them."""
        run, fold = self.shared.run(trial.trial_id), self.shared.sweep.folds[0]
        error = trial.get_error()
        with contextlib.suppress(OSError):
            if Trial.read(run.root, self.shared.sweep.folds).state != "failed":
                write_state(run.spool, fold, "failed", short_message(error) if error else "it ended without a word")
        self.end(trial.trial_id)

    def end_all(self, interrupted: bool = False) -> None:
        """End what is open; ``interrupted``: the next command takes it up again."""
        for trial_id in list(self.open):
            self.end(trial_id, interrupted)

    def end(self, trial_id: str, interrupted: bool = False) -> None:
        """Close a trial's runs in MLflow, and say what it came to."""
        syncer, folds = self.open.pop(trial_id, (None, self.shared.sweep.folds))
        run = self.shared.run(trial_id)
        if not (run.root / VALUES).is_file():
            console.print(f"trial {trial_id}: ended before its first epoch")
            return
        if not interrupted:
            self._note_stopped(trial_id, folds)
        trial = Trial.read(run.root, folds)
        if syncer is not None and syncer.stop("interrupted" if interrupted else OUTCOMES[trial.state]):
            console.print(f"MLflow did not take all of it; when it is back: uncseg sync {run.root}", soft_wrap=True)
        figures = []
        for objective in self.shared.sweep.objectives:
            mean, spread = trial.mean(objective.metric, trial.epochs - 1)
            figures.append(f"{objective.metric} {mean:.4f} ± {spread:.4f}")
        console.print(f"trial {trial_id}: {trial.state}, {trial.epochs} epochs, {', '.join(figures)}")
        for history in trial.histories if trial.state == "failed" else ():
            if history.message:
                console.print(f"  fold {history.fold}: {history.message}")

    def _note_stopped(self, trial_id: str, folds: Sequence[int]) -> None:
        """Folds that somebody else ended (a scheduler, a budget, another fold's failure) cannot say so themselves."""
        for history in Trial.read(self.shared.run(trial_id).root, folds).histories:
            if history.state == "running":
                with contextlib.suppress(OSError):
                    write_state(self.shared.run(trial_id).spool, history.fold, "stopped")
