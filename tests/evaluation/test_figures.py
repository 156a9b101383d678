"""The table of figures, and every list that is derived from it."""

import math
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from uncseg.config.training_sections import PROTOCOLS
from uncseg.estimators.registry import ALL_MAPS, FLOORS
from uncseg.evaluation import figures
from uncseg.evaluation.case_scores import score_case
from uncseg.evaluation.figures import FIGURE_TABLE, HIGHER, KINDS, LOWER, Figure, Place, best_floor, shown_in
from uncseg.evaluation.page_tables import uncertainty_table
from uncseg.evaluation.summary import compare, summarize
from uncseg.evaluation.tables import beats_floor, table2
from uncseg.layout import RunFolder
from uncseg.metric_keys import (
    SKIPPED_BATCHES,
    SKIPPED_BY_LOSS_SCALE,
    SKIPPED_STEPS,
    case_key,
    epoch_key,
    failure_key,
    final_key,
    parse_epoch_key,
)
from uncseg.report.score_tables import differences_table, models_table, scores_table, summarize_models
from uncseg.studies.benchmark.benchmark_page import benchmark_table, ranking_table
from uncseg.studies.benchmark.benchmark_table import benchmark_summary, wide_table
from uncseg.studies.benchmark.ranking import ranking
from uncseg.table_files import write_table
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tracking.final_figures import final_figures
from uncseg.tracking.model_card import describe_model
from uncseg.tracking.shown import between_folds_name, in_order, is_shown

NOT_FIGURES = {"region", "reliability"}
COUNTS_AND_PARTS = {
    *("num_tp", "num_fp", "num_fn", "reference_volume_ml", "predicted_volume_ml"),
    *("rmsd_failure_reference", "qu_auc_dice", "qu_auc_ftp", "qu_auc_ftn", "auprc_brain", "fpr95_brain"),
}
"""Columns of scores that no table shows."""


@pytest.fixture
def add(monkeypatch):
    def add_figure(*values, **named):
        monkeypatch.setattr(figures, "FIGURE_TABLE", (*FIGURE_TABLE, Figure(*values, **named)))

    return add_figure


def scores(shift=0.0, **columns):
    rows = [
        {"case": f"c{case}", "patient": f"p{case}", "region": region, "fold": case % 2, "dice": 0.5 + case / 100}
        for case in range(12)
        for region in ("WT", "TC", "ET")
    ]
    frame = pd.DataFrame(rows).assign(hd95_mm=3.0, **columns)
    return frame.assign(sharpness=frame["dice"] + shift)


def words(table):
    return [table.header, *(row.cells for row in table.rows)]


def test_keys_are_unique_and_every_place_has_a_name():
    assert len({figure.key for figure in FIGURE_TABLE}) == len(FIGURE_TABLE)
    for figure in FIGURE_TABLE:
        assert set(figure.where.split()) <= set(get_args(Place)), figure.key
        assert figure.better in (HIGHER, LOWER)
        assert all(len(line) <= 12 for line in figure.short.splitlines()), figure.key
    for place in get_args(Place):
        assert shown_in(place), place


def test_headings_of_a_place_differ():
    for place in get_args(Place):
        headings = [figure.heading for figure in shown_in(place).values()]
        assert len(set(headings)) == len(headings), place
        short = [figure.short for figure in shown_in(place).values() if figure.short]
        assert len(set(short)) == len(short), place


def test_metric_keys_are_the_documented_ones():
    assert epoch_key("union", "corr", "uncertainty") == "uncertainty/union/corr_ema/uncertainty"
    assert case_key("entropy", "reference", "rmsd") == "entropy/reference/rmsd_failure"
    assert failure_key("corr", "union") == "corr_failure_union"
    assert final_key("union", "corr", "constant") == "final/union/corr_failure/constant"


def test_epoch_keys_parse_back_to_protocol_kind_and_estimator():
    keys = {(p, k, e): epoch_key(p, k, e) for p in PROTOCOLS for k in KINDS for e in ALL_MAPS}
    assert len(set(keys.values())) == len(keys)
    for parts, key in keys.items():
        assert parse_epoch_key(key) == parts
    for other in ("train/loss", "uncertainty/memory/visited_share_union", "uncertainty/union/auroc_ema/entropy"):
        assert parse_epoch_key(other) is None


@pytest.mark.parametrize("with_map", [True, False])
def test_every_column_of_scores_is_in_the_table_or_known_to_be_left_out(with_map):
    reference = np.zeros((12, 12, 12), np.uint8)
    reference[3:8, 3:8, 3:8] = 2
    doubt = np.random.default_rng(0).random(reference.shape, np.float32)
    maps = dict.fromkeys(("WT", "TC", "ET"), doubt) if with_map else None
    columns = set(score_case(reference, np.roll(reference, 1, 0), (1, 1, 1), paper_task(), maps)[0])
    known = {figure.key for figure in FIGURE_TABLE}
    assert columns <= known | NOT_FIGURES | COUNTS_AND_PARTS
    assert not with_map or {*shown_in("scores")} - {"aurc", "e_aurc", "spearman_uncertainty_dice"} <= columns


