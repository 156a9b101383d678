"""``uncseg evaluate RUN_A RUN_B``: the difference between two runs, paired by case."""

from pathlib import Path

from uncseg.commands.early_checks import runs_to_compare
from uncseg.console import console, warn
from uncseg.errors import Problem, listed, raise_if_any
from uncseg.evaluation.summary import compare
from uncseg.report.compared_tasks import common_regions, comparable_scores, task_sentences
from uncseg.report.run_figures import page_outputs
from uncseg.report.score_tables import differences_table
from uncseg.runs.run_data import cases_of_other_files
from uncseg.runs.run_opening import warn_of_changes
from uncseg.table_files import read_table, write_table

TITLE = "The runs cannot be compared."


def compare_runs(first: Path, second: Path) -> int:
    """Write and print paired differences, second − first, of the out-of-fold scores of the cases that both runs have.

    The table is written to the first run's ``tables/difference_from_NAME``, NAME being the second run's.

    Raises:
        ProblemsFound: a run has not been evaluated, no case or region is in both, or someone else's file has the
            table's name.
    """
    opened = runs_to_compare(first, second)
    for run, experiment in opened:
        warn_of_changes(run, experiment, "the tables that are compared were written before")
    runs, tasks = [run for run, _ in opened], [experiment.dataset.task for _, experiment in opened]
    a, b = (read_table(run.tables, "scores") for run in runs)
    assert a is not None
    assert b is not None
    both = set(a["case"]) & set(b["case"])
    disjoint = [Problem(f"{first}, {second}", "no case in both", "runs on the same cases", "compare other runs")]
    raise_if_any([] if both else disjoint, TITLE)
    names = [run.root.name for run in runs]
    if other := cases_of_other_files(runs[0], runs[1], both):
        warn(f"warning: the runs were made from other files of {len(other)} cases: {listed(other)}")
    regions = [Problem(f"{first}, {second}", "no region of the same name", "runs of one task", "compare other runs")]
    raise_if_any([] if common_regions(tasks) else regions, TITLE)
    table, name = compare(comparable_scores(a, *tasks), b), f"difference_from_{names[1]}"
    with page_outputs(runs[0]).claimed(f"tables/{name}.{ending}" for ending in ("csv", "parquet")):
        write_table(table, runs[0].tables, name)
    if names[0] == names[1]:  # the same run, made in two places
        names = [f"{name} ({n})" for n, name in enumerate(names, start=1)]
    console.print(differences_table(table, *names).to_rich())
    for line in task_sentences(names[0], tasks[0], names[1], tasks[1]):
        console.print(line)
    for name, scores in zip(names, (a, b), strict=True):
        if left := len(set(scores["case"]) - both):
            warn(f"{left} cases of {name} are left out, because the other run does not have them")
    return 0
