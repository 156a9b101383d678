"""The report in a real Chromium: opened from disk, without a network, with slices that move."""

import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from playwright.sync_api import sync_playwright

from uncseg.cli import main
from uncseg.config import load_experiment, save_experiment
from uncseg.dataset.brats import find_cases, read_reference, write_image
from uncseg.dataset.phantom import write_phantoms
from uncseg.evaluation.case_scores import score_case
from uncseg.evaluation.tables import table1, table2, write_table
from uncseg.layout import CaseFiles, RunFolder
from uncseg.report.score_tables import write_scores

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def run(tmp_path):
    """The folder of a run as it is before its evaluation."""
    run = RunFolder(tmp_path / "runs" / "small")
    run.root.mkdir(parents=True)
    write_phantoms(tmp_path / "cases", cases=4, size=28, seed=0)
    file = tmp_path / "small.yaml"
    file.write_text(
        f"name: small\ndataset: {{path: {tmp_path}/cases, name: Small}}\nstorage: {{path: {tmp_path}/runs}}\n"
    )
    save_experiment(load_experiment(file), run.experiment)
    return run


@pytest.fixture
def evaluated(run, tmp_path):
    """With the outputs of a model that shifts every tumour by the case's number of voxels."""
    rows, per_case = [], []
    for number, case in enumerate(find_cases(tmp_path / "cases")):
        labels, image = read_reference(case)
        files = CaseFiles(run.out_of_fold, case.case_id)
        shifted = np.roll(labels, number, axis=2)
        u = np.where(shifted > 0, 0.2 * number + 0.05, 0).astype(np.float32)
        write_image(files.segmentation, shifted, image)
        write_image(files.map("uncertainty"), u, image)
        write_image(files.map("error"), (labels != shifted).astype(np.float32), image)
        keys = {"case": case.case_id, "patient": case.patient, "fold": number % 2}
        scores = score_case(labels, shifted, image.GetSpacing()[::-1], dict.fromkeys(("WT", "TC", "ET"), u))
        rows += [keys | row for row in scores]
        dices = {f"dice_{row['region'].lower()}": row["dice"] for row in scores}
        corr = {"uncertainty/union/corr_failure": 0.5 + number / 10, "one_minus_max/union/corr_failure": 0.1}
        corr |= {name.replace("corr", "rmsd"): 0.2 for name in corr}
        per_case.append(keys | dices | {"dice_mean": np.mean(list(dices.values()))} | corr)
    frame = pd.DataFrame(per_case)
    write_table(frame, run.tables, "per_case")
    write_table(table1(frame), run.tables, "table1")
    write_table(table2(frame, pd.DataFrame({"fold": [], "epoch": []}), 3), run.tables, "table2")
    write_scores(pd.DataFrame(rows), run.tables, "scores")
    return run


def report(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(["report", *map(str, arguments)])
    return ended.value.code or 0


@pytest.fixture
def open_page():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def open_it(file, width=1200):
            page = browser.new_page(viewport={"width": width, "height": 800})
            page.said, page.asked = [], []
            page.on("console", lambda message: page.said.append(message.text))
            page.on("pageerror", lambda error: page.said.append(str(error)))
            page.on("request", lambda request: page.asked.append(request.url))
            page.goto(file.as_uri())
            page.wait_for_load_state("load")
            return page

        yield open_it
        browser.close()


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
    assert page.locator(".viewer strong").all_inner_texts() == ["BraTS-GLI-00003-000"]
    assert "\\begin{tabular}" in (evaluated.tables / "table1.tex").read_text()


def test_slices_move_and_overlays_switch(evaluated, open_page, tmp_path):
    assert report(evaluated.root) == 0
    page = open_page(evaluated.root / "report.html")
    canvas = page.locator(".viewer canvas").first
    worst = find_cases(tmp_path / "cases")[3]
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


def test_it_is_read_on_a_phone(evaluated, open_page):
    assert report(evaluated.root) == 0
    page = open_page(evaluated.root / "report.html", width=375)
    assert page.evaluate("document.documentElement.scrollWidth") <= 375


def test_a_run_that_is_not_evaluated_says_what_is_missing(run, open_page):
    assert report(run.root) == 0
    page = open_page(run.root / "report.html")
    assert "uncseg evaluate" in page.inner_text(".missing")
    assert page.said == []


def test_images_that_have_moved(evaluated, tmp_path, open_page):
    (tmp_path / "cases").rename(tmp_path / "elsewhere")
    assert report(evaluated.root) == 0
    assert "no slices to look at" in open_page(evaluated.root / "report.html").inner_text(".missing")


def test_an_unknown_run(tmp_path, capsys):
    assert report(tmp_path) == 2
    assert "no experiment.yaml" in capsys.readouterr().out
