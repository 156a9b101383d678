"""Results in MLflow, and runs whose MLflow was lost, was moved, or is down."""

import json
import logging
import math
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest

from support.written_runs import TAGS, entries, rows, save_final_checkpoint, status, train
from uncseg.errors import ProblemsFound
from uncseg.evaluation.failure_table import table3
from uncseg.evaluation.tables import table1, table2
from uncseg.table_files import write_table
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tracking.destination import open_store
from uncseg.tracking.record import MlflowRecord
from uncseg.tracking.spool import epoch_table
from uncseg.tracking.store import Store
from uncseg.tracking.syncer import sync_run

DICE = [[0.8, 0.9], [0.7, 0.5]]  # two cases per fold: means 0.85 and 0.6


def add_results(run):
    rows = []
    for fold, dices in enumerate(DICE):
        for number, dice in enumerate(dices):
            row = {"case": f"{fold}{number}", "patient": f"{fold}{number}", "fold": fold}
            row |= {f"dice_{name}": dice for name in ("wt", "tc", "et", "mean")}
            for protocol in ("reference", "union"):
                for name, corr in (("uncertainty", 0.2), ("min_p", 0.3), ("constant", 0)):
                    row |= {f"{name}/{protocol}/corr_failure": corr + fold / 10}
                    row |= {f"{name}/{protocol}/rmsd_failure": 0.1 if number else math.nan}
                    row |= {f"{name}/union/{kind}_failure": corr + fold / 10 for kind in ("auprc", "brier", "ece")}
            rows.append(row)
    per_case = pd.DataFrame(rows)
    write_table(per_case, run.tables, "per_case")
    write_table(table1(per_case, paper_task()), run.tables, "table1")
    write_table(table2(per_case, epoch_table(run.spool), 3, paper_task()), run.tables, "table2")
    write_table(table3(per_case), run.tables, "table3")
    run.figures.mkdir()
    (run.figures / "overlay.png").write_bytes(b"\x89PNG")
    (run.model).mkdir(exist_ok=True)
    (run.model / "plans.json").write_text("{}")
    for fold in (0, 1):
        save_final_checkpoint(run, fold)


def artifacts(store, run_id, folder=None):
    return sorted(item.path for item in store.client.list_artifacts(run_id, folder))


def check_results(store, run):
    parent, folds = entries(run)
    assert artifacts(store, parent.run_id) == ["experiment.yaml", "figures", "tables"]
    names = ("per_case", "table1", "table2", "table3")
    files = [f"tables/{name}.{kind}" for name in names for kind in ("csv", "parquet")]
    assert artifacts(store, parent.run_id, "tables") == files
    assert artifacts(store, parent.run_id, "figures") == ["figures/overlay.png"]
    final = {k: v for k, v in store.client.get_run(parent.run_id).data.metrics.items() if k.startswith("final/")}
    assert final["final/dice_wt"] == pytest.approx((0.85 + 0.6) / 2)
    assert final["final/dice_wt_std"] == pytest.approx((0.85 - 0.6) / math.sqrt(2))  # of a sample of two
    assert final["final/union/corr_failure/uncertainty"] == pytest.approx(0.25)
    assert final["final/reference/rmsd_failure/constant"] == pytest.approx(0.1)
    assert "final/union/corr_failure/constant" not in final
    assert rows(store, parent.run_id, "final/dice_wt") == [(0, final["final/dice_wt"])]
    for fold, dice in enumerate((0.85, 0.6)):
        assert rows(store, folds[fold].run_id, "final/dice_wt") == [(0, pytest.approx(dice))]
    first, second, third = store.client.get_run(parent.run_id).data.tags["mlflow.note.content"].splitlines()
    assert "WT 0.725 ± 0.177" in first
    assert "2 folds, 4 cases" in first
    assert "AUPRC of failures" in second
    assert "uncertainty 0.250; best floor, min_p 0.350" in second  # four patients have no interval
    address = f"#/experiments/{store.experiment_id}/runs/{parent.run_id}/artifacts/tables/table1.csv"
    assert f"[Table 1]({address}?workflowType=machine_learning)" in third
    for fold, entry in folds.items():
        assert artifacts(store, entry.run_id) == ["epochs.csv", "epochs.parquet"]
        table = pd.read_parquet(store.client.download_artifacts(entry.run_id, "epochs.parquet"))
        assert table["loss"].tolist() == [fold + epoch / 10 for epoch in range(3)]
        assert table["fold"].tolist() == [fold] * 3
        query = f"source_run_id = '{entry.run_id}'"
        (model,) = store.client.search_logged_models([store.experiment_id], query)
        assert model.model_id == entry.model_id
        loss = next(metric for metric in model.metrics if metric.key == "loss")
        assert (loss.value, loss.step) == (fold + 0.2, 2)
        assert len(rows(store, entry.run_id, "loss")) == 3  # the model's metric is the epoch's, not a further row


