"""Each undocumented part of Ray that we use is still there: a failure names the part and Ray's version."""

import os
from contextlib import contextmanager

import pytest
import ray
import ray.tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.optuna import OptunaSearch

from support.small_sweeps import asha_rungs
from uncseg.cluster import ray_internals


@contextmanager
def using(part):
    try:
        yield
    except Exception as error:  # whatever follows from a part that is gone or has another meaning
        what = f"Ray {ray.__version__} has changed {part} ({type(error).__name__}: {error})"
        pytest.fail(f"{what}; correct uncseg/cluster/ray_internals.py")


def test_rungs_of_the_scheduler_can_be_read_and_filled():
    scheduler = AsyncHyperBandScheduler(time_attr="epoch", metric="m", mode="max", max_t=7, reduction_factor=2)
    with using("AsyncHyperBandScheduler._brackets, or on_result or _rungs of one"):
        for trial, epoch, value in (("a", 1, 0.5), ("b", 1, 0.25), ("a", 2, 0.75)):
            ray_internals.record_at_rungs(scheduler, trial, epoch, value)
        assert asha_rungs(scheduler) == {4: {}, 2: {"a": 0.75}, 1: {"a": 0.5, "b": 0.25}}


def test_parts_of_a_tuner_can_be_replaced(tmp_path, local_ray):
    run_config = ray.tune.RunConfig(storage_path=str(tmp_path), callbacks=[])
    tuner = ray.tune.Tuner(print, run_config=run_config)
    config, callback, stopper = ray.tune.TuneConfig(num_samples=7), object(), object()
    with using("Tuner._local_tuner, or _tune_config or _run_config of it"):
        ray_internals.replace_restored(tuner, config, [callback], stopper)
        assert tuner._local_tuner._tune_config is config
        used = tuner._local_tuner.get_run_config()
        assert (used.callbacks, used.stop) == ([callback], stopper)


def test_trials_of_optuna_can_be_reached():
    search = OptunaSearch(metric="m", mode="max")
    search.set_search_properties("m", "max", {"x": ray.tune.uniform(0, 1)})
    values = search.suggest("a")
    with using("OptunaSearch._ot_trials"):
        assert ray_internals.optuna_trial(search, "a").params == values


def test_the_callback_has_a_queue_to_tune():
    with using("TuneReportCallback._training_actor_item_queue"):
        for method in (TuneReportCallback.__init__, TuneReportCallback.after_report):
            assert "_training_actor_item_queue" in method.__code__.co_names, method.__name__


def test_variables_are_passed_to_workers(monkeypatch):
    monkeypatch.setenv("UNCSEG_TEST", "passed")
    with using("ENV_VARS_TO_PROPAGATE of ray.train.v2._internal.constants"):
        from ray.train.v2._internal import constants

        monkeypatch.setattr(constants, "ENV_VARS_TO_PROPAGATE", set(constants.ENV_VARS_TO_PROPAGATE))
        ray_internals.pass_to_train_workers("UNCSEG_TEST")
        assert constants.get_env_vars_to_propagate()["UNCSEG_TEST"] == os.environ["UNCSEG_TEST"]


def test_the_head_node_has_its_resource(local_ray):
    with using(f"the head node's resource {ray_internals.HEAD_NODE}"):
        assert [ray_internals.HEAD_NODE in node["Resources"] for node in ray.nodes()] == [True]


def test_a_job_is_known_by_its_variable():
    with using(f"the variable {ray_internals.JOB_VARIABLE} of a job"):
        from ray._private.runtime_env.constants import RAY_JOB_CONFIG_JSON_ENV_VAR

        assert ray_internals.JOB_VARIABLE == RAY_JOB_CONFIG_JSON_ENV_VAR


def test_snapshots_have_a_name_per_session():
    with using("CKPT_FILE_TMPL of what Tune writes into a snapshot"):
        for searches_with_model, files in ((True, 3), (False, 2)):
            names = ray_internals.snapshot_files(searches_with_model)
            assert len({name.format("session") for name in names}) == files
