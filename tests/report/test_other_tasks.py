"""Pictures and tables of tasks with one label, with a label outside the tumour, and with more labels than colours."""

import base64
import io
import re
from functools import cache
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib import image as mpl_image
from matplotlib.colors import to_rgb
from PIL import Image
from rich.console import Console

from support.own_tasks import LIVER, PROSTATE, SHELL
from uncseg.report.case_figure import draw_case
from uncseg.report.case_images import CaseImages, largest_disagreement
from uncseg.report.case_level import draw_folds, draw_risk_coverage
from uncseg.report.compared_tasks import common_dices, comparable_scores, task_sentences
from uncseg.report.overlay import draw_overlay
from uncseg.report.progress import draw_progress
from uncseg.report.run_figures import telling_cases
from uncseg.report.score_tables import models_table, scores_table, summarize_models
from uncseg.report.slices import make_sheet
from uncseg.report.style import fullest_slice, label_colours, region_styles
from uncseg.report.training_curves import TrainedEpochs, draw_training
from uncseg.report.work_list import work_list, work_table
from uncseg.tasks.built_in_tasks import built_in, paper_task
from uncseg.tasks.task import Task

POST = built_in("gli-2024")
ORGANS = Task.model_validate(
    {"name": "organs", "modalities": ["ct"], "labels": {f"organ_number_{n}": n for n in range(1, 8)}}
)
"""Seven labels with long names, and eight regions."""
MANY = Task.model_validate({"name": "many", "modalities": ["ct"], "labels": {f"l{n}": n for n in range(1, 21)}})
TASKS = [PROSTATE, LIVER, SHELL, POST, ORGANS]
DRAWN = [PROSTATE, POST, ORGANS]
BY_NAME = {"ids": lambda task: task.name}


def pixels(path):
    return mpl_image.imread(path)[..., :3]


def share(picture, colour):
    return float((np.abs(picture - np.array(to_rgb(colour))).max(-1) < 0.02).mean())


def labels_of(task):
    """A volume with a slab of each label, one voxel apart, on a middle slice."""
    volume = np.zeros((5, 60, 60), np.uint8)
    for number in task.labels.values():
        volume[2, 3 + 5 * number : 7 + 5 * number, 10:50] = number
    return volume


@pytest.mark.parametrize("task", [*TASKS, MANY], **BY_NAME)
def test_each_label_has_a_colour_of_its_own(task):
    assert len(set(label_colours(task).values())) == len(task.labels)


@pytest.mark.parametrize("task", DRAWN, **BY_NAME)
def test_an_overlay_shows_each_label_in_its_colour(tmp_path, task):
    labels = labels_of(task)
    draw_overlay(tmp_path / "o.png", np.ones(labels.shape), {"reference": labels}, {}, "a case", task=task)
    drawn = pixels(tmp_path / "o.png")
    for colour in label_colours(task).values():
        over_black = 0.75 * np.array(to_rgb(colour))  # a flat image is black
        assert share(drawn, over_black) > 0.002
        assert share(drawn, colour) > 0.0005  # the legend


def test_the_slice_shown_is_that_of_the_main_region():
    labels = np.zeros((9, 10, 10), np.uint8)
    labels[6] = POST.labels["RC"]
    assert fullest_slice([labels], POST) == 6  # nothing of the tumour: what there is
    labels[2, 3, 3] = POST.labels["ET"]
    assert fullest_slice([labels], POST) == 2
    assert fullest_slice([labels * (labels == POST.labels["RC"]), labels], POST) == 2
    assert fullest_slice([labels * 0], POST) == 4


def test_planes_meet_where_the_main_region_differs():
    """The cavity is missed as a whole, the tumour by a voxel: the head learns errors of the tumour."""
    reference, prediction = np.zeros((2, 20, 20, 20), np.uint8)
    reference[2:8, 2:8, 2:8] = POST.labels["RC"]
    reference[15, 15, 15] = POST.labels["SNFH"]
    at, why = largest_disagreement(reference, prediction, (1, 1, 1), POST)
    assert (at, why) == ((15, 15, 15), "the voxel where reference and prediction of the whole tumour differ most")
    prediction[15, 15, 15] = POST.labels["ET"]
    at, why = largest_disagreement(reference, prediction, (1, 1, 1), POST)
    assert reference[at] == POST.labels["RC"]
    assert "labels" in why
    at, why = largest_disagreement(reference[:, :, :10] > 0, prediction[:, :, :10] > 0, (1, 1, 1), PROSTATE)
    assert "of prostate differ most" in why