def test_a_figure_of_scores_is_one_line(add, tmp_path):
    add("sharpness", "sharpness", HIGHER, "scores models model_maps card", "sharp", unit="bit", regions="main")
    summary = summarize(scores())
    assert [row.cells[0] for row in scores_table(summary).rows] == ["Dice", "HD95 (mm)", "sharpness (bit)"]
    paired = differences_table(compare(scores(), scores(0.25)), "a", "b")
    assert ["sharpness (bit)", "12", "0.5550", "0.8050", "+0.2500 [+0.2500, +0.2500]", "< 0.001"] in words(paired)
    models = models_table(summarize_models(scores().assign(model="mean")), task=paper_task())
    assert models.header[-1] == "sharpness (bit)"
    assert models.terminal["sharpness (bit)"] == "sharp"
    run = RunFolder(tmp_path)
    per_case = scores()[scores()["region"] == "WT"].assign(dice_wt=0.9, dice_tc=0.8, dice_et=0.7, dice_mean=0.8)
    for name, frame in (("per_case", per_case), ("scores", scores()), ("scores_summary", summary)):
        write_table(frame, run.tables, name)
    final = final_figures(run)
    # dice is 0.5 + n / 100 for the cases n from 0 to 11, the even ones in fold 0
    assert final.folds[0]["final/sharpness_wt"] == pytest.approx(0.55)
    assert final.run["final/sharpness_wt"] == pytest.approx(0.555)
    assert final.run["final/sharpness_wt_std"] == pytest.approx(0.01 / math.sqrt(2))
    assert "final/sharpness_tc" not in final.run
    calibration = describe_model(run, {"dataset": {"name": "phantoms"}}, {}, [0, 1])["calibration"]
    assert calibration["ET"]["sharpness"] == pytest.approx(0.555)


def test_a_figure_across_cases_is_logged_for_the_run_alone(add, tmp_path):
    add("tail", "worst decile", HIGHER, "scores", regions="main")
    run = RunFolder(tmp_path)
    per_case = scores()[scores()["region"] == "WT"].assign(dice_wt=0.9, dice_tc=0.8, dice_et=0.7, dice_mean=0.8)
    across = pd.DataFrame({"region": ["WT", "TC"], "figure": ["tail"] * 2, "mean": [0.25, 0.5]})
    for name, frame in (("per_case", per_case), ("scores", scores()), ("scores_summary", across)):
        write_table(frame, run.tables, name)
    final = final_figures(run)
    assert {name: value for name, value in final.run.items() if "tail" in name} == {"final/tail_wt": 0.25}
    assert "final/tail_wt" not in final.folds[0]


def benchmark_rows():
    rows = []
    for method, value in (("plain/one_minus_p", 0.3), ("plain/uncertainty", 0.2), ("oracle", 0.9)):
        for case in range(12):
            row = {"method": method, "seed": 0, "fold": case % 2, "case": f"c{case}", "patient": f"p{case}"}
            row |= {"dice_wt": 0.9, "dice_tc": 0.9, "dice_et": 0.9, "mean_uncertainty": case / 12, "sharpness": value}
            rows += [row | {"segmentation": segmentation} for segmentation in ("own", "shared")]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("better", "first", "lead"), [(HIGHER, "plain/one_minus_p", -0.1), (LOWER, "plain/uncertainty", 0.1)]
)
def test_a_figure_of_a_benchmark_is_one_line(add, better, first, lead):
    add("sharpness", "sharpness of maps", better, "benchmark ranking", "sharp")
    costs = pd.DataFrame({"method": ["plain/uncertainty"], **dict.fromkeys(shown_in("cost"), 1.5)})
    wide = wide_table(benchmark_summary(benchmark_rows(), paper_task()), costs, paper_task(), ["plain/one_minus_p"])
    assert wide.set_index("method").loc["plain/uncertainty", "shared_sharpness"] == pytest.approx(0.2)
    page = benchmark_table(wide, paper_task())
    place = page.header.index("sharpness of maps")
    assert [row.cells[place] for row in page.rows if row.cells[0] == "plain/uncertainty"] == [
        "0.200 [0.200, 0.200]"
    ] * 2
    assert page.terminal["sharpness of maps"] == "sharp"
    ranked = ranking(benchmark_rows(), paper_task(), "sharpness", floors=["plain/one_minus_p"])
    assert ranked["method"].tolist()[:2] == ["oracle", first]
    assert ranked.set_index("method").loc["plain/uncertainty", "lead"] == pytest.approx(lead)
    assert ranking_table(ranked, "sharpness").title == "Ranking by sharpness of maps, shared segmentation"
    assert "sharpness" in shown_in("ranking")


