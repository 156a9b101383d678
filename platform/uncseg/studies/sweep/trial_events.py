"""What the command does as trials begin, report and end: it fills their runs in MLflow, and prints how they ended."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import ValidationError
from ray.tune import Callback

from uncseg.console import command_line, console, warn
from uncseg.files import json_text
from uncseg.page_table import mean_sd
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
    """A callback of Tune's, in the command's own process; ``sweep_run`` is the id of the sweep's own run in MLflow."""

    def __init__(self, setup: TrialSetup, sweep_run: str) -> None:
        self.trial_setup, self.sweep_run = setup, sweep_run
        self.open: dict[str, tuple[Syncer, tuple[int, ...]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks; threads and locks cannot be, and the next command has its own

    def begin(self, trial_id: str, values: Mapping[str, Any], folds: Sequence[int]) -> None:
        """Start to push what the folds of a trial write to MLflow."""
        experiment = self.trial_setup.experiment(trial_id, values)
        tags = {PARENT_TAG: self.sweep_run, "uncseg.sweep": self.trial_setup.sweep.name}
        description = RunDescription.from_experiment(experiment.model_dump(mode="json"), trial_id, tags)
        syncer = Syncer(self.trial_setup.run(trial_id), Destination.from_experiment(experiment), description, folds)
        self.open[trial_id] = (syncer, tuple(folds))
        syncer.start()

    def on_trial_start(self, trial: Any, **_info: Any) -> None:
        """Begin a trial, or one that goes on."""
        with suppress(ValidationError):  # an experiment cannot have these values: the trial itself reports that
            self.begin(trial.trial_id, trial.config, self.trial_setup.sweep.folds)

    def on_trial_result(self, trial: Any, result: Mapping[str, Any], **_info: Any) -> None:
        """Keep what scheduler and search are told about an epoch."""
        names = ["epoch"] + [f"{metric}{end}" for end in ("", "_std") for metric in self.trial_setup.sweep.metrics]
        reported = {name: result[name] for name in names if name in result}
        with (self.trial_setup.run(trial.trial_id).root / REPORTED_FILE).open("a", encoding="utf-8") as stream:
            stream.write("\n" + json_text(reported))  # a line that a kill has torn ends here

    def on_trial_complete(self, trial: Any, **_info: Any) -> None:
        """End a trial that has finished or that the scheduler has stopped."""
        self.end(trial.trial_id)

    def on_trial_error(self, trial: Any, **_info: Any) -> None:
        """End a trial that failed; where none of its folds could record that, it is recorded here."""
        run, folds, error = self.trial_setup.run(trial.trial_id), self.trial_setup.sweep.folds, trial.get_error()
        with suppress(OSError):
            trial = Trial.read(run.root, folds)
            if trial.state != "failed":
                message = short_message(error) if error else "it ended without a message"
                at_work = [history.fold for history in trial.histories if history.state == "running"]
                write_state(run.spool, next(iter(at_work), folds[0]), "failed", message)
        self.end(trial.trial_id)

    def end_all(self, interrupted: bool = False) -> None:
        """End all open trials; ``interrupted``: the next command goes on with them."""
        for trial_id in list(self.open):
            self.end(trial_id, interrupted)

    def end(self, trial_id: str, interrupted: bool = False) -> None:
        """Close a trial's runs in MLflow, and print its result."""
        syncer, folds = self.open.pop(trial_id, (None, self.trial_setup.sweep.folds))
        run = self.trial_setup.run(trial_id)
        if not (run.root / VALUES).is_file():
            console.print(f"trial {trial_id}: ended before its first epoch")
            return
        for history in Trial.read(run.root, folds).histories:
            # a fold that the scheduler, the budget or another fold's failure has ended cannot record that itself
            if history.state == "running" and not interrupted:
                with suppress(OSError):
                    write_state(run.spool, history.fold, "stopped")
        trial = Trial.read(run.root, folds)
        if syncer is not None and syncer.stop("interrupted" if interrupted else OUTCOMES[trial.state]):
            again = command_line("uncseg", "sync", run.root)
            warn(f"MLflow did not take everything; when it is back: {again}")
        metrics = self.trial_setup.sweep.objective_metrics
        texts = [f"{metric} {mean_sd(*trial.mean(metric, trial.epochs - 1), 4)}" for metric in metrics]
        console.print(f"trial {trial_id}: {trial.state}, {trial.epochs} epochs, {', '.join(texts)}")
        for history in trial.histories if trial.state == "failed" else ():
            if history.message:
                warn(f"  fold {history.fold}: {history.message}")