def test_borders_are_those_of_the_main_region(tmp_path):
    """Where only the cavity is, no border is drawn over a map."""
    reference = np.zeros((40, 40, 40), np.uint8)
    reference[10:30, 10:30, 10:30] = POST.labels["RC"]
    flat = np.ones(reference.shape, np.float32)
    white = {}
    for name, labels in (("cavity", reference), ("tumour", np.where(reference, POST.labels["SNFH"], 0))):
        case = CaseImages(flat, labels, labels, {"uncertainty": flat * 0.5}, (1.0, 1.0, 1.0))
        draw_case(tmp_path / f"{name}.png", case, "a case", POST)
        drawn = pixels(tmp_path / f"{name}.png")
        white[name] = ((np.abs(drawn - np.array(to_rgb("#56b4e9"))).max(-1)) < 0.05)[: drawn.shape[0] * 2 // 3].sum()
    assert white["cavity"] == 0 < white["tumour"]


@pytest.mark.parametrize("task", TASKS, **BY_NAME)
def test_layers_of_a_sheet_have_the_labels_colours(task):
    labels = labels_of(task)
    sheet = make_sheet(np.ones(labels.shape, np.float32), {"reference": labels}, {}, task)
    assert sheet.first == 2
    layer = Image.open(io.BytesIO(base64.b64decode(sheet.layers["reference"].partition(",")[2])))
    shown = np.asarray(layer.convert("RGBA"))
    found = {tuple(colour[:3]) for colour in np.unique(shown.reshape(-1, 4), axis=0) if colour[3]}
    assert found == {tuple(round(255 * part) for part in to_rgb(colour)) for colour in label_colours(task).values()}


def patch(task):
    labels = labels_of(task)
    flat = np.ones(labels.shape)
    return SimpleNamespace(
        image=flat, reference=labels, prediction=labels, error=flat * 0, variance=flat * 0, uncertainty=None
    )


@pytest.mark.parametrize("task", TASKS, **BY_NAME)
def test_pictures_of_a_training_name_every_label(tmp_path, task):
    draw_progress(tmp_path / "p.png", patch(task), "a case", task)
    drawn = np.asarray(Image.open(tmp_path / "p.png"))[224:] / 255
    for colour in label_colours(task).values():
        assert (np.abs(drawn - np.array(to_rgb(colour))).max(-1) < 0.02).sum() == 12 * 12
    draw_progress(tmp_path / "q.png", patch(paper_task()), "a case", paper_task())
    heights = [Image.open(tmp_path / name).height for name in ("q.png", "p.png")]
    assert (heights[1] > heights[0]) == (task is ORGANS)  # long names need more lines


def per_case(task, cases=12):
    random = np.random.default_rng(0)
    rows = [{"case": f"c{n}", "patient": f"c{n}", "fold": n % 2} for n in range(cases)]
    for key in task.region_keys.values():
        for row in rows:
            row[f"dice_{key}"] = float(random.uniform(0.5, 1))
    return pd.DataFrame(rows).assign(dice_mean=0.8, **{f"expected_dice_{task.main_key}": 0.7})


def scores(task, cases=12):
    random, table = np.random.default_rng(1), per_case(task, cases)
    rows = []
    for row in table.to_dict("records"):
        for region, key in task.region_keys.items():
            of_case = {name: row[name] for name in ("case", "patient", "fold")}
            figures = {name: float(random.uniform(0.5, 1)) for name in ("ece", "corr_failure_union", "auroc_band")}
            figures |= {"lesionwise_dice": 0.5, "num_fn": 1, "mean_uncertainty": float(random.uniform())}
            rows.append(of_case | {"region": region, "dice": row[f"dice_{key}"], "hd95_mm": 123.456} | figures)
    return pd.DataFrame(rows)


@pytest.mark.parametrize("task", DRAWN, **BY_NAME)
@pytest.mark.parametrize("draw", [draw_folds, draw_risk_coverage])
def test_each_region_has_a_panel(tmp_path, task, draw):
    table = per_case(task) if draw is draw_folds else scores(task)
    draw(tmp_path / "f.png", table, task)
    drawn = pixels(tmp_path / "f.png")
    for style in region_styles(task.regions).values():
        colour = np.array(to_rgb(style["color"]))
        opacity = 0.7 if draw is draw_folds else 1  # of points
        assert share(drawn, 1 - opacity * (1 - colour)) > 0
    rows = -(-len(task.regions) // 4)
    assert drawn.shape[0] == pytest.approx(rows * 3.6 * 120, rel=0.05)
    assert drawn.shape[1] == pytest.approx(min(4, len(task.regions)) * 11 / 3 * 120, rel=0.05)


@pytest.mark.parametrize("task", DRAWN, **BY_NAME)
def test_curves_of_each_region(tmp_path, task):
    epochs = pd.DataFrame({"fold": 0, "epoch": range(5)})
    for place, key in enumerate(task.region_keys.values()):
        epochs[f"val_patch/dice_{key}"] = (place + 1) / 12
    draw_training(tmp_path / "f.png", TrainedEpochs("a", epochs, 3), task)
    drawn = pixels(tmp_path / "f.png")
    for style in region_styles(task.regions).values():
        assert share(drawn, style["color"]) > 1e-4


@cache
def models_of(name):
    """Means of one model, with intervals from many resamples: made once."""
    return summarize_models(scores(next(task for task in TASKS if task.name == name)).assign(model="mean"))


def in_terminal(table, width):
    stream = io.StringIO()
    Console(file=stream, width=width).print(table.to_rich())
    return stream.getvalue()


@pytest.mark.parametrize("task", TASKS, **BY_NAME)
def test_numbers_of_every_region_fit_into_a_terminal(task):
    """Words of a table with eight regions are folded in narrow terminals; a number is not cut into two."""
    summary = models_of(task.name).drop(columns="model")
    means = [f"{mean:.3f}" for mean in summary[summary["figure"] == "dice"]["mean"]]
    models = models_table(models_of(task.name), task)
    for width in (80, 100, 120):
        text = in_terminal(scores_table(summary), width)
        (line,) = [line for line in text.splitlines() if re.match(r"Dice +\d", line)]
        assert re.findall(r"(?<!\[)\b0\.\d+\b(?! *\]|,)", line) == means
        if width > 80 or task is not ORGANS:
            drawn = in_terminal(models, width).split()
            assert set(models.rows[0].cells[: 1 + len(task.regions)]) <= set(drawn)
            assert ("123.4560" in drawn) == (len(task.regions) <= 3)


@pytest.mark.parametrize("task", TASKS, **BY_NAME)
def test_maps_of_models_are_those_of_the_main_region(task):
    summary = models_of(task.name)
    table = models_table(summary, task)
    known = summary.set_index(["figure", "region"])["mean"]
    (row,) = table.rows
    assert row.cells[-2:] == [f"{known[key, task.main_region]:.3f}" for key in ("corr_failure_union", "auroc_band")]
    assert f"Maps are those of {task.main_region}," in table.note
    assert len(row.cells) == len(table.header) == 3 + 2 * len(task.regions)


@pytest.mark.parametrize("task", TASKS, **BY_NAME)
def test_the_work_list_ranks_by_the_main_region(task):
    cases, main = per_case(task), f"dice_{task.main_key}"
    rows = scores(task)
    chosen = work_list(rows, cases, 4, task)
    assert chosen["case"][0] == cases.loc[cases[main].idxmin(), "case"]
    of_main = rows[rows["region"] == task.main_region].set_index("case")["mean_uncertainty"]
    assert of_main.idxmax() in set(chosen["case"])
    assert "the most uncertain" in telling_cases(cases, rows, task)[of_main.idxmax()]
    table = work_table(chosen, 12, 4, {}, task)
    assert [name for name in table.header if name.startswith("Dice ")] == [f"Dice {region}" for region in task.regions]
    assert f"HD95 {task.main_region}, mm" in table.header
    assert f"expected Dice {task.main_region}" in table.header
    assert not any("nan" in cell for row in table.rows for cell in row.cells)


def test_runs_of_one_task_need_no_sentence():
    paper, other = paper_task(), built_in("ssa")
    assert task_sentences("a", paper, "b", other) == []
    assert list(common_dices([paper, other])) == ["dice_wt", "dice_tc", "dice_et", "dice_mean"]


def test_runs_of_different_tasks_show_what_both_have():
    paper = paper_task()
    (line,) = task_sentences("a", POST, "b", paper)
    assert line == "a and b have different tasks (gli-2024, gli-2023): only WT, TC and ET are compared, by name."
    assert list(common_dices([POST, paper])) == list(common_dices([paper, POST])) == ["dice_wt", "dice_tc", "dice_et"]
    lines = task_sentences("a", POST, "b", PROSTATE)
    assert "no region is compared" in lines[0]
    assert "of a are those of WT, of b those of prostate" in lines[1]
    assert common_dices([POST, PROSTATE]) == {}


def test_lesions_told_apart_in_different_ways_are_not_compared():
    paper, met = paper_task(), built_in("met")
    (line,) = task_sentences("a", paper, "b", met)
    assert line == (
        "a and b tell lesions apart by different rules "
        "(lesions of more than 50 mm³, 3 dilations; lesions of more than 2 mm³, 1 dilation): "
        "their lesion-wise figures are not compared."
    )
    table = scores(paper)
    kept = comparable_scores(table, paper, met).columns
    assert sorted(set(table.columns) - set(kept)) == ["lesionwise_dice", "num_fn"]
    assert comparable_scores(table, paper, built_in("ssa")) is table


def test_styles_of_eight_regions_differ():
    styles = [tuple(style.values()) for style in region_styles(map(str, range(8))).values()]
    assert len(set(styles)) == 8
    assert all(one["color"] != other["color"] for one, other in pairwise(region_styles(map(str, range(20))).values()))