def test_results_are_logged_once_and_again_when_they_change(run, store, make_syncer):
    for fold in (0, 1):
        train(run, fold, 3)
    add_results(run)
    for _ in range(2):
        syncer = make_syncer()
        assert syncer.finish()
        assert syncer.stop() == 0
        check_results(store, run)
    (run.tables / "per_case.csv").write_text("dice\n0.95\n")
    assert make_syncer().finish()
    parent, _ = entries(run)
    path = store.client.download_artifacts(parent.run_id, "tables/per_case.csv")
    assert Path(path).read_text() == "dice\n0.95\n"
    assert status(store, parent) == "FINISHED"


def test_the_losses_of_a_failure_network_are_a_curve_of_its_fold(run, store, make_syncer):
    for fold in (0, 1):
        train(run, fold, 3)
    add_results(run)
    losses = [1 - step / 1000 for step in range(250)]
    (run.fold(0) / "failures.json").write_text(json.dumps({"losses": losses}))
    (run.fold(1) / "failures.json").write_text('{"losses": ["none')  # cut off
    for _ in range(2):
        assert make_syncer().finish()
        parent, folds = entries(run)
        found = rows(store, folds[0].run_id, "failures/loss")
        assert len(found) == 100, "once each"
        assert found[0] == (2, pytest.approx((1 + 0.999) / 2)), "steps 1 and 2"
        assert found[-1] == (250, pytest.approx(losses[248] / 2 + losses[249] / 2))
        steps = [0, *(step for step, _ in found)]
        assert sum((b - a) * v for a, b, (_, v) in zip(steps, steps[1:], found, strict=False)) == pytest.approx(
            sum(losses)
        )
        assert rows(store, folds[1].run_id, "failures/loss") == []
        assert rows(store, parent.run_id, "failures/loss") == []
        os.utime(run.fold(0) / "failures.json", (1, 1))  # as a copy has another time


def test_a_final_figure_has_one_row_per_value_whatever_is_killed(run, store, make_syncer, monkeypatch):
    for fold in (0, 1):
        train(run, fold, 3)
    add_results(run)

    at_the_kill = []

    def breaks_off(*arguments):
        """MLflow has stored the rows, and the command is killed before it hears of that."""
        monkeypatch.undo()
        Store.log_metrics(*arguments)
        at_the_kill.append(run.manifest.read_bytes())
        raise OSError("connection refused")

    assert make_syncer().push_once()
    monkeypatch.setattr(Store, "log_metrics", breaks_off)
    assert not make_syncer().finish()
    run.manifest.write_bytes(*at_the_kill)
    assert make_syncer().finish()
    check_results(store, run)
    per_case = pd.read_parquet(run.tables / "per_case.parquet")
    per_case.loc[per_case["fold"] == 1, "dice_wt"] += 0.1
    write_table(per_case, run.tables, "per_case")
    assert make_syncer().finish()
    parent, folds = entries(run)
    assert rows(store, folds[0].run_id, "final/dice_wt") == [(0, pytest.approx(0.85))]
    assert rows(store, folds[1].run_id, "final/dice_wt") == [(0, pytest.approx(0.6)), (0, pytest.approx(0.7))]
    assert store.client.get_run(folds[1].run_id).data.metrics["final/dice_wt"] == pytest.approx(0.7)
    assert rows(store, parent.run_id, "final/union/corr_failure/uncertainty") == [(0, pytest.approx(0.25))]


