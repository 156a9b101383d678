"""The report in a real Chromium: opened from disk, without a network, with slices that move."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from support.evaluated_runs import evaluate, report, train, write_other, write_run
from uncseg.config.experiment import load_experiment, save_experiment
from uncseg.console import console
from uncseg.dataset.scan import scan_folder
from uncseg.files import write_text
from uncseg.layout import RunFolder
from uncseg.report.progress import draw_progress
from uncseg.report.run_figures import page_outputs
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tracking.manifest import update_manifest
from uncseg.tracking.spool import SpoolWriter


@pytest.fixture
def run(tmp_path):
    """The folder of a run as it is before its evaluation."""
    return write_run(tmp_path)


@pytest.fixture
def evaluated(run, tmp_path):
    """With outputs; the number of a case is the number of voxels that its tumour was shifted."""
    return evaluate(run, tmp_path / "cases")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """The page of an evaluated run, for tests that only read it; the cases are in ``cases`` beside ``runs``."""
    root = tmp_path_factory.mktemp("reported")
    run = evaluate(write_run(root), root / "cases")
    assert report(run.root) == 0
    return run.root / "report.html"


@pytest.fixture
def other(evaluated, tmp_path):
    """Another run on the same cases but for one, another of which is in another fold."""
    return write_other(tmp_path, ["BraTS-GLI-00000-000"], ["BraTS-GLI-00002-000"])


def test_the_page_needs_nothing_but_itself(evaluated, open_page):
    assert report(evaluated.root, "--cases", 2) == 0
    page = open_page(evaluated.root / "report.html")
    assert page.said == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    assert (evaluated.root / "report.html").stat().st_size < 15e6
    assert "small" in page.title()
    mean = pd.read_parquet(evaluated.tables / "per_case.parquet").groupby("fold")["dice_wt"].mean().mean()
    assert f"{mean:.4f}" in page.inner_text("#table1 + .wide")
    assert "exceeds the best floor" in page.inner_text("body")
    # the worst and the most uncertain case: both the one with the largest shift
    assert page.locator(".viewer h4").all_inner_texts() == ["BraTS-GLI-00003-000"]
    for name in ("table1", "table2", "work_list"):
        text = (evaluated.tables / f"{name}.tex").read_text()
        assert "\\begin{tabular}" in text
        assert text.isascii()
        assert (evaluated.tables / f"{name}.csv").is_file()
    assert "union mask" in (evaluated.tables / "table2.tex").read_text()


def test_slices_move_and_overlays_switch(page_file, open_page):
    page = open_page(page_file)
    canvas = page.locator(".viewer canvas").first
    worst = scan_folder(page_file.parents[2] / "cases", task=paper_task()).cases[3]
    tumour = sitk.GetArrayFromImage(sitk.ReadImage(str(worst.reference))) > 0
    inside = sitk.GetArrayFromImage(sitk.ReadImage(str(worst.images[3]))) != 0
    first = max(0, int(np.nonzero(inside)[0].min()) - 3)  # slices are counted from the cropped volume's
    opened = int(canvas.get_attribute("data-slice"))
    assert opened + first == int(tumour.sum((1, 2)).argmax())

    def picture():
        return canvas.evaluate("c => c.toDataURL()")

    before = picture()
    canvas.focus()
    page.keyboard.press("ArrowUp")
    assert int(canvas.get_attribute("data-slice")) == opened + 1
    canvas.dispatch_event("wheel", {"deltaY": -100})
    assert int(canvas.get_attribute("data-slice")) == opened
    assert picture() == before
    page.keyboard.press("3")
    assert picture() != before
    page.keyboard.press("3")
    assert picture() == before
    for _ in range(100):
        page.keyboard.press("PageDown")
    assert canvas.get_attribute("data-slice") == "0"


def test_the_page_is_as_wide_as_a_phone(page_file, open_page):
    page = open_page(page_file, width=375)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_a_run_that_is_not_evaluated_says_what_is_missing(run, open_page):
    assert report(run.root) == 0
    page = open_page(run.root / "report.html")
    assert "uncseg evaluate" in " ".join(page.locator(".missing").all_inner_texts())
    assert page.said == []


def test_the_papers_figures_are_quoted_as_such(page_file, open_page):
    page = open_page(page_file)
    quoted = page.locator("#table1 + .wide tr.quoted").all_inner_texts()
    assert [row.split()[1:] for row in quoted] == [
        ["with", "head", "quoted", "1248", "0.9163", "0.9162", "0.8734", "0.9020"],
        ["without", "head", "quoted", "1248", "0.9179", "0.9169", "0.8710", "0.9019"],
    ]
    assert page.locator("#table1 ~ .soft").first.inner_text().endswith("not recomputed here.")


def test_the_work_list_leads_to_the_slices(evaluated, open_page):
    assert report(evaluated.root, "--cases", 4) == 0
    page = open_page(evaluated.root / "report.html")
    rows = [row.split("\t") for row in page.locator("#work_list + .wide tbody tr").all_inner_texts()]
    per_case = pd.read_parquet(evaluated.tables / "per_case.parquet").set_index("case")
    assert [row[0] for row in rows] == ["BraTS-GLI-00003-000", "BraTS-GLI-00002-000"]  # worst and most uncertain
    for row in rows:
        assert row[2] == f"{per_case.loc[row[0], 'dice_wt']:.3f}"
    assert rows[1][-1] == "worst 2, most uncertain 2"
    page.locator("#work_list + .wide a").nth(1).click()
    target = page.url.rpartition("#")[2]
    assert page.locator(f"#{target} h4").inner_text() == "BraTS-GLI-00002-000"


def test_figure_1_shows_the_telling_cases_and_no_others(evaluated, open_page):
    stale = evaluated.figures / "cases" / "figure1_BraTS-GLI-99999-000.png"
    with page_outputs(evaluated).noting(among=[f"figures/cases/{stale.name}"]):
        write_text(stale, "of an earlier evaluation")
    assert report(evaluated.root) == 0
    drawn = [path.stem for path in sorted(stale.parent.iterdir())]
    # the best is shifted by 0, the median of four by 1, the worst and most uncertain by 3
    assert drawn == [f"figure1_BraTS-GLI-0000{number}-000" for number in (0, 1, 3)]
    captions = open_page(evaluated.root / "report.html").locator("figcaption").all_inner_texts()
    assert any("BraTS-GLI-00003-000: lowest mean Dice, the most uncertain" in caption for caption in captions)


def test_runs_side_by_side(evaluated, other, open_page):
    update_manifest(evaluated.manifest, digests={"dataset": "a" * 64})
    update_manifest(other.manifest, digests={"dataset": "b" * 64})
    train(evaluated, 0, 3)
    assert report(evaluated.root, other.root) == 0
    page = open_page(evaluated.root / "report_small_other.html")
    assert page.said == []
    assert [url for url in page.asked if not url.startswith(("file:", "data:"))] == []
    settings = page.locator("#compared-settings + .wide tbody tr").all_inner_texts()
    assert [row.split("\t") for row in settings] == [
        ["loss.cancer_mask", "reference", "union"],
        ["digest of dataset", "a" * 12, "b" * 12],
    ]
    text = page.inner_text("body")
    assert "Only in small (1), and left out of the paired differences: BraTS-GLI-00000-000." in text
    assert "In another fold of other than of small (1): BraTS-GLI-00002-000." in text
    a, b = (pd.read_parquet(run.tables / "per_case.parquet").set_index("case")["dice_wt"] for run in (evaluated, other))
    difference = (b - a).dropna().mean()
    assert f"{difference:+.4f}".replace("-", "−") in page.inner_text("#compared-differences_other + .wide tr.part + tr")
    means = pd.read_csv(evaluated.tables / "comparison_small_other_dice.csv").set_index("run")
    folds = pd.read_parquet(other.tables / "per_case.parquet").set_index("case")["fold"]
    assert means.loc["other", "dice_wt"] == pytest.approx(b.groupby(folds).mean().mean())
    assert (evaluated.tables / "comparison_small_other_uncertainty.tex").read_text().isascii()
    # each run's own sections, and slices of both
    for prefix in ("run1-", "run2-"):
        assert page.locator(f"#{prefix}table1").count() == 1
    canvases = page.locator("#run2-case-1 canvas")
    canvases.focus()
    opened = int(canvases.get_attribute("data-slice"))
    page.keyboard.press("ArrowUp")
    assert int(canvases.get_attribute("data-slice")) == opened + 1
    assert len(page.locator("[id]").evaluate_all("all => all.map(one => one.id)")) == page.evaluate(
        "new Set(Array.from(document.querySelectorAll('[id]')).map(one => one.id)).size"
    )


def test_a_comparison_is_read_on_a_phone(evaluated, other, open_page):
    assert report(evaluated.root, other.root) == 0
    page = open_page(evaluated.root / "report_small_other.html", width=375)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_a_comparison_with_a_run_that_is_not_evaluated(evaluated, tmp_path, open_page):
    file = tmp_path / "runs" / "young" / "experiment.yaml"
    file.parent.mkdir()
    save_experiment(load_experiment(tmp_path / "small.yaml", ["name=young"]), file)
    assert report(evaluated.root, file.parent) == 0
    page = open_page(evaluated.root / "report_small_young.html")
    assert "young is not evaluated yet" in page.inner_text("body")
    assert "none differs" in page.inner_text("body")


def test_runs_with_long_names_are_told_apart(run, tmp_path):
    left_out = [f"BraTS-GLI-0000{number}-000" for number in (2, 3)]  # fewer pictures
    first, second = evaluate(run, tmp_path / "cases", leave_out=left_out), write_other(tmp_path, left_out)
    runs, long = [], ["a" * 85, "b" * 85, "c" * 85]
    for root, name in zip((first.root, second.root, first.root), long, strict=True):
        runs.append(RunFolder(shutil.copytree(root, tmp_path / "runs" / name)))
    assert report(*(run.root for run in runs), "--cases", 0) == 0
    assert report(runs[0].root, runs[2].root, "--cases", 0) == 0
    pages = list(runs[0].root.glob("report_*.html"))
    assert len(pages) == 2  # told apart, where the beginnings are alike
    assert all(page.name.startswith("report_" + "a" * 85) for page in pages)
    csv = list(runs[0].tables.glob("comparison_*.csv"))
    assert len({file.stem.rpartition("_differences_")[2] for file in csv if "_differences_" in file.stem}) == 2
    assert max(len(file.name) for folder in (runs[0].root, runs[0].tables) for file in folder.iterdir()) < 240


def test_a_folder_of_several_runs_is_refused_with_one_of_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(console, "width", 400)
    for trial in ("b", "a"):
        (tmp_path / "trials" / trial).mkdir(parents=True)
        (tmp_path / "trials" / trial / "experiment.yaml").touch()
    assert report(tmp_path) == 2
    said = capsys.readouterr().err
    assert "a folder of 2 runs" in said
    assert f"give one of them, for example {tmp_path}/trials/a" in said
    assert "experiment.yaml" not in said


def test_a_run_is_not_compared_with_itself(evaluated, capsys):
    assert report(evaluated.root, evaluated.root / ".") == 2
    assert "give each run once" in capsys.readouterr().err


def test_folds_that_are_not_finished_are_named(run, open_page):
    train(run, 0, 4, finish=True)
    train(run, 1, 5)
    SpoolWriter(run.spool, 2, first_epoch=0).state("failed", "out of memory")
    assert report(run.root) == 0
    page = open_page(run.root / "report.html")
    lines = page.locator(".missing").all_inner_texts()
    assert lines[:3] == [
        "Fold 1: 5 of 500 epochs trained, 4 of them in a checkpoint; running or interrupted.",
        "Fold 2: 0 of 500 epochs trained; failed: out of memory.",
        "Folds 3, 4: 0 of 500 epochs trained; not started.",
    ]
    assert "Figure 2" in page.inner_text("body")
    assert page.said == []


def test_pictures_of_the_training_are_shown_first_and_last(run, open_page):
    labels = np.zeros((4, 8, 8), np.uint8)
    labels[:, 2:6, 2:6] = 3
    zeros = np.zeros(labels.shape)
    for fold in (1, 2):
        for epoch in range(0, 40, 4):
            patch = SimpleNamespace(
                image=zeros, reference=labels, prediction=labels, error=zeros, variance=zeros, uncertainty=zeros
            )
            draw_progress(run.progress / f"fold_{fold}_epoch_{epoch:04d}.png", patch, "a patch", task=paper_task())
    assert report(run.root) == 0
    shown = open_page(run.root / "report.html").locator(".progress img")
    names = shown.evaluate_all("all => all.map(one => one.alt)")
    assert (names[0], names[-1], len(names)) == ("epoch 1", "epoch 37", 6)


def test_images_that_have_moved(evaluated, tmp_path, open_page):
    (tmp_path / "cases").rename(tmp_path / "elsewhere")
    assert report(evaluated.root) == 0
    missing = open_page(evaluated.root / "report.html").locator(".missing").all_inner_texts()
    assert "no slices to look at" in missing[-1]


def test_an_unknown_run(tmp_path, capsys):
    assert report(tmp_path) == 2
    assert "no experiment.yaml" in capsys.readouterr().err
