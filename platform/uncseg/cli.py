"""The ``uncseg`` command line: one function per subcommand.

Exit codes: 0 success, 1 the work failed, 2 the request was wrong, 130 stopped by Ctrl-C or
SIGTERM. Modules are imported where they are used, because torch and nnU-Net take seconds to load.
"""

import io
import sys
from pathlib import Path
from typing import Annotated

import typer

from uncseg import stopping
from uncseg.cli_options import (
    ConventionOption,
    DryRun,
    ExperimentFile,
    FolderTask,
    Overrides,
    PatientsOption,
    StudyRoot,
    SweepFile,
    TaskOption,
    Trust,
    argument,
)
from uncseg.errors import ProblemsFound, storage_error

app = typer.Typer(
    help="Cross-validation experiments for uncertainty-aware segmentation, of brain tumours or of another task.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def phantom(
    out: Annotated[Path, argument("Folder to write.")],
    cases: Annotated[int, typer.Option(min=1, max=99_999, help="Number of cases.")] = 20,
    size: Annotated[int, typer.Option(min=24, max=1024, help="Voxels along each axis.")] = 48,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of everything that is drawn.")] = 0,
    task: TaskOption = None,
) -> None:
    """Write synthetic cases of a task, with the true probability of the main region at each voxel."""
    from uncseg.config.task_files import require_task
    from uncseg.dataset.phantom import write_phantoms
    from uncseg.tasks.built_in_tasks import paper_task

    named = require_task(task) or paper_task()
    typer.echo(f"{len(write_phantoms(out, cases, size, seed, named))} cases of {named.name} in {out}")


@app.command()
def check(
    dataset: Annotated[Path, argument("Folder of cases, or nnU-Net's folder of a dataset.")],
    convention: ConventionOption = None,
    patients: PatientsOption = None,
    task: FolderTask = None,
) -> None:
    """List every problem of a folder of cases in one table; exit with 1 if there is any."""
    stopping.say("stopped")
    from uncseg.commands.check import check_folder

    raise typer.Exit(check_folder(dataset, convention, patients, task))


@app.command()
def prepare(experiment: ExperimentFile, overrides: Overrides = None) -> None:
    """Check, plan, preprocess and split the cases of an experiment."""
    from uncseg.commands import early_checks
    from uncseg.config.experiment import load_experiment

    loaded = load_experiment(experiment, overrides)
    early_checks.check_cases(loaded)
    from uncseg.commands.prepare import prepare_dataset

    typer.echo(f"prepared cases: {prepare_dataset(loaded).root}")


@app.command()
def cross_validate(
    experiment: ExperimentFile,
    overrides: Overrides = None,
    folds: Annotated[str | None, typer.Option(help="Folds to train, for example 0,1. Default: all.")] = None,
    dry_run: DryRun = False,
    trust: Trust = False,
) -> None:
    """Train the folds side by side, predict every case out of fold, write the tables, fill MLflow."""
    from uncseg.commands import early_checks
    from uncseg.config.experiment import load_experiment

    chosen, loaded = early_checks.fold_numbers(folds), load_experiment(experiment, overrides)
    early_checks.check_training(loaded, chosen)
    from uncseg.commands.cross_validate import cross_validate

    raise typer.Exit(cross_validate(loaded, chosen, dry_run, trust))


@app.command()
def sweep(file: SweepFile, overrides: Overrides = None, trust: Trust = False) -> None:
    """Search the fields of an experiment by trials of a few folds each; write the best as an experiment file."""
    from uncseg.commands.checked_studies import checked_sweep

    loaded = checked_sweep(file, overrides)
    from uncseg.studies.sweep.run_sweep import run_sweep  # imports Ray: a wrong file is refused before

    raise typer.Exit(run_sweep(*loaded, trust))


@app.command()
def benchmark(
    file: Annotated[Path, argument("Benchmark file, YAML.", metavar="BENCHMARK")],
    overrides: Overrides = None,
    dry_run: DryRun = False,
    trust: Trust = False,
) -> None:
    """Train several kinds of networks with several seeds and compare all uncertainty maps on the same cases."""
    from uncseg.commands.checked_studies import checked_benchmark

    loaded = checked_benchmark(file, overrides)
    from uncseg.studies.benchmark.run_benchmark import run_benchmark  # imports Ray: a wrong file is refused before

    raise typer.Exit(run_benchmark(*loaded, dry_run, trust))


@app.command()
def score(
    predictions: Annotated[Path, argument("Folder of predicted masks, CASE.nii.gz.")],
    references: Annotated[Path, argument("Folder of reference masks, or of cases.")],
    out: Annotated[Path, typer.Option(help="NAME.parquet to write, one row per case and region; NAME.csv is added.")],
    uncertainty: Annotated[
        Path | None,
        typer.Option(
            help="Folder of maps: CASE_REGION.nii.gz for each region, in lower case; or one for all regions: "
            "CASE_uncertainty.nii.gz, CASE.nii.gz."
        ),
    ] = None,
    uncertainty_scale: Annotated[str, typer.Option(help="unit: 0 to 1; percent: 0 to 100.")] = "unit",
    brain: Annotated[
        Path | None, typer.Option(help="Folder of brain masks, or of cases. Default: the whole volume.")
    ] = None,
    prediction_convention: ConventionOption = None,
    reference_convention: ConventionOption = None,
    patients: PatientsOption = None,
    task: FolderTask = None,
) -> None:
    """Score masks against references, and uncertainty maps against the errors, as the BraTS challenges do."""
    from uncseg.commands.checked_scoring import checked_scoring

    folders = {"PREDICTIONS": predictions, "REFERENCES": references, "--uncertainty": uncertainty, "--brain": brain}
    conventions = prediction_convention, reference_convention
    request = checked_scoring(folders, out, uncertainty_scale, conventions, patients, task)
    from uncseg.commands.score import score_folders

    raise typer.Exit(score_folders(request))


