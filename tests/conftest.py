"""Shared by all tests: quiet libraries, small cases, one local Ray, one MLflow server."""

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ["RAY_gcs_server_port_wait_time_s"] = "300"  # noqa: SIM112 - Ray's own limits are short on a loaded machine
os.environ["RAY_DASHBOARD_STARTUP_TIMEOUT_S"] = "300"
# idle workers that have imported nnU-Net, which takes seconds, are kept for the next task instead of being ended
os.environ["RAY_num_workers_soft_limit"] = "4"  # noqa: SIM112
os.environ.pop("RAY_ADDRESS", None)

import contextlib
import shutil
from pathlib import Path

import pytest

from support.progress import start_with_retries
from support.servers import MlflowServer, mlflow_server
from support.small_experiment import write_small_experiment

ONE_RUN = "tests/commands/one_run/"


def group_of(nodeid):
    """Return the name of the tests that run in one process one after the other: a file, or all that read one run."""
    return ONE_RUN if nodeid.startswith(ONE_RUN) else nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give the processes of ``pytest -n`` whole groups, in the order of the tests."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    config.option.loadscopereorder = False
    return Groups(config, log)


def pytest_collection_modifyitems(config, items):
    """Begin with the groups that take longest, where several processes share the tests."""
    if hasattr(config, "workerinput"):
        on_ray = {item.path for item in items if "local_ray" in item.fixturenames}
        longest = (ONE_RUN, "tests/commands/test_jobs.py")
        items.sort(key=lambda item: (*(group_of(item.nodeid) != name for name in longest), item.path not in on_ray))


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory):
    """Keep the key that marks folders as one's own out of the home of whoever runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session")
def local_ray():
    """A local Ray of 2 CPUs, for all tests of the session."""
    import ray

    from uncseg.cluster.session import ray_session

    with contextlib.ExitStack() as stack:

        def start():
            ray.shutdown()  # what an attempt before has left
            return stack.enter_context(ray_session(None, num_cpus=2))

        start_with_retries("Ray", start)
        yield ray


@pytest.fixture(scope="session")
def four_cases(tmp_path_factory):
    """A folder of four phantoms, for tests that only read them; what is prepared of them is shared."""
    from uncseg.dataset.phantom import write_phantoms
    from uncseg.tasks.built_in_tasks import paper_task

    folder = tmp_path_factory.mktemp("four") / "cases"
    write_phantoms(folder, cases=4, size=28, seed=0, task=paper_task())
    (folder.parent / "prepared").mkdir()
    return folder


@pytest.fixture
def experiment_file(tmp_path):
    """A function that writes a small experiment on a folder of cases; sections are merged into it.

    Runs go to ``tmp_path / "runs"``. What was prepared of ``four_cases`` by one test is found by the others.
    """

    def write(cases, /, **sections):
        shared, prepared = cases.parent / "prepared", tmp_path / "runs" / "prepared"
        if shared.is_dir() and "storage" not in sections and not prepared.exists():
            prepared.parent.mkdir(exist_ok=True)
            prepared.symlink_to(shared)
        sections["dataset"] = {"path": str(cases)} | sections.get("dataset", {})
        return write_small_experiment(tmp_path, **sections)

    return write


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """An MLflow database without an experiment of ours, to be copied: making one takes seconds."""
    from uncseg.tracking.destination import open_store

    path = tmp_path_factory.mktemp("database") / "mlflow.db"
    open_store(f"sqlite:///{path}", "made once")
    return path


@pytest.fixture
def new_database(tmp_path, empty_database):
    """A function that returns the address of an MLflow database in a folder below ``tmp_path``, made where absent."""

    def make(folder):
        database = tmp_path / folder / "mlflow.db"
        if not database.exists():
            database.parent.mkdir(exist_ok=True)
            shutil.copy(empty_database, database)
        return f"sqlite:///{database}"

    return make


@pytest.fixture
def database(new_database):
    """The path of an MLflow database of this test's own."""
    return Path(new_database("server").removeprefix("sqlite:///"))


@pytest.fixture
def own_server(tmp_path, database):
    """A real MLflow server that a test starts and kills, on its own database."""
    server = MlflowServer(tmp_path, database)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def server_uri(tmp_path_factory, empty_database):
    """The address of a real MLflow server that runs for the whole session."""
    folder = tmp_path_factory.mktemp("mlflow_server")
    with mlflow_server(folder, shutil.copy(empty_database, folder / "mlflow.db")) as server:
        yield server.uri
