"""Everything we use of Ray that its documentation does not promise; a test of each names what a new Ray changed.

Ray Tune and Ray Train are imported inside the functions, so that the constants cost no import of them.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import grpc
from ray._private import ray_constants, services
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]
from ray.job_config import JobConfig

if TYPE_CHECKING:
    from ray.tune import TuneConfig, Tuner
    from ray.tune.integration.ray_train import TuneReportCallback
    from ray.tune.schedulers import AsyncHyperBandScheduler
    from ray.tune.search.optuna import OptunaSearch

HEAD_NODE = "node:__internal_head__"
"""Resource that Ray gives to the head node alone."""
JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Environment variable that Ray sets for the command of a job."""
LOOPBACK_VARIABLE = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Environment variable that, set to 0, keeps Ray's processes on the loopback address, as on macOS and Windows."""
ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""Method of a cluster's server that says whether it is there; its empty request is an empty message."""
ANSWER_S = 5.0


def leave_signals_to_python() -> None:
    """Keep Ray, in this process alone, from answering SIGTERM with a stack of C++ functions in place of our handler."""
    ray_constants.RAY_DISABLE_FAILURE_SIGNAL_HANDLER = True


class _KnownToThisProcess(list[str]):
    def extend(self, folders: Iterable[str]) -> None:
        super().extend(folder for folder in folders if folder in sys.path)


def job_config() -> JobConfig:
    """Return the settings of a connection whose workers import from no folder that this process does not import from.

    Ray has workers import from the working directory, before anything else; that may be a folder from someone else.
    """
    config = JobConfig()
    config._py_driver_sys_path = _KnownToThisProcess()
    return config


def record_at_rungs(scheduler: "AsyncHyperBandScheduler", trial_id: str, epoch: int, value: float) -> None:
    """Let the scheduler know of an epoch that a trial has reported to another scheduler; a larger value is better."""
    (bracket,) = scheduler._brackets
    bracket.on_result(SimpleNamespace(trial_id=trial_id), epoch, value)


def replace_restored(tuner: "Tuner", config: "TuneConfig", callbacks: Sequence[Any], stopper: Any) -> None:
    """Give a restored tuner the parts of this process in place of the copies that it has read from its snapshot."""
    local = tuner._local_tuner
    local._tune_config = config
    local._run_config.callbacks, local._run_config.stop = list(callbacks), stopper


def optuna_trial(search: "OptunaSearch", trial_id: str) -> Any:
    """Return Optuna's trial behind one of Tune's."""
    return search._ot_trials[trial_id]


def report_to_tune(callback: "TuneReportCallback", metrics: dict[str, Any]) -> None:
    """Report metrics to Tune as those of the trial in which the callback was created."""
    callback._training_actor_item_queue.put(metrics)


def pass_to_train_workers(variable: str) -> None:
    """Have Ray Train pass an environment variable on to what it starts."""
    from ray.train.v2._internal.constants import ENV_VARS_TO_PROPAGATE

    ENV_VARS_TO_PROPAGATE.add(variable)


def snapshot_files(searches_with_model: bool) -> tuple[str, ...]:
    """Return the names of the files of a snapshot of Tune's, each with {} for the session; the trials' state first.

    Args:
        searches_with_model: the search learns from trials (Optuna's); else all draws are known from the start.
    """
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.search import Searcher
    from ray.tune.search.basic_variant import BasicVariantGenerator
    from ray.tune.search.search_generator import SearchGenerator

    search = (SearchGenerator, Searcher) if searches_with_model else (BasicVariantGenerator,)
    return tuple(writer.CKPT_FILE_TMPL for writer in (TuneController, *search))


@contextmanager
def loopback_address() -> Iterator[str]:
    """Let this process start a Ray on the loopback address within a block; yields the address.

    Ray takes 127.0.0.1 for the machine's other address elsewhere than on macOS and Windows, and then listens on every
    interface. Its processes read :data:`LOOPBACK_VARIABLE`.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield "127.0.0.1"
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def forget_authentication() -> None:
    """Let this process read Ray's token, and whether there is one, anew from the environment."""
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


class Answer(Enum):
    """What a cluster's server (GCS) says to a stranger, or to the holder of a token."""

    OPEN = "it serves whoever asks"
    ASKS_FOR_TOKEN = "it refuses who shows no token, or another"
    NONE = "nothing answers, or no Ray"


def server_address(address: str) -> str:
    """Return HOST:PORT of the server (GCS) of a running cluster, given as to ``ray.init``.

    Raises:
        ConnectionError, ValueError: there is none, or the address is none.
    """
    found = services.canonicalize_bootstrap_address(address)
    if found is None:
        raise ConnectionError("no running Ray is known on this machine")
    services.extract_ip_port(found)
    return str(found)


def answer_of(server: str, *, with_token: bool = False) -> Answer:
    """Return what a cluster's server answers within a few seconds.

    Args:
        server: HOST:PORT.
        with_token: show the token that this process has.
    """
    headers = AuthenticationTokenLoader.instance().get_token_for_http_header() if with_token else {}
    call = grpc.insecure_channel(server, (("grpc.enable_http_proxy", 0),)).unary_unary(ALIVE)
    try:
        call(b"", timeout=ANSWER_S, metadata=[(key.lower(), value) for key, value in headers.items()])
    except grpc.RpcError as error:
        return Answer.ASKS_FOR_TOKEN if error.code() is grpc.StatusCode.UNAUTHENTICATED else Answer.NONE
    return Answer.OPEN
