"""The report in a real Chromium: opened from disk, without a network, with slices that move."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import yaml
from playwright.sync_api import sync_playwright

from support.own_tasks import LIVER, PROSTATE
from uncseg.cli import main
from uncseg.config.experiment import load_experiment, save_experiment
from uncseg.console import console
from uncseg.dataset.case_volumes import read_reference
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.scan import scan_folder
from uncseg.dataset.volumes import write_volume
from uncseg.evaluation.case_scores import score_case
from uncseg.evaluation.tables import table1, table2
from uncseg.layout import CaseFiles, RunFolder
from uncseg.report.progress import draw_progress
from uncseg.report.score_tables import write_scores
from uncseg.table_files import write_table
from uncseg.tasks.built_in_tasks import built_in, paper_task
from uncseg.tracking.manifest import update_manifest
from uncseg.tracking.spool import SpoolWriter

PAPER, POST = paper_task(), built_in("gli-2024")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def run(tmp_path):
    """The folder of a run as it is before its evaluation."""
    return write_run(tmp_path)


def write_run(root, task=PAPER, name="small"):
    run = RunFolder(root / "runs" / name)
    run.root.mkdir(parents=True)
    cases = root / f"cases_of_{task.name}" if task != PAPER else root / "cases"
    write_phantoms(cases, cases=4, size=28, seed=0, task=task)
    dataset = {"path": str(cases), "name": "Small", "task": task.model_dump(mode="json")}
    file = root / f"{name}.yaml"
    content = {"name": name, "dataset": dataset, "storage": {"path": f"{root}/runs"}}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    save_experiment(load_experiment(file), run.experiment)
    return run


def evaluate(run, folder, shift=lambda number: number, leave_out=(), moved=(), task=PAPER):
    """The outputs of a model that shifts every tumour by some voxels."""
    rows, per_case = [], []
    for number, case in enumerate(scan_folder(folder, task=task).cases):
        if case.case_id in leave_out:
            continue
        labels, image = read_reference(case, task)
        files = CaseFiles(run.out_of_fold, case.case_id)
        shifted = np.roll(labels, shift(number), axis=2)
        u = np.where(shifted > 0, 0.2 * number + 0.05, 0).astype(np.float32)
        write_volume(files.segmentation, shifted, image)
        write_volume(files.map("uncertainty"), u, image)
        write_volume(files.map("error"), (labels != shifted).astype(np.float32), image)
        write_volume(
            files.map(f"{task.main_key}_probability"), np.where(shifted > 0, 0.9, 0.1).astype(np.float32), image
        )
        keys = {"case": case.case_id, "patient": case.patient, "fold": (number + (case.case_id in moved)) % 2}
        scores = score_case(labels, shifted, image.spacing_dhw_mm, task, dict.fromkeys(task.regions, u))
        rows += [keys | row for row in scores]
        dices = {f"dice_{row['region'].lower()}": row["dice"] for row in scores}
        corr = {"uncertainty/union/corr_failure": 0.5 + number / 10, "one_minus_max/union/corr_failure": 0.1}
        corr |= {name.replace("corr", "rmsd"): 0.2 for name in corr}
        per_case.append(
            keys | dices | {"dice_mean": np.mean(list(dices.values())), f"expected_dice_{task.main_key}": 0.5} | corr
        )
    frame = pd.DataFrame(per_case)
    write_table(frame, run.tables, "per_case")
    write_table(table1(frame, task), run.tables, "table1")
    write_table(table2(frame, pd.DataFrame({"fold": [], "epoch": []}), 3, task), run.tables, "table2")
    write_scores(pd.DataFrame(rows), run.tables, "scores")
    return run


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


def write_other(root, leave_out, moved=()):
    run = RunFolder(root / "runs" / "other")
    run.root.mkdir(parents=True)
    sets = ["name=other", "loss.cancer_mask=union", "training.loader_processes=3", "resources.gpus_per_fold=2"]
    save_experiment(load_experiment(root / "small.yaml", sets), run.experiment)
    return evaluate(run, root / "cases", lambda _number: 1, leave_out, moved)


def train(run, fold, epochs, finish=False):
    """Write the records of a fold."""
    writer = SpoolWriter(run.spool, fold, first_epoch=0)
    for epoch in range(epochs):
        writer.epoch(epoch, {"train/loss": 1 - epoch / 10, "val_patch/dice_mean": epoch / 10})
    writer.checkpoint(epochs - 2)
    if finish:
        writer.state("finished")


def report(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["report", *map(str, arguments)])
    return ended.value.code or 0


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    """A function that opens a file; ``said`` are the page's messages, ``asked`` the addresses that it asked for."""
    pages = []

    def open_it(file, width=1200):
        page = browser.new_page(viewport={"width": width, "height": 800})
        pages.append(page)
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(file.as_uri())
        page.wait_for_load_state("load")
        return page

    yield open_it
    for page in pages:
        page.close()


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
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"of an earlier evaluation")
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
    said = capsys.readouterr().out
    assert "a folder of 2 runs" in said
    assert f"give one of them, for example {tmp_path}/trials/a" in said
    assert "experiment.yaml" not in said


def test_a_run_is_not_compared_with_itself(evaluated, capsys):
    assert report(evaluated.root, evaluated.root / ".") == 2
    assert "give each run once" in capsys.readouterr().out


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
    assert "no experiment.yaml" in capsys.readouterr().out


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
    assert "tell lesions apart by different rules (3 dilations, more than 50 mm³; 0 dilations" in said
    table = pd.read_parquet(first.tables / "difference_from_organ.parquet")
    assert {"dice", "hd95_mm", "ece"} <= set(table["figure"])
    assert not table["figure"].str.startswith(("lesionwise", "num_")).any()
    prostate = evaluate(write_run(tmp_path, PROSTATE, "p"), tmp_path / "cases_of_prostate", task=PROSTATE)
    with console.capture() as captured, pytest.raises(SystemExit) as ended:
        main(["evaluate", str(first.root), str(prostate.root)])
    assert ended.value.code == 2
    assert "no case in both" in captured.get()
