"""A run as the report reads it, however far it has come."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from uncseg.config.experiment import Experiment
from uncseg.dataset.brats import BratsCase
from uncseg.layout import RunFolder
from uncseg.report.training_curves import Training
from uncseg.table_files import read_table
from uncseg.tracking.spool import epoch_table


@dataclass(frozen=True)
class ReportedRun:
    """A run that a page shows."""

    name: str
    folder: RunFolder
    experiment: Experiment
    cases: Sequence[BratsCase]
    """The cases whose images are at hand."""

    def table(self, name: str) -> pd.DataFrame | None:
        """A table of the run; None before its evaluation."""
        return read_table(self.folder.tables, name)

    def training(self) -> Training:
        """The epochs of all folds so far."""
        return Training(self.name, epoch_table(self.folder.spool), self.experiment.evaluation.last_epochs)
