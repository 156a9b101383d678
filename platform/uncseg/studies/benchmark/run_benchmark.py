"""A benchmark from beginning to end: train with several seeds, score all maps on the same cases, compare them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.resources import Slots
from uncseg.cluster.session import ray_session
from uncseg.config.experiment import Experiment
from uncseg.console import console, counting, warn
from uncseg.dataset.phantom import write_missing_phantoms
from uncseg.dataset.preparation import chosen_cases
from uncseg.errors import Problem, ProblemsFound, first_problems, raise_if_any
from uncseg.estimators.registry import CROSS_FITTED, LEARNT
from uncseg.files import digest, read_json
from uncseg.kept_records import compute_once
from uncseg.layout import PreparedFolder, RunFolder
from uncseg.ownership import make_own
from uncseg.partial_files import remove_partial
from uncseg.runs.cross_fitting import learn_failures
from uncseg.runs.fold_prediction import source_digest
from uncseg.runs.fold_request import FoldRequest, RunRequest, all_members_done, is_done
from uncseg.runs.needed_run import need_of
from uncseg.runs.preflight import preflight
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.runs.run_data import changed_split, kept_preparation
from uncseg.runs.run_opening import changes_of, edited_settings, locked, open_members
from uncseg.runs.run_plan import print_cases
from uncseg.runs.train_folds import train_folds
from uncseg.studies.benchmark.benchmark_file import Benchmark, SeededTraining, run_name
from uncseg.studies.benchmark.benchmark_results import close_benchmark
from uncseg.studies.benchmark.cost import COSTS_VERSION, measure_costs
from uncseg.studies.benchmark.methods import methods_of
from uncseg.studies.benchmark.score_maps import ScoredFold, comparable, fold_requests, score_cases
from uncseg.studies.load_study import save_study
from uncseg.studies.study_folder import BenchmarkFolder
from uncseg.tracking.lost_epochs import lost_epochs


@dataclass(frozen=True)
class _Work:
    """What is trained and compared, and with what."""

    benchmark: Benchmark
    base: Experiment
    folder: BenchmarkFolder
    requests: dict[str, RunRequest]
    """Runs of the trainings, by their names."""
    scored: list[ScoredFold]
    slots: Slots
    own_ray: bool


def run_benchmark(
    benchmark: Benchmark, base: Experiment, trainings: Sequence[SeededTraining], dry_run: bool, trust: bool
) -> int:
    """Train what is not trained yet, score every map of every case, write tables, figure and page, fill MLflow.

    Args:
        benchmark, base, trainings: as loaded and checked by ``commands/checked_studies.py``.
        dry_run: check everything and print the plan, train nothing.
        trust: let checkpoints that exist already run code of their own.

    Returns:
        0, or 1 where a fold failed; what is finished is compared all the same.

    Raises:
        ProblemsFound: the benchmark cannot be run, or cases could not be scored.
    """
    folder = BenchmarkFolder(base.storage.path.resolve() / benchmark.name)
    write_missing_phantoms(base.dataset)
    _refuse_other_data(folder, trainings)
    networks = sum(t.experiment.training.members * len(benchmark.folds_of(t.experiment)) for t in trainings)
    with ray_session(base.resources.ray_address) as own_ray:
        cluster = connected_cluster(base.resources, own_ray)
        slots = preflight(base, networks, cluster, own_ray, folder.content.exists())
        requests = _run_requests(base, trainings, slots, trust)
        scored = _scored_folds(benchmark, folder, trainings, requests)
        _print_plan(benchmark, folder, scored, slots)
        if dry_run:
            return 0
        make_own(folder.root)  # before the lock is in it
        with locked("The benchmark is at work already.", {str(folder.root): folder.root / ".lock"}):
            remove_partial(folder.root)
            save_study(folder, benchmark, base)
            work = _Work(benchmark, base.resolved(), folder, requests, scored, slots, own_ray)
            failed = _train(work)
            finished = _finished(work.scored)
            problems = _learn_failures(work, finished)
            problems += _score(work, finished) if finished else []
            compared = comparable(finished)
            if compared:
                _measure_costs(work, compared)
    if compared:
        close_benchmark(benchmark, base, folder, compared)
    raise_if_any(problems, "Some cases could not be scored: their trainings are not compared.", exit_code=1)
    return 1 if failed or not compared else 0


def _refuse_other_data(folder: BenchmarkFolder, trainings: Sequence[SeededTraining]) -> None:
    """Refuse trainings whose cases, split, settings or finished folds are not those that they were begun with."""
    problems = []
    for training in trainings:
        run = RunFolder(training.experiment.run_folder)
        found = edited_settings(run) if run.experiment.is_file() else []
        found += changes_of(run, training.experiment) + lost_epochs(run)
        problems += [replace(p, where=f"{training.run_name}, {p.where}") for p in found]
    raise_if_any(first_problems(problems), f"The benchmark {folder.root} is not what it was made from.")


def _run_requests(
    base: Experiment, trainings: Sequence[SeededTraining], slots: Slots, trust: bool
) -> dict[str, RunRequest]:
    """Prepare the cases of each training, which those with the same plan share; return the runs by their names.

    Raises:
        ProblemsFound: the folds are not the same for all.
    """
    prepared: dict[str, PreparedFolder] = {}
    requests = {}
    with counting() as progress:
        for training in trainings:
            experiment, run = training.experiment.resolved(), RunFolder(training.experiment.run_folder)
            if training.name not in prepared:
                placed = training.experiment.model_copy(update={"storage": base.storage}).resolved()
                prepared[training.name] = prepare_cases(placed, progress, kept_preparation(run, experiment))
            title = f"The split of the training {training.run_name} changed."
            raise_if_any(changed_split(run, prepared[training.name]), title)
            requests[training.run_name] = RunRequest(experiment, prepared[training.name], run, slots, trust)
    splits = {name: read_json(cases.done)["digests"]["split"] for name, cases in prepared.items()}
    if len(set(splits.values())) > 1:
        problem = Problem("trainings", str(splits), "one split of the same cases", "remove what changes it")
        raise ProblemsFound("The trainings cannot be compared.", [problem])
    return requests


def _scored_folds(
    benchmark: Benchmark, folder: BenchmarkFolder, trainings: Sequence[SeededTraining], requests: dict[str, RunRequest]
) -> list[ScoredFold]:
    """Return every fold of every training, with its methods and the training whose segmentation is shared."""
    scored = []
    for training in trainings:
        own, shared = requests[training.run_name], requests[run_name(benchmark.shared, training.seed)]
        methods = tuple(methods_of(training, training.name == benchmark.shared))
        for fold in benchmark.folds_of(training.experiment):
            scored.append(ScoredFold(folder, training, own.fold(fold), methods, shared.fold(fold)))
    return scored


def _print_plan(benchmark: Benchmark, folder: BenchmarkFolder, scored: Sequence[ScoredFold], slots: Slots) -> None:
    requests = fold_requests(scored)
    left = sum(not is_done(request.run, request.fold) for request in requests)
    methods = {method.name for part in scored for method in part.methods}
    training = scored[0].request.experiment.training
    console.print(
        f"{benchmark.name}: {len(benchmark.trainings)} trainings, seeds {', '.join(map(str, benchmark.seeds))}, "
        f"{len({part.request.fold for part in scored})} folds: {len(requests)} networks, {left} of them to be trained, "
        f"{training.epochs * training.iterations_per_epoch} steps each, {slots.max_count} side by side\n"
        f"{len(methods)} maps to compare; everything goes to {folder.root}",
        soft_wrap=True,
    )
    print_cases(scored[0].request.experiment, scored[0].request.prepared)


def _train(work: _Work) -> bool:
    """Train everything; return whether a fold failed."""
    for part in work.scored:
        open_members(part.request.experiment, part.request.prepared)
    alone = [part for part in work.scored if need_of(part.request.experiment) is None]
    others = [part for part in work.scored if need_of(part.request.experiment) is not None]
    failed = _train_together(work, "trained networks", alone)
    if others:
        memories = [part.request.experiment.memory for part in others]
        needed = {memory.run for memory in memories if memory.source == CROSS_FITTED}
        ready = [part for part in _finished(alone) if part.training.run_name in needed]
        for problem in _learn_failures(work, ready):
            warn(f"{problem.where}: {problem.found}; {problem.advice}")
        failed |= _train_together(work, "trained networks that need others", others)
    if failed:
        warn("the same command tries the failed folds again")
    return failed


def _train_together(work: _Work, what: str, parts: Sequence[ScoredFold]) -> bool:
    """Train some of the networks; return whether a fold failed."""
    requests, failed = fold_requests(parts), False
    with counting() as progress:

        def show() -> None:
            progress(what, sum(is_done(request.run, request.fold) for request in requests), len(requests))

        for request, message in train_folds(requests, work.slots, show, work.own_ray):
            warn(f"{request.run.root.name}, fold {request.fold} failed: {message}")
            failed = True
    return failed


def _finished(parts: Sequence[ScoredFold]) -> list[ScoredFold]:
    """Return those folds of trainings whose folds have all ended, and those of their shared training as well."""

    def ended(request: FoldRequest) -> bool:
        return all_members_done(request.experiment, request.run, request.fold)

    broken = {part.training.run_name for part in parts if not (ended(part.request) and ended(part.shared))}
    return [part for part in parts if part.training.run_name not in broken]


def _learn_failures(work: _Work, finished: Sequence[ScoredFold]) -> list[Problem]:
    """Let the folds of each training learn from each other's failures, where a map needs it; return what went wrong."""
    folds: dict[str, list[int]] = {}
    problems: list[Problem] = []
    for part in finished:
        if {method.map for method in part.methods} & set(LEARNT):
            folds.setdefault(part.training.run_name, []).append(part.request.fold)
    with counting() as progress:
        for name, numbers in folds.items():
            problems += learn_failures(work.requests[name], numbers, progress, numbers)
    return problems


def _score(work: _Work, finished: list[ScoredFold]) -> list[Problem]:
    cases, _ = chosen_cases(work.base)
    with counting() as progress:
        return score_cases(finished, cases, work.slots, lambda done, total: progress("cases scored", done, total))


def _measure_costs(work: _Work, compared: list[ScoredFold]) -> None:
    """Measure each estimator on one case, unless that was done with the same networks."""
    fold = compared[0].request.fold
    # of each training the first seed that is compared
    by_name = {part.training.name: part for part in reversed(compared) if part.request.fold == fold}
    first = [by_name[name] for name in work.benchmark.trainings if name in by_name]
    networks = [[source_digest(part.request), [method.name for method in part.methods]] for part in first]
    repeats = work.benchmark.cost_repeats

    def measure() -> dict[str, Any]:
        console.print("measuring the cost of each estimator")
        case = first[0].cases[0]
        return measure_costs(first, case, repeats, work.slots) | {"case": case}

    compute_once(work.folder.costs, digest([COSTS_VERSION, repeats, networks]), measure)
