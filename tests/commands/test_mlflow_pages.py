"""What a researcher sees in MLflow: its pages in a real Chromium, for runs that the commands have made.

Screenshots go to build/screenshots.
"""

import json
import re
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

import pandas as pd
import psutil
import pytest
from mlflow import MlflowClient
from playwright.sync_api import expect, sync_playwright

from support.commands import run_uncseg, start_uncseg
from support.mlflow_contents import everything
from support.servers import free_port, mlflow_server, postgresql, postgresql_binaries
from support.small_study import DICE, run_study
from uncseg.tracking.destination import open_store

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
PATIENCE_MS = 60_000
EXPANDER = "button[data-component-id$='runnamecellrenderer.tsx_46']"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of the runs "paper", "union" and the sweep "search"."""
    return run_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def mlflow(runs, tmp_path_factory):
    """(address, client, experiment id, {run name: run id}) of a server that shows them."""
    with mlflow_server(tmp_path_factory.mktemp("server"), runs / "mlflow.db") as server:
        client = MlflowClient(server.uri)
        experiment = client.get_experiment_by_name("uncseg").experiment_id
        ids = {run.info.run_name: run.info.run_id for run in client.search_runs([experiment])}
        yield server.uri, client, experiment, ids


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser, mlflow, request):
    """A new page; what it shows at the end is kept as a picture."""
    page = browser.new_page(viewport={"width": 1600, "height": 1200})
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield page
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    for number, shown in enumerate(page.context.pages):
        shown.screenshot(path=SCREENSHOTS / f"{request.node.name}_{number}.png")
    page.close()


def link(page, mlflow, name):
    """Return the link to a run's page."""
    _, _, experiment, ids = mlflow
    return page.locator(f"a[href$='/experiments/{experiment}/runs/{ids[name]}']")


def unfold(page, mlflow, name):
    """Show a run's children in the list."""
    page.locator("[role=row]", has=link(page, mlflow, name)).locator(EXPANDER).click()


def experiment_page(uri):
    """Return the address of the list of runs, without the server's part."""
    experiment = MlflowClient(uri).get_experiment_by_name("uncseg").experiment_id
    return f"/#/experiments/{experiment}/runs"


def compare(mlflow, *names):
    address, _, experiment, ids = mlflow
    chosen = quote(json.dumps([ids[name] for name in names]))
    return f"{address}/#/compare-runs?runs={chosen}&experiments={quote(json.dumps([experiment]))}"


def test_the_list_of_runs_shows_folds_below_their_run(page, mlflow):
    address, _, experiment, _ = mlflow
    page.goto(f"{address}/#/experiments/{experiment}/runs")
    for name in ("paper", "union", "search"):
        expect(link(page, mlflow, name)).to_have_text(name)
    expect(link(page, mlflow, "paper fold 0")).to_have_count(0)  # folded below their parent
    unfold(page, mlflow, "paper")
    for fold in range(2):
        expect(link(page, mlflow, f"paper fold {fold}")).to_have_text(f"paper fold {fold}")
    said = page.inner_text("body")
    assert "uncseg cross-validate" in said
    assert "uncseg sweep" in said
    assert re.search(r"Small \([0-9a-f]{12}\)", said)  # the dataset and its digest


def test_two_runs_side_by_side_differ_in_what_was_changed(page, mlflow, runs):
    page.goto(compare(mlflow, "paper", "union"))
    switches = page.get_by_text("Show diff only")
    expect(switches.first).to_be_visible()
    switches.first.click()
    said = page.inner_text("body")
    params = said[said.index("\nParameters\nShow diff only") :].partition("\nMetrics\n")[0]
    assert re.findall(r"^([a-z_]+\.[\w.]+)\t(\S+)\t(\S+)$", params, re.M) == [
        ("loss.cancer_mask", "reference", "union"),
        ("loss.unc_weight", "0.4", "0.2"),
    ]
    first = pd.read_parquet(runs / "paper/tables/table1.parquet").set_index("fold")
    for name, row in (("final/dice_wt", "mean"), ("final/dice_wt_std", "sd")):
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
        assert f"{round(float(first.loc[row, 'dice_wt']), 3):g}" in page.inner_text("body")


def test_charts_are_grouped_by_metric(page, mlflow):
    address, _, experiment, _ = mlflow
    page.goto(f"{address}/#/experiments/{experiment}/runs?compareRunsMode=CHART&workflowType=machine_learning")
    unfold(page, mlflow, "paper")
    expect(link(page, mlflow, "paper fold 1")).to_be_visible()
    said = page.inner_text("body")
    groups = set(re.findall(r"^(?:final|system|train|uncertainty|val_patch)\S*(?=\n\(\d+\)$)", said, re.M))
    names = {"final", "train", "val_patch", "uncertainty/memory"}
    names |= {f"uncertainty/{protocol}/{kind}_ema" for protocol in ("reference", "union") for kind in ("corr", "rmsd")}
    results = {f"final/{p}/{kind}_failure" for p in ("reference", "union") for kind in ("corr", "rmsd")}
    assert groups == names | {f"{name}/std" for name in names - {"final"}} | results
    page.get_by_placeholder("Search metric charts").fill("train/loss$")
    for name in ("paper fold 0", "paper fold 1", "paper", "union"):
        expect(page.get_by_text(f"{name} (train/loss)", exact=True)).to_be_visible()