def test_an_empty_database_is_filled_again_from_the_files(run, store, make_syncer, tmp_path):
    for fold in (0, 1):
        train(run, fold, 3)
    add_results(run)
    syncer = make_syncer()
    assert syncer.finish()
    assert syncer.stop() == 0
    old_parent, _ = entries(run)
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    assert sync_run(run.root, uri) == 0
    parent, folds = entries(run)
    fresh = open_store(uri, "uncseg")
    assert parent.run_id != old_parent.run_id
    check_results(fresh, run)
    assert rows(fresh, parent.run_id, "loss") == rows(store, old_parent.run_id, "loss")
    old, new = (s.client.get_run(i.run_id) for s, i in ((store, old_parent), (fresh, parent)))
    assert new.data.params == old.data.params
    assert TAGS.items() <= new.data.tags.items()
    assert (new.info.status, new.info.end_time) == (old.info.status, old.info.end_time)
    assert fresh.client.get_run(folds[1].run_id).info.status == "FINISHED"
    # and from now on the run lives there
    assert MlflowRecord.read(run.manifest).tracking_uri == uri
    assert sync_run(run.root) == 0
    assert entries(run)[0].run_id == parent.run_id


def test_a_run_without_its_manifest_can_be_synced(run, store, make_syncer):
    make_syncer()
    train(run, 0, 3)
    assert sync_run(run.root, store.tracking_uri) == 0
    parent, folds = entries(run)
    assert [step for step, _ in rows(store, folds[0].run_id, "loss")] == [0, 1, 2]
    assert status(store, parent) == "FINISHED"


def test_runs_deleted_by_hand_are_created_again(run, store, make_syncer):
    train(run, 0, 2)
    assert make_syncer(folds=[0]).push_once()
    parent, folds = entries(run)
    store.client.delete_run(folds[0].run_id)
    assert sync_run(run.root, store.tracking_uri) == 0
    again, new = entries(run)
    assert again.run_id == parent.run_id
    assert new[0].run_id != folds[0].run_id
    assert [step for step, _ in rows(store, new[0].run_id, "loss")] == [0, 1]


def test_what_cannot_be_pushed_is_counted_and_warned_of_once(run, make_syncer, caplog, tmp_path):
    caplog.set_level(logging.INFO, "uncseg")
    uri = f"sqlite:///{tmp_path / 'blocked' / 'mlflow.db'}"
    (tmp_path / "blocked").write_text("a file where a folder should be")
    assert make_syncer(uri=uri).stop() == 1  # nothing but the end itself
    caplog.clear()
    train(run, 0, 3)
    train(run, 1, 5, finish=False).checkpoint(1)
    syncer = make_syncer(uri=uri)
    assert not syncer.push_once()
    assert not syncer.push_once()
    assert syncer.stop() == 3 + 2  # the epochs after the checkpoint may be trained again
    assert not syncer.finish()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(run.spool) in caplog.text
    with pytest.raises(ProblemsFound, match=r"tracking\.uri"):
        sync_run(run.root, uri)
    (tmp_path / "blocked").unlink()
    assert syncer.push_once()
    assert caplog.records[-1].levelname == "INFO"
    assert sync_run(run.root, uri) == 0


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ProblemsFound, match="the folder of a run"):
        sync_run(tmp_path)


def test_a_run_folder_may_move(run, store, make_syncer, tmp_path):
    train(run, 0, 2)
    assert make_syncer(folds=[0]).stop() == 0
    before = json.loads(run.manifest.read_text())["mlflow"]["parent"]["run_id"]
    moved = shutil.move(run.root, tmp_path / "archive")
    assert sync_run(moved) == 0
    content = json.loads((tmp_path / "archive" / "manifest.json").read_text())
    assert content["mlflow"]["parent"]["run_id"] == before
    assert store.has_run(before)
