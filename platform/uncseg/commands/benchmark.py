"""``uncseg benchmark``: trainings with several seeds, every uncertainty map of them on the same cases, one table."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from uncseg.cluster.autoscaler import connected_cluster
from uncseg.cluster.resources import Slots
from uncseg.cluster.session import exit_without_waiting, ray_session, terminated_like_ctrl_c
from uncseg.config.experiment import Experiment
from uncseg.console import console, counting
from uncseg.dataset.phantom import write_missing_phantoms
from uncseg.dataset.preparation import chosen_cases
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import digest, read_json, write_json
from uncseg.layout import BenchmarkFolder, PreparedFolder, RunFolder
from uncseg.provenance import describe_versions
from uncseg.runs.ensemble_members import all_members_done, member_experiment
from uncseg.runs.fold_prediction import source_digest
from uncseg.runs.fold_task import FoldTask, is_done
from uncseg.runs.preflight import preflight
from uncseg.runs.preparation_tasks import prepare_cases
from uncseg.runs.run_opening import locked, open_run, refuse_other_settings
from uncseg.runs.train_folds import train_folds
from uncseg.studies.benchmark.benchmark_file import Benchmark, Training, run_name
from uncseg.studies.benchmark.benchmark_results import close_benchmark
from uncseg.studies.benchmark.cost import measure_costs
from uncseg.studies.benchmark.methods import methods_of, oracle_method
from uncseg.studies.benchmark.score_maps import Scored, comparable, fold_tasks, score_cases
from uncseg.tracking.manifest import update_manifest


@dataclass(frozen=True)
class _Work:
    """What is trained and compared, and with what."""

    benchmark: Benchmark
    base: Experiment
    folder: BenchmarkFolder
    scored: list[Scored]
    slots: Slots
    own_ray: bool


def run_benchmark(
    benchmark: Benchmark, base: Experiment, trainings: Sequence[Training], dry_run: bool = False, trust: bool = False
) -> int:
    """Train whatever is not trained yet, score every map of every case, write tables, figure and page, fill MLflow.

    Args:
        benchmark, base, trainings: of :func:`~uncseg.studies.benchmark.benchmark_file.load_benchmark`.
        dry_run: check everything and print the plan, train nothing.
        trust: let checkpoints that lie there already run code of their own.

    Returns:
        0, or 1 where a fold failed; what is finished is compared all the same.
    """
    folder = BenchmarkFolder(base.storage.path.resolve() / benchmark.name)
    _refuse_others(folder, trainings)
    write_missing_phantoms(base.dataset)
    folds = range(base.split.folds) if benchmark.folds is None else benchmark.folds
    networks = sum(one.experiment.training.members for one in trainings) * len(folds)
    with ray_session(base.resources.ray_address) as own_ray, terminated_like_ctrl_c():
        cluster = connected_cluster(base.resources, own_ray)
        slots = preflight(base, networks, cluster, own_ray, folder.content.exists())
        prepared = _prepare(base, trainings)
        scored = _scored(benchmark, folder, trainings, prepared, list(folds), slots, trust)
        _print_plan(benchmark, folder, scored, slots)
        if dry_run:
            return 0
        with locked("The benchmark is at work already.", {str(folder.root): folder.root / ".lock"}):
            content = benchmark.model_dump(mode="json", exclude={"base"})
            write_json(folder.content, {"benchmark": content, "experiment": base.resolved().model_dump(mode="json")})
            work = _Work(benchmark, base.resolved(), folder, scored, slots, own_ray)
            try:
                failed = _train(work)
                finished = _finished(work)
                problems = _score(work, finished) if finished else []
                compared = comparable(finished)
                if compared:
                    _measure_costs(work, compared)
            except KeyboardInterrupt:
                console.print("stopped; the same command goes on from the last checkpoints")
                exit_without_waiting()
    if compared:
        close_benchmark(benchmark, base, folder, compared)
    if problems:
        raise ProblemsFound("Some cases could not be scored: their trainings are not compared.", problems, exit_code=1)
    return 1 if failed or not compared else 0


def _refuse_others(folder: BenchmarkFolder, trainings: Sequence[Training]) -> None:
    if (folder.root / "experiment.yaml").is_file() or (folder.root / "sweep.json").is_file():
        problem = Problem(str(folder.root), "a run or a sweep of this name", "a new folder", "write another name")
        raise ProblemsFound("The benchmark has no place.", [problem])
    problems = []
    for training in trainings:
        try:
            refuse_other_settings(training.experiment, RunFolder(training.experiment.run_folder))
        except ProblemsFound as error:
            problems += [replace(p, where=f"{training.run_name}, {p.where}") for p in error.problems]
    if problems:
        raise ProblemsFound(f"The benchmark {folder.root} holds trainings with other settings.", problems)


def _prepare(base: Experiment, trainings: Sequence[Training]) -> dict[str, PreparedFolder]:
    """The prepared cases of each training; those with the same plan share them.

    Raises:
        ProblemsFound: where the folds are not the same for all.
    """
    prepared: dict[str, PreparedFolder] = {}
    with counting() as progress:
        for training in trainings:
            if training.name not in prepared:
                placed = training.experiment.model_copy(update={"storage": base.storage}).resolved()
                prepared[training.name] = prepare_cases(placed, progress=progress)
    splits = {name: read_json(one.done)["digests"]["split"] for name, one in prepared.items()}
    if len(set(splits.values())) > 1:
        problem = Problem("trainings", str(splits), "one split of the same cases", "remove what changes it")
        raise ProblemsFound("The trainings cannot be compared.", [problem])
    return prepared


def _scored(
    benchmark: Benchmark,
    folder: BenchmarkFolder,
    trainings: Sequence[Training],
    prepared: dict[str, PreparedFolder],
    folds: list[int],
    slots: Slots,
    trust: bool,
) -> list[Scored]:
    tasks = {
        (one.run_name, fold): FoldTask(
            one.experiment.resolved(),
            prepared[one.name],
            RunFolder(one.experiment.run_folder),
            fold,
            slots.cpus_per_process,
            slots.fold.processes,
            trust,
        )
        for one in trainings
        for fold in folds
    }
    scored = []
    for one in trainings:
        methods = methods_of(one) + ([oracle_method(one.name)] if one.name == benchmark.shared else [])
        shared = run_name(benchmark.shared, one.seed)
        scored += [
            Scored(folder, one, tasks[one.run_name, fold], tuple(methods), tasks[shared, fold]) for fold in folds
        ]
    return scored


def _print_plan(benchmark: Benchmark, folder: BenchmarkFolder, scored: Sequence[Scored], slots: Slots) -> None:
    tasks = fold_tasks(scored)
    left = sum(not is_done(task.run, task.fold) for task in tasks)
    methods = {method.name for one in scored for method in one.methods}
    training = scored[0].task.experiment.training
    console.print(
        f"{benchmark.name}: {len(benchmark.trainings)} trainings, seeds {', '.join(map(str, benchmark.seeds))}, "
        f"{len({one.task.fold for one in scored})} folds: {len(tasks)} networks, {left} of them to be trained, "
        f"{training.epochs * training.iterations_per_epoch} steps each, {slots.max_count} side by side\n"
        f"{len(methods)} maps to compare; everything goes to {folder.root}",
        soft_wrap=True,
    )


def _train(work: _Work) -> bool:
    """Train everything; whether a fold failed."""
    for one in work.scored:
        for number in range(one.task.experiment.training.members):
            run = open_run(member_experiment(one.task.experiment, number))
        digests = read_json(one.task.prepared.done)["digests"]
        run = one.task.run
        update_manifest(run.manifest, digests=digests, versions=describe_versions())
    # error networks look at finished segmentations
    watching = [one for one in work.scored if one.task.experiment.model.error_network is not None]
    others = [one for one in work.scored if one.task.experiment.model.error_network is None]
    failed = False
    with counting() as progress:
        for what, part in (("trained networks", others), ("trained error networks", watching)):
            tasks = fold_tasks(part)

            def show(what: str = what, tasks: list[FoldTask] = tasks) -> None:
                progress(what, sum(is_done(task.run, task.fold) for task in tasks), len(tasks))

            for task, message in train_folds(tasks, work.slots, show, work.own_ray):
                console.print(f"{task.run.root.name}, fold {task.fold} failed: {message}", soft_wrap=True)
                failed = True
    if failed:
        console.print("the same command tries the failed folds again")
    return failed


def _finished(work: _Work) -> list[Scored]:
    """What can be compared: trainings whose folds have all ended, with the segmentation that they share."""

    def ended(task: FoldTask) -> bool:
        return all_members_done(task.experiment, task.run, task.fold)

    broken = {one.training.run_name for one in work.scored if not (ended(one.task) and ended(one.shared))}
    return [one for one in work.scored if one.training.run_name not in broken]


def _score(work: _Work, finished: list[Scored]) -> list[Problem]:
    cases, _ = chosen_cases(work.base)
    with counting() as progress:
        return score_cases(finished, cases, work.slots, lambda done, of: progress("cases scored", done, of))


def _measure_costs(work: _Work, compared: list[Scored]) -> None:
    """Measure each estimator on one case; once for the same networks."""
    fold = compared[0].task.fold
    # the first seed of each that has one to be compared
    by_name = {one.training.name: one for one in reversed(compared) if one.task.fold == fold}
    first = [by_name[name] for name in work.benchmark.trainings if name in by_name]
    networks = [[source_digest(one.task), [method.name for method in one.methods]] for one in first]
    source = digest([work.benchmark.cost_repeats, networks])
    if work.folder.costs.is_file() and read_json(work.folder.costs)["source"] == source:
        return
    console.print("measuring what each estimator costs")
    case = read_json(first[0].task.prepared.splits)[fold]["val"][0]
    costs = measure_costs(first, case, work.benchmark.cost_repeats, work.slots)
    write_json(work.folder.costs, costs | {"source": source, "case": case})
