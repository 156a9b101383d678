"""Scores of networks without a map beside maps of one pass; problems that hold brackets."""

import math
from typing import get_args

import numpy as np
import pandas as pd

from uncseg.config.sections import Estimators
from uncseg.console import console, errors, show_problems
from uncseg.errors import Problem, ProblemsFound
from uncseg.estimators.registry import ONE_PASS
from uncseg.evaluation.case_scores import score_case
from uncseg.evaluation.summary import summarize
from uncseg.report.score_tables import models_table, scores_table, summarize_models, write_scores
from uncseg.runs.cohort_evaluation import expectation_lines
from uncseg.tasks.built_in_tasks import built_in, paper_task

REFERENCE = np.zeros((12, 12, 12), np.uint8)
REFERENCE[3:8, 3:8, 3:8] = 2
PREDICTED = np.roll(REFERENCE, 1, axis=0)


def rows_of(model, maps):
    scored = score_case(REFERENCE, PREDICTED, (1, 1, 1), paper_task(), maps, np.ones_like(REFERENCE, bool))
    return [{"case": "a", "patient": "a", "model": model, **row} for row in scored]


def test_networks_without_a_map_beside_one_that_has_one(tmp_path):
    doubt = np.random.default_rng(0).random(REFERENCE.shape, np.float32)
    rows = pd.DataFrame(rows_of("mean", None) + rows_of("entropy", dict.fromkeys(("WT", "TC", "ET"), doubt)))
    summary = write_scores(rows[rows["model"] == "mean"].drop(columns="model"), tmp_path, "scores")
    assert summary.set_index(["figure", "region"]).loc[("dice", "WT"), "mean"] > 0.5
    assert not (tmp_path / "scores_reliability.csv").exists()
    with console.capture() as captured:
        console.print(models_table(summarize_models(rows.drop(columns="reliability")), task=paper_task()).to_rich())
    lines = [line for line in captured.get().splitlines() if "mean " in line or "entropy" in line]
    assert "–" in lines[0]
    assert "–" not in lines[1]


def test_a_region_that_a_map_says_nothing_of_has_no_score_of_maps():
    task, doubt = built_in("gli-2024"), np.random.default_rng(0).random(REFERENCE.shape, np.float32)
    maps = dict.fromkeys(("WT", "TC", "ET"), doubt)
    rows = score_case(REFERENCE, PREDICTED, (1, 1, 1), task, maps, np.ones_like(REFERENCE, bool))
    scores = pd.DataFrame([{"case": "a", "patient": "a", **row} for row in rows]).drop(columns="reliability")
    table = scores_table(summarize(scores))
    cells = {row.cells[0]: row.cells[1:] for row in table.rows}
    assert [cell == "–" for cell in cells["QU-BraTS"]] == [False, False, False, True]
    assert [cell == "too few" for cell in cells["AURC of cases"]] == [True, True, True, False]
    assert "–" not in cells["Dice"]


def test_nothing_is_said_of_an_expectation_that_nobody_had():
    cases = pd.DataFrame({"dice_wt": [0.8, 0.9], "expected_dice_wt": [math.nan] * 2, "review": [False, False]})
    assert not any("nan" in line for line in expectation_lines(cases, built_in("gli-2023")))


def test_brackets_are_shown():
    problem = Problem("maps", "no map", "something", "name some, as [entropy]")
    with errors.capture() as captured:
        show_problems(ProblemsFound("It cannot be used.", [problem]))
    assert "[entropy]" in captured.get()


def test_what_can_be_chosen_of_one_pass_is_what_there_is():
    chosen = get_args(get_args(Estimators.model_fields["one_pass"].annotation)[0])
    assert sorted(chosen) == sorted(ONE_PASS)