def test_pictures_of_the_training_are_shown(page, mlflow):
    address, _, experiment, ids = mlflow
    page.goto(f"{address}/#/experiments/{experiment}/runs/{ids['paper fold 0']}/model-metrics")
    page.get_by_placeholder("Search metric charts").fill("one case over training")
    picture = page.locator("img[src*='one']").or_(page.locator(".rc-image img, img[src^='blob:']")).first
    expect(picture).to_be_visible()
    expect(page.get_by_text("No image logged at this step")).to_have_count(0)


def test_the_description_links_to_the_tables(page, mlflow, runs):
    address, _, experiment, ids = mlflow
    page.goto(f"{address}/#/experiments/{experiment}/runs/{ids['paper']}")
    first = pd.read_parquet(runs / "paper/tables/table1.parquet").set_index("fold")
    expect(
        page.get_by_text(f"WT {first.loc['mean', 'dice_wt']:.3f} ± {first.loc['sd', 'dice_wt']:.3f}")
    ).to_be_visible()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Table 1").click()
    expect(opened.value.get_by_text("paper (BraTS 2023, anchor)").first).to_be_visible()
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="report", exact=True).click()
    inside = opened.value.frame_locator("iframe")
    expect(inside.get_by_text("Table 1. Dice out of fold").first).to_be_visible()


def test_a_sweep_shows_its_best_trial_and_compares_all(page, mlflow, runs):
    address, _, experiment, ids = mlflow
    page.goto(f"{address}/#/experiments/{experiment}/runs/{ids['search']}")
    best = pd.read_parquet(runs / "search/tables/trials.parquet").iloc[0]
    expect(page.get_by_text("Best of 4 trials")).to_be_visible()
    said = page.inner_text("body")
    assert f"{best['trial']}: {DICE} {best[DICE]:.4f}" in said
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="compare the trials").click()
    compared = opened.value
    expect(compared.get_by_text("Comparing 4 Runs")).to_be_visible()
    axes = compared.locator(".axis-title, .axis-heading text")
    for field, values in (("loss.unc_weight", ("0.10000", "0.40000")), ("loss.corr_weight", ("0.20000", "0.80000"))):
        expect(axes.get_by_text(field).or_(compared.get_by_text(field, exact=True)).first).to_be_visible()
        for value in values:
            expect(compared.get_by_text(value, exact=True).first).to_be_visible()


def test_everything_comes_back_after_the_database_is_lost(runs, tmp_path):
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    uri = f"sqlite:///{copy}/mlflow.db"
    for name in ("paper", "union", "search"):
        run_uncseg("sync", copy / name, "--tracking-uri", uri, folder=tmp_path)
    before = everything(open_store(uri, "uncseg"))
    assert {"paper", "paper fold 0", "union fold 1", "search"} <= set(before)
    assert before["paper"]["metrics"]["final/dice_wt"]
    (copy / "mlflow.db").unlink()
    shutil.rmtree(copy / "mlflow_artifacts")
    for name in ("search", "paper", "union"):
        run_uncseg("sync", copy / name, "--tracking-uri", f"sqlite:///{copy}/again.db", folder=tmp_path)
    assert everything(open_store(f"sqlite:///{copy}/again.db", "uncseg")) == before


@pytest.mark.skipif(postgresql_binaries() is None, reason="Debian's package postgresql is not installed")
def test_a_server_on_postgresql_with_an_artifact_store_holds_the_same(runs, page, tmp_path):
    copy = tmp_path / "runs"
    shutil.copytree(runs, copy)
    with postgresql(tmp_path / "postgresql") as database, mlflow_server(tmp_path, database) as server:
        uri = server.uri
        for name in ("paper", "union", "search"):
            run_uncseg("sync", copy / name, "--tracking-uri", uri, folder=tmp_path)
        page.goto(uri + experiment_page(uri))
        expect(page.get_by_text("paper", exact=True).first).to_be_visible()
        there = everything(open_store(uri, "uncseg"))
        run_uncseg("sync", copy / "paper", folder=tmp_path)
        assert everything(open_store(uri, "uncseg")) == there
    assert list((tmp_path / "artifacts").rglob("report.html"))
    here = everything(open_store(f"sqlite:///{runs}/mlflow.db", "uncseg"))
    assert there == here


def test_ui_shows_a_run_on_the_loopback_address(runs, page, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody there, and not to be asked for this machine's own
    ui = start_uncseg("ui", runs / "paper", "--no-browser", "--port", free_port(), log=tmp_path / "ui.log")
    try:
        ui.wait_until(lambda: "Ctrl-C ends it" in ui.output)
        (address,) = re.findall(r"http://\S+", ui.output)
        page.goto(address)
        expect(
            page.get_by_role("heading", name="paper").or_(page.get_by_text("paper", exact=True)).first
        ).to_be_visible()
        family = [psutil.Process(ui.pid), *psutil.Process(ui.pid).children(recursive=True)]
        listening = {c.laddr for one in family for c in one.net_connections() if c.status == psutil.CONN_LISTEN}
        assert {address.ip for address in listening} == {"127.0.0.1"}
        ui.process.send_signal(signal.SIGINT)
        ui.require(130)
        assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)
    finally:
        ui.kill_group()
