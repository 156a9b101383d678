"""One SQLite store for all tests of this folder: creating a database takes seconds, a run in it milliseconds."""

import shutil

import pytest
import yaml

from support.written_runs import EXPERIMENT, TAGS
from uncseg.layout import RunFolder
from uncseg.tracking.destination import Destination, open_store
from uncseg.tracking.record import RunDescription
from uncseg.tracking.syncer import Syncer


@pytest.fixture(scope="session")
def store(tmp_path_factory, empty_database):
    database = shutil.copy(empty_database, tmp_path_factory.mktemp("mlflow") / "mlflow.db")
    return open_store(f"sqlite:///{database}", "uncseg")


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path / "runs" / "demo")


@pytest.fixture
def make_syncer(run, store):
    def make(folds=(0, 1), uri=store.tracking_uri, **options):
        description = RunDescription.from_experiment(EXPERIMENT, "unnamed", TAGS)
        return Syncer(run, Destination(uri, "uncseg"), description, folds, **options)

    run.root.mkdir(parents=True)
    run.experiment.write_text(yaml.safe_dump(EXPERIMENT))
    return make
