"""The benchmark in a terminal, in Markdown, on a page and as a figure."""

import io
import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as mpl_image
from rich.console import Console

from uncseg.report.page import Picture
from uncseg.studies.benchmark.benchmark_page import (
    benchmark_table,
    leads_table,
    ranking_table,
    to_markdown,
    verdicts,
    write_benchmark_page,
)
from uncseg.studies.benchmark.benchmark_plot import FLOOR_NAME, NAME, benchmark_figure, draw_benchmark
from uncseg.studies.benchmark.benchmark_table import LEAST_DICE, benchmark_summary, wide_table
from uncseg.studies.benchmark.ranking import leads_over_all, ranking
from uncseg.studies.benchmark.ranking_plot import draw_rankings, ranking_figure
from uncseg.tasks.built_in_tasks import paper_task

PAPER = paper_task()

FLOORS = ("border_distance", "constant")
MEANS = {"oracle": 0.9, "constant": 0.0, "border_distance": 0.4, "uncertainty": 0.5, "mc_dropout": 0.34, "weak": 0.3}


def rows(cases=12, means=MEANS, seeds=2):
    random = np.random.default_rng(0)
    records = []
    for (method, mean), seed, number, segmentation in itertools.product(
        means.items(), range(seeds), range(cases), ("own", "shared")
    ):
        keys = {"method": method, "segmentation": segmentation, "seed": seed, "fold": number % 2}
        keys |= {"case": f"c{number:02d}", "patient": f"p{number:02d}"}
        dice = 0.7 if method == "weak" else 0.91
        figures = {"dice_wt": dice, "dice_tc": 0.8, "dice_et": 0.75, "mean_uncertainty": random.random()}
        value = mean + 0.02 * np.sin(number) + random.normal(0, 0.01)
        names = (
            "auprc_union",
            "corr_failure_union",
            "corr_oracle_union",
            "rmsd_union",
            "qu_score",
            "auroc_band",
            "ace",
        )
        records.append(keys | figures | dict.fromkeys(names, value) | {"corr_failure_reference": -value})
    return pd.DataFrame(records)


def costs(methods):
    known = [method for method in methods if method != "oracle"]
    passes = [20 if "dropout" in method else 1 for method in known]
    frame = pd.DataFrame({"method": known, "passes": passes, "models": 1, "training_cost": 1.0})
    return frame.assign(inference_cost=frame["passes"] * 1.03)


def wide_of(frame):
    return wide_table(benchmark_summary(frame, PAPER), costs(frame["method"].unique()), PAPER, FLOORS)


@pytest.fixture(scope="module")
def wide():
    return wide_of(rows())


@pytest.fixture(scope="module")
def rankings():
    return {
        figure: ranking(rows(), PAPER, figure, floors=FLOORS) for figure in ("corr_oracle_union", "corr_failure_union")
    }


def cells(markdown, method, table):
    """Cells of a method's row in the n-th block of the Markdown, by the column's name."""
    lines = [line for line in markdown.split("\n\n")[table].splitlines() if line.startswith("|")]
    header = [cell.strip() for cell in lines[0].strip("|").split("|")]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    return [dict(zip(header, row, strict=True)) for row in found if row[0] == method]


def test_markdown_has_means_with_intervals_floors_and_what_is_not_compared(wide, rankings):
    text = to_markdown(wide, PAPER, rankings)
    own, shared = cells(text, "uncertainty head", 1)
    row = wide.set_index("method").loc["uncertainty"]
    ends = f"[{row['shared_corr_failure_union_low']:.2f}, {row['shared_corr_failure_union_high']:.2f}]"
    if row["shared_corr_failure_union_low"].round(2) == row["shared_corr_failure_union_high"].round(2):
        ends = f"[{row['shared_corr_failure_union_low']:.3f}, {row['shared_corr_failure_union_high']:.3f}]"
    assert shared["correlation with the failure, union mask"] == f"{row['shared_corr_failure_union']:.3f} {ends}"
    assert shared["correlation with the failure, reference mask"].startswith("−0.")
    assert own["Dice WT"] == "0.910 [0.910, 0.910]"
    assert (own["passes"], own["inference cost"], shared["passes"]) == ("1", "1.03", "")
    assert own["AUROC of errors, brain"] == "–"
    assert len(cells(text, "distance *", 1)) == len(cells(text, "constant *", 1)) == 2
    for weak in cells(text, "weak", 1):
        assert "not compared: WT Dice under 0.85" in weak.values()
    assert "weak is not compared: its mean WT Dice of 0.700 is under 0.85." in text
    assert cells(text, "oracle", 1)[0]["passes"] == "–"


