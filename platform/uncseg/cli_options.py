"""Arguments and options of several subcommands of ``uncseg``."""

from pathlib import Path
from typing import Annotated, Any

import typer


def argument(help: str, metavar: str | None = None) -> Any:
    """Return typer's declaration of an argument with this help."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


def _task_option(default: str) -> Any:
    meaning = (
        "What images, labels, regions and lesions mean: a built-in task, or a file (.yaml, nnU-Net's dataset.json)."
    )
    return typer.Option("--task", metavar="NAME_OR_FILE", help=meaning, show_default=default)


ExperimentFile = Annotated[Path, argument("Experiment file, YAML.")]
SweepFile = Annotated[Path, argument("Sweep file, YAML.", metavar="SWEEP")]
StudyRoot = Annotated[Path, argument("Folder of a run, a sweep or a benchmark.")]
SET_HELP = "Change a field, for example evaluation.mirroring=true."
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help=SET_HELP)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and print the plan, but train nothing.")]
CONVENTION_HELP = "How files are named and labels numbered: one of the task's conventions, for BraTS 2023 or 2018."
ConventionOption = Annotated[str | None, typer.Option(help=CONVENTION_HELP, show_default="as the files are named")]
PATIENTS_HELP = "Who is a patient: a csv file (case, patient), or a regular expression, whose first group it is."
PatientsOption = Annotated[
    str | None, typer.Option("--patients", metavar="FILE_OR_PATTERN", help=PATIENTS_HELP, show_default="by names")
]
TaskOption = Annotated[str | None, _task_option("gli-2023")]
FolderTask = Annotated[str | None, _task_option("as names or dataset.json tell, else gli-2023")]
Trust = Annotated[bool, typer.Option("--trust", help="Let checkpoints, and a sweep's state, run code of their own.")]
