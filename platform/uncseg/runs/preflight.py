"""Checks before the work begins: everything that would make a command fail later, reported at once."""

import re
from collections.abc import Mapping
from pathlib import Path

from uncseg.cluster.node_checks import check_folders, relative_path_problems
from uncseg.cluster.resources import Cluster, Slots, plan_slots
from uncseg.cluster.session import under_ray_job
from uncseg.config.experiment import Experiment
from uncseg.console import warn
from uncseg.dataset.preparation import chosen_cases
from uncseg.errors import Problem, ProblemsFound, raise_if_any
from uncseg.tracking.destination import AnotherVersion, open_store

NEEDED_MODULE = "uncseg.method.training.trainer"
"""Every node must be able to import it; it brings torch and nnU-Net."""


def preflight(experiment: Experiment, folds: int, cluster: Cluster, own_ray: bool, begun: bool) -> Slots:
    """Check everything that would make a run fail later.

    Args:
        folds: number of folds to train.
        own_ray: Ray was started by this command; its one node is this machine.
        begun: the run was started before. MLflow may then be unreachable: the spool keeps what it misses.

    Raises:
        ProblemsFound: all problems together.
    """
    problems, slots = _storage_problems(experiment, own_ray), None
    try:
        slots = plan_slots(experiment.resources, folds, cluster)
    except ProblemsFound as error:
        problems += error.problems
    if experiment.tracking.uri is not None or (experiment.storage.path / "mlflow.db").is_file():
        try:
            open_store(experiment.tracking_uri, experiment.tracking.experiment)
        except ProblemsFound as error:
            problems += error.problems if isinstance(error, AnotherVersion) or not begun else []
    if slots is None or problems:
        raise ProblemsFound("The run would fail.", problems + _layout_problems(experiment))
    _warn_of_slow_precision(experiment.training.precision, slots)
    return slots  # the cases come next: preparing them opens every file


def _warn_of_slow_precision(precision: str | None, slots: Slots) -> None:
    """Say where CPUs like this machine's compute in half precision without instructions for it."""
    if precision not in ("bf16", "fp16") or slots.fold.gpus:
        return
    from torch.cpu import get_capabilities  # takes seconds, and few runs come here

    has = get_capabilities()
    instructions = {"bf16": ("avx512_bf16", "amx_bf16"), "fp16": ("avx512_fp16", "amx_fp16")}[precision]
    if has.get("architecture") == "x86_64" and not any(has[name] for name in instructions):
        warn(
            f"training.precision: this machine's CPU ({has['cpu_name']}) has no instructions for {precision}: a step "
            "takes some twenty times as long as with --set training.precision=fp32"
        )


def require_storage(experiment: Experiment, own_ray: bool) -> None:
    """Raise ``ProblemsFound`` unless every node sees the experiment's folders and has the packages."""
    raise_if_any(_storage_problems(experiment, own_ray), "The command would fail.")


def require_folders(writes: Mapping[str, Path], reads: Mapping[str, Path], own_ray: bool) -> None:
    """Raise ``ProblemsFound`` unless every node sees a command's folders and has the packages.

    Args:
        writes, reads: folders that are written to or only read, by their names on the command line.
        own_ray: Ray was started by this command.
    """
    raise_if_any(check_folders(writes, reads, NEEDED_MODULE, own_ray), "The command would fail.")


def _storage_problems(experiment: Experiment, own_ray: bool) -> list[Problem]:
    dataset = experiment.dataset
    problems = _lost_database(experiment.tracking.uri)
    if isinstance(dataset.exclude, Path):
        problems += relative_path_problems({"dataset.exclude": dataset.exclude})
    writes, reads = {"storage.path": experiment.storage.path}, {"dataset.path": dataset.path}
    return problems + check_folders(writes, reads, NEEDED_MODULE, own_ray)


def _lost_database(uri: str | None) -> list[Problem]:
    """Refuse a relative database in a Ray job: it would lie in the copy that is removed when the job ends."""
    file = re.fullmatch(r"sqlite:///(?!/)(.*)|(?!\w+://)(?!/)(.*)", uri or "/")
    if not under_ray_job() or file is None:
        return []
    advice = "give a server's address, or sqlite:////… with an absolute path"
    return [Problem("tracking.uri", str(uri), "an address that still exists after the job", advice)]


def _layout_problems(experiment: Experiment) -> list[Problem]:
    """Return the problems of the dataset folder's layout; files are not opened."""
    try:
        return chosen_cases(experiment)[1]
    except ProblemsFound as error:
        return error.problems