def test_the_ranking_says_which_methods_beat_the_best_floor(wide, rankings):
    table = ranking_table(rankings["corr_oracle_union"], "corr_oracle_union")
    by_method = {row.cells[0]: list(row.cells[2:]) for row in table.rows}
    assert next(iter(by_method)) == "oracle"
    assert by_method["oracle"] == ["–"] * 4
    assert by_method["uncertainty head"][:2] == ["1", "1 to 1"]
    assert by_method["uncertainty head"][2].startswith("+0.1")
    assert "is it" in (by_method["distance *"][2], by_method["constant *"][2])
    assert by_method["weak"] == ["–"] * 4
    assert by_method["uncertainty head"][3] == "distance"
    (line,) = verdicts(rankings["corr_oracle_union"], "corr_oracle_union")
    assert "the best floor, distance, has 0." in line
    assert "above it: uncertainty head (1 of 2); worse: 1; not told apart: 0." in line
    few = verdicts(ranking(rows(cases=4), PAPER, floors=FLOORS), "corr_oracle_union")
    assert "too few patients to prove it" in few[0]
    assert verdicts(ranking(rows(), PAPER, floors=()), "corr_oracle_union") == []


def test_the_proposed_map_is_shown_against_every_other_map_with_its_cost(wide, rankings):
    leads = {figure: leads_over_all(rows(), PAPER, figure, "uncertainty") for figure in rankings}
    table = leads_table(leads, "uncertainty", costs(MEANS))
    by_method = {row.cells[0]: list(row.cells[1:]) for row in table.rows}
    # "weak" segments too badly to be compared, the oracle does not exist for real cases
    assert set(by_method) == {"mc_dropout", "distance", "constant"}
    for lead in by_method["mc_dropout"][:2]:
        value, interval, seeds = re.fullmatch(r"(\S+) \[(.+)\] ± (\S+)", lead).groups()
        assert float(value) == pytest.approx(0.16, abs=0.01)
        assert interval.startswith("+0.1")
        assert float(seeds) < 0.01
    assert by_method["mc_dropout"][2] == "20.60"
    assert "that of uncertainty head is 1.03" in table.note
    assert "uncertainty head against every other map" in to_markdown(wide, PAPER, rankings, further=[table])


def test_a_terminal_of_120_columns_shows_every_name_and_number(wide):
    stream = io.StringIO()
    Console(file=stream, width=120).print(benchmark_table(wide, PAPER).to_rich())
    text = stream.getvalue()
    for name in ("uncertainty head", "mc_dropout", "distance *", "constant *", "20.60"):
        assert name in text
    assert "…" not in text
    assert f"{wide.set_index('method').loc['mc_dropout', 'own_ace']:.3f}"[1:] in text


def test_the_page_needs_no_network_and_escapes_what_it_is_given(tmp_path, wide, rankings):
    picture = tmp_path / "cost.png"
    assert draw_benchmark(picture, wide)
    page = tmp_path / "benchmark.html"
    figures = [Picture(picture, "Quality against cost")]
    about = {"figures": figures, "commands": "uncseg benchmark b.yaml", "configuration": "a: 1"}
    write_benchmark_page(page, "A <b>enchmark", wide, PAPER, rankings, LEAST_DICE, **about)
    text = page.read_text()
    assert "A &lt;b&gt;enchmark" in text
    assert "data:image/png;base64," in text
    assert "http://" not in text
    assert "https://" not in text
    assert text.count("<table") == 3
    for part in ("uncseg benchmark b.yaml", "weak is not compared", "the best floor, distance", 'id="benchmark"'):
        assert part in text
    assert sorted(file.name for file in tmp_path.iterdir()) == ["benchmark.html", "cost.png"]


def test_latex_has_every_method_on_both_segmentations(wide):
    text = benchmark_table(wide, PAPER).to_latex()
    assert r"mc\_dropout" in text
    assert text.count("segmentation &") == 2


def texts(figure, gid):
    return [text for axes in figure.axes for text in axes.texts if text.get_gid() == gid]


