"""What happens when Tune starts or ends a trial: MLflow runs of its own below the sweep's, a line on the screen."""

from typing import Any

from ray.tune import Callback

from uncseg.cluster.trial import TrialSetup
from uncseg.config import Experiment
from uncseg.console import console
from uncseg.sweep_file import Sweep, trial_experiment
from uncseg.tracking.push import Outcome
from uncseg.tracking.store import PARENT_TAG
from uncseg.tracking.sync import Syncer

OUTCOMES: dict[str, Outcome] = {"finished": "finished", "failed": "failed", "stopped": "interrupted"}


class TrialEvents(Callback):
    """A callback of Tune's, in the command's own process.

    Args:
        sweep: what is run.
        setup: what its trials share.
        sweep_run: the sweep's own run in MLflow.
    """

    def __init__(self, sweep: Sweep, setup: TrialSetup, sweep_run: str) -> None:
        self.sweep, self.shared, self.sweep_run = sweep, setup, sweep_run
        self.syncers: dict[str, Syncer] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks; threads and locks can't be, and the next command has its own

    def on_trial_start(self, trial: Any, **_info: Any) -> None:
        """Also of a trial that is taken up again."""
        experiment = trial_experiment(self.shared.base, trial.trial_id, self.shared.folder, trial.config)
        self.syncers[trial.trial_id] = self._syncer(experiment)
        self.syncers[trial.trial_id].start()

    def _syncer(self, experiment: Experiment) -> Syncer:
        return Syncer(
            self.shared.run(experiment.name),
            experiment.tracking_uri,
            experiment.tracking.experiment,
            experiment.model_dump(mode="json"),
            self.sweep.folds,
            {PARENT_TAG: self.sweep_run, "uncseg.sweep": self.sweep.name},
        )

    def on_trial_complete(self, trial: Any, **_info: Any) -> None:
        """The end of a trial, its own or the scheduler's."""
        self._close(trial.trial_id)

    def on_trial_error(self, trial: Any, **_info: Any) -> None:
        """A trial that failed."""
        self._close(trial.trial_id)

    def stop(self, outcome: Outcome | None = None) -> None:
        """Close what is open; ``outcome`` of those trials: None: as their folds say."""
        for trial_id in list(self.syncers):
            self._close(trial_id, outcome)

    def _close(self, trial_id: str, outcome: Outcome | None = None) -> None:
        row = self.shared.row(trial_id)
        syncer = self.syncers.pop(trial_id, None)
        if syncer is not None:
            syncer.stop(outcome or OUTCOMES[row["state"]])
        console.print(
            f"trial {trial_id}: {row['state']}, {row['epochs']} epochs, "
            f"{self.sweep.objective.metric} {row['objective']:.4f} ± {row['objective_std']:.4f}"
        )