def test_a_figure_of_table_2_is_one_line_beside_its_computation(add):
    add("corr_ema_best", "correlation, best epoch", HIGHER, "table2 verdict", "corr\nbest")
    epochs = pd.DataFrame({"fold": [0, 1], "epoch": [0, 0]})
    for name, value in (("uncertainty", 0.4), ("one_minus_p", 0.3)):
        epochs[epoch_key("union", "rmsd", name)] = epochs[epoch_key("union", "corr", name)] = value
    table = table2(pd.DataFrame(), epochs, 1, paper_task())
    assert table["corr_ema_best"].isna().all()
    page = uncertainty_table(
        table.assign(corr_ema_best=table["corr_ema_last"], corr_ema_best_std=0.01), 1, paper_task()
    )
    assert page.header.index("correlation, best epoch") < page.header.index("correlation, paper")
    assert "0.400 ± 0.010" in page.rows[1].cells
    lines = beats_floor(table)
    assert [line.partition(":")[0] for line in lines] == [
        "union mask, correlation with the error memory, last epochs",
        "union mask, correlation with the failure",
        "union mask, correlation, best epoch",
    ]


def test_floors_are_those_of_the_registry_in_every_table():
    scored = {case_key(name, "union", kind): [0.1, 0.1] for name in ALL_MAPS for kind in KINDS}
    table = table2(pd.DataFrame({"fold": [0, 1], **scored}), pd.DataFrame({"fold": [], "epoch": []}), 1, paper_task())
    assert table.loc[table["floor"], "estimator"].tolist() == list(FLOORS)


@pytest.mark.parametrize(
    ("values", "key", "settings", "expected"),
    [
        ({"one_minus_p": 0.2, "border_distance": 0.3, "uncertainty": 0.9}, "corr_failure", {}, "border_distance"),
        ({"one_minus_p": 0.2, "border_distance": 0.3, "uncertainty": 0.1}, "rmsd_failure", {}, "one_minus_p"),
        ({"one_minus_p": -0.2, "constant": 0.0}, "corr_ema_last", {}, "constant"),
        ({"one_minus_p": -0.2, "constant": 0.0}, "corr_ema_last", {"constant": False}, "one_minus_p"),
        ({"one_minus_p": 0.2, "constant": 0.1}, "rmsd_ema_last", {"constant": False}, "constant"),
        ({"one_minus_p": math.nan, "min_p": 0.1}, "corr_failure", {}, "min_p"),
        ({"min_p": 0.3, "one_minus_p": 0.3, "one_minus_max": 0.9}, "corr_failure", {}, "min_p"),
        ({"one_minus_p": math.nan, "uncertainty": 0.5}, "corr_failure", {}, None),
        ({}, "corr_failure", {}, None),
        ({"plain/a": 0.1, "plain/b": 0.2}, "ace", {"floors": ["plain/a", "plain/b"]}, "plain/a"),
    ],
)
def test_the_best_floor(values, key, settings, expected):
    assert best_floor(values, key, **settings) == expected


def test_mlflow_shows_what_says_something():
    shown = {(k, e) for k in KINDS for e in ALL_MAPS if is_shown(epoch_key("union", k, e))}
    assert {("corr", e) for e in ALL_MAPS} - shown == {("corr", "constant")}
    no_probabilities = {"one_minus_p", "one_minus_max", "border_distance", "oracle"}
    assert {e for e in ALL_MAPS if ("rmsd", e) not in shown} == no_probabilities
    by_key = figures.figures_by_key()
    methods = {"uncertainty", "cross_fitted", "calibrated", "variance_stable", "var1shot", "entropy", "min_p"}
    assert set(by_key["corr_failure"].estimators) == methods | no_probabilities - {"oracle"}
    assert set(by_key["rmsd_failure"].estimators) == methods | {"constant"}


def test_skipped_batches_are_a_curve_without_a_deviation():
    assert is_shown(SKIPPED_STEPS)
    assert is_shown(SKIPPED_BATCHES)
    assert not is_shown(SKIPPED_BY_LOSS_SCALE)
    assert between_folds_name(SKIPPED_STEPS) is between_folds_name(SKIPPED_BATCHES) is None


def test_headlines_come_first(add):
    add("val_patch/sharpness", "sharpness", HIGHER, "headline")
    metrics = ["train/loss", epoch_key("union", "corr", "uncertainty"), "val_patch/sharpness", "val_patch/dice_mean"]
    assert in_order(metrics) == [*metrics[1:], "train/loss"]