@app.command()
def evaluate(
    run: Annotated[Path, argument("Folder of a run.")],
    other: Annotated[Path | None, argument("Another run to compare with.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="Folder of another cohort's cases, with references.")] = None,
    convention: ConventionOption = None,
    patients: PatientsOption = None,
    task: FolderTask = None,
    overrides: Overrides = None,
    trust: Trust = False,
) -> None:
    """Score a run's finished folds out of fold and write its tables, or compare two runs, or score another cohort."""
    from uncseg.commands import early_checks

    early_checks.check_evaluation(run, other, dataset, overrides, convention, patients, task)
    if other is not None:
        from uncseg.commands.compare import compare_runs

        raise typer.Exit(compare_runs(run, other))
    if dataset is not None:
        from uncseg.commands.evaluate import evaluate_cohort

        raise typer.Exit(evaluate_cohort(run, dataset, overrides, trust, convention, patients, task))
    from uncseg.commands.evaluate import evaluate_run

    raise typer.Exit(evaluate_run(run, overrides, trust))


@app.command()
def predict(
    model: Annotated[
        str, argument("A run, one of its folds, nnU-Net model folder, models:/NAME@ALIAS, runs:/ID/NAME.")
    ],
    source: Annotated[Path, argument("Folder of cases, or of nnU-Net input files.", metavar="INPUT")],
    output: Annotated[Path, argument("Folder to write.")],
    folds: Annotated[str | None, typer.Option(help="Folds to average, for example 0,1. Default: all finished.")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the regions' probabilities.")
    ] = False,
    overlays: Annotated[bool, typer.Option("--overlays", help="Also draw a PNG per case.")] = False,
    mirroring: Annotated[
        bool | None, typer.Option(help="Test-time mirroring, 8 passes instead of one.", show_default="as trained")
    ] = None,
    review_below: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Flag cases whose expected Dice of the main region is lower.",
            show_default="20 % quantile of the run's own cases, or 0.8",
        ),
    ] = None,
    overrides: Overrides = None,
    trust: Trust = False,
) -> None:
    """Predict new cases: labels, an uncertainty map and the expected Dice, in each case's own geometry."""
    from uncseg.commands import early_checks

    chosen = early_checks.fold_numbers(folds)
    early_checks.check_prediction(model, source, output, chosen, overrides)
    from uncseg.commands.predict import PredictionOptions, predict_folder

    options = PredictionOptions(probabilities, overlays, mirroring, review_below)
    raise typer.Exit(predict_folder(model, source, output, options, chosen, overrides, trust))


@app.command()
def report(
    runs: Annotated[list[Path], argument("Folders of one or several runs.", metavar="RUN...")],
    cases: Annotated[int, typer.Option(min=0, help="Cases with a slice viewer: the worst and most uncertain.")] = 6,
) -> None:
    """Write one HTML page on one or several runs, with tables, figures and slices; it needs no network."""
    stopping.say("stopped")
    from uncseg.commands import early_checks

    early_checks.check_report(runs)
    from uncseg.commands.report import report_runs

    raise typer.Exit(report_runs(runs, cases))


@app.command()
def sync(
    run: StudyRoot,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow to push to, instead of the experiment's.")] = None,
) -> None:
    """Push to MLflow whatever it does not hold yet."""
    from uncseg.commands import early_checks

    early_checks.check_synced(run, tracking_uri)
    from uncseg.commands.sync import sync_folder

    left = sync_folder(run, tracking_uri)
    typer.echo(f"{left} records are left" if left else "MLflow holds everything", err=bool(left))
    raise typer.Exit(1 if left else 0)


@app.command()
def ui(
    run: StudyRoot,
    port: Annotated[int | None, typer.Option(min=1, max=65535, show_default="the first free one from 5000")] = None,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser, if there is one.")] = True,
) -> None:
    """Show a run in MLflow on this machine's loopback address, until Ctrl-C."""
    stopping.say("stopped")
    from uncseg.commands import early_checks

    early_checks.check_synced(run, None)
    from uncseg.commands.ui import show_run

    raise typer.Exit(show_run(run, port, browser))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line with the given arguments, or as the process's own work with the process's arguments."""
    if arguments is None:
        stopping.listen()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may hold what a terminal's encoding does not
            stream.reconfigure(errors="backslashreplace")
    try:
        app(arguments)
    except (ProblemsFound, OSError) as error:
        from uncseg.console import show_problems

        if (found := error if isinstance(error, ProblemsFound) else storage_error(error)) is None:
            raise
        show_problems(found)
        sys.exit(found.exit_code)
    finally:
        stopping.end_if_stopped()


if __name__ == "__main__":
    main()
