"""Pages of runs of other tasks, and of runs whose tasks differ."""

import pandas as pd
import pytest

from support.evaluated_runs import evaluate, report, write_run
from support.own_tasks import LIVER, PROSTATE
from uncseg.cli import main
from uncseg.console import console, errors
from uncseg.tasks.built_in_tasks import built_in

POST = built_in("gli-2024")


@pytest.mark.parametrize("task", [POST, PROSTATE, LIVER], ids=lambda task: task.name)
def test_a_page_speaks_of_the_task_of_its_run(tmp_path, open_page, task):
    run = evaluate(write_run(tmp_path, task), tmp_path / f"cases_of_{task.name}", task=task)
    assert report(run.root) == 0
    page = open_page(run.root / "report.html")
    assert page.said == []
    (heading,) = [text for text in page.locator("h1").all_inner_texts() if task.name in text or task.title in text]
    assert heading.startswith("small: ")
    columns = page.locator("#table1 + .wide th").all_inner_texts()
    assert columns == ["", "fold", "cases", *(f"Dice {region}" for region in task.regions), "mean"]
    assert page.locator("#scores + .wide th").all_inner_texts() == ["", *task.regions]
    legend = page.locator("p:has(> .key)").inner_text()
    assert " ".join(task.labels) + ";" in " ".join(legend.split())
    assert page.locator(".viewer").count() >= 3
    body = page.locator("body").inner_text()
    assert f"expected Dice {task.main_region}" in body
    for other in {"WT", "TC", "ET", "NCR"} - {*task.regions, *task.labels}:
        assert other not in body.split("Configuration")[0].replace(task.name, "")
    figures = sorted(file.name for file in run.figures.rglob("*.png"))
    assert {"folds.png", "overlay.png", "risk_coverage.png"} <= set(figures)


def test_runs_of_different_tasks_side_by_side(tmp_path, open_page):
    """Of the second run's cases none is in the first; Table 1 shows what both have."""
    first = evaluate(write_run(tmp_path), tmp_path / "cases")
    other = evaluate(write_run(tmp_path, POST, "post"), tmp_path / "cases_of_gli-2024", task=POST)
    assert report(first.root, other.root) == 0
    page = open_page(first.root / "report_small_post.html")
    said = page.locator(".missing").all_inner_texts()
    assert "small and post have different tasks (gli-2023, gli-2024): only WT, TC and ET are compared, by name." in said
    columns = page.locator("#compared-dice + .wide th").all_inner_texts()
    assert columns == ["run", "model", "folds", "cases", "Dice WT", "Dice TC", "Dice ET"]
    settings = page.locator("#compared-settings + .wide tr").all_inner_texts()
    assert any(row.split() == ["dataset.task", "gli-2023", "gli-2024"] for row in settings)


def test_two_runs_by_command_whose_tasks_differ(tmp_path):
    """The same cases, but for the second task the organ is the main region, and lesions are told apart otherwise."""
    named = LIVER.model_copy(update={"phantom": LIVER.phantom.model_copy(update={"cases": "c-{patient}-{scan}"})})
    lesions = named.lesions.model_copy(update={"dilations": 0})
    organ = named.model_copy(update={"name": "organ", "main_region": "liver", "lesions": lesions})
    first, other = (
        evaluate(write_run(tmp_path, t, t.name), tmp_path / f"cases_of_{t.name}", task=t) for t in (named, organ)
    )
    with console.capture() as captured, pytest.raises(SystemExit) as ended:
        main(["evaluate", str(first.root), str(other.root)])
    assert not ended.value.code
    said = " ".join(captured.get().split())
    assert "liver and organ have different tasks (liver, organ): only liver and tumour are compared, by name." in said
    rules = "(lesions of more than 50 mm³, 3 dilations; lesions of more than 50 mm³, no dilations)"
    assert f"tell lesions apart by different rules {rules}" in said
    table = pd.read_parquet(first.tables / "difference_from_organ.parquet")
    assert {"dice", "hd95_mm", "ece"} <= set(table["figure"])
    assert not table["figure"].str.startswith(("lesionwise", "num_")).any()
    prostate = evaluate(write_run(tmp_path, PROSTATE, "p"), tmp_path / "cases_of_prostate", task=PROSTATE)
    with errors.capture() as captured, pytest.raises(SystemExit) as ended:
        main(["evaluate", str(first.root), str(prostate.root)])
    assert ended.value.code == 2
    assert "no case in both" in captured.get()