@pytest.mark.parametrize("cases", [12, 4])
def test_no_names_in_the_figure_overlap(cases):
    means = MEANS | {f"a_method_with_a_long_name_{n}": 0.35 + 0.01 * n for n in range(14)}
    means |= {f"dropout_{n}": 0.42 + 0.002 * n for n in range(6)}
    figure = benchmark_figure(wide_of(rows(cases, means, seeds=1)))
    figure.canvas.draw()
    assert len(figure.axes) == 4
    for axes in figure.axes:
        names = [text for text in axes.texts if text.get_gid() == NAME]
        assert {text.get_text() for text in names} == {"uncertainty head", *(set(means) - set(MEANS)), "mc_dropout"}
        boxes = [text.get_window_extent() for text in names]
        floors = [text.get_window_extent() for text in axes.texts if text.get_gid() == FLOOR_NAME]
        for a, b in itertools.combinations([*boxes, *floors], 2):
            assert not a.overlaps(b)
        panel = axes.get_window_extent()
        assert all(panel.x0 <= box.x0 and box.x1 <= panel.x1 and panel.y0 <= box.y0 for box in boxes)


def test_points_lie_at_their_quality_and_floors_are_lines(wide):
    figure = benchmark_figure(wide)
    indexed = wide.set_index("method")
    for axes, quality in zip(figure.axes, ("auprc_union",) * 2 + ("corr_oracle_union",) * 2, strict=True):
        points = np.sort(axes.containers[0].lines[0].get_ydata())
        np.testing.assert_allclose(points, np.sort(indexed.loc[["uncertainty", "mc_dropout"], f"shared_{quality}"]))
        cost = "training_cost" if axes.get_xlabel().startswith("training") else "inference_cost"
        x = np.sort(axes.containers[0].lines[0].get_xdata())
        np.testing.assert_allclose(x, np.sort(indexed.loc[["uncertainty", "mc_dropout"], cost]))
        levels = [line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1]
        floor = indexed.loc["border_distance", f"shared_{quality}"]
        assert any(math.isclose(level, floor) for level in levels)
    assert figure.axes[0].get_xscale() == "log"
    # the line of the constant is far off, and named at the edge
    assert any(text.get_text().startswith("constant *: 0.0") for text in texts(figure, FLOOR_NAME))


def test_without_an_oracle_there_is_one_row_of_panels(tmp_path):
    frame = rows()
    frame["corr_oracle_union"] = math.nan
    assert len(benchmark_figure(wide_of(frame)).axes) == 2
    frame["auprc_union"] = math.nan
    assert benchmark_figure(wide_of(frame)) is None
    assert not draw_benchmark(tmp_path / "none.png", wide_of(frame))
    assert list(tmp_path.iterdir()) == []


def test_the_figure_can_be_read_in_grey(tmp_path, wide):
    draw_benchmark(tmp_path / "cost.png", wide)
    grey = mpl_image.imread(tmp_path / "cost.png")[..., :3] @ [0.299, 0.587, 0.114]
    # points and names are much darker than the paper
    assert (grey < 0.45).mean() > 0.002
    assert np.median(grey) == pytest.approx(1)


def test_dots_stand_in_the_order_of_the_first_figure_and_floors_are_hollow(rankings, tmp_path):
    figure = ranking_figure(rankings, proposed="uncertainty")
    first, second = figure.axes
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names == ["oracle", "uncertainty head", "distance *", "mc_dropout", "constant *"]  # weak is not compared
    for axes, table in zip((first, second), rankings.values(), strict=True):
        means = table.set_index("method")["mean"]
        dots = [bar.lines[0] for bar in axes.containers]
        expected = means[["oracle", "uncertainty", "border_distance", "mc_dropout", "constant"]]
        np.testing.assert_allclose([dot.get_xdata()[0] for dot in dots], expected)
        assert [dot.get_ydata()[0] for dot in dots] == [0, 1, 2, 3, 4]
        hollow = [dot.get_markerfacecolor() == "white" for dot in dots]
        assert hollow == [False, False, True, False, True]
        ends = axes.containers[1].lines[2][0].get_segments()[0][:, 0]
        row = table.set_index("method").loc["uncertainty"]
        np.testing.assert_allclose(ends, [row["ci_low"], row["ci_high"]])
        assert len({dot.get_color() for dot in dots}) == 3
    assert first.get_ylim()[0] > first.get_ylim()[1], "the best is on top"
    assert draw_rankings(tmp_path / "ranking.png", rankings, None)
    nothing = {key: table.assign(compared=False) for key, table in rankings.items()}
    assert ranking_figure(nothing, None) is None
