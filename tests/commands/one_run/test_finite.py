"""What is not finite is refused by case and fold, and never becomes an answer; what is skipped is counted and shown."""

import json
import math
import re
import shutil

import blosc2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from mlflow import MlflowClient

from support.commands import uncseg
from support.small_experiment import write_small_experiment
from uncseg.console import console
from uncseg.dataset.splits import read_splits
from uncseg.files import read_json, write_json
from uncseg.kept_records import keep_record
from uncseg.layout import DONE, RunFolder
from uncseg.metric_keys import SKIPPED_BATCHES, SKIPPED_STEPS
from uncseg.runs.own_folds import done_record
from uncseg.table_files import read_table
from uncseg.tracking.spool import epoch_table


def strict(text, file):
    """Parse JSON as other languages do, which know neither NaN nor Infinity."""

    def fail(constant):
        pytest.fail(f"{constant} in {file}")

    return json.loads(text, parse_constant=fail)


def assert_strict_below(folder):
    """Parse every JSON file below a folder, JSON lines and the JSON in pages included; return how many there are."""
    count = 0
    for file in sorted(folder.rglob("*")):
        texts = []
        if file.suffix == ".json":
            texts = [file.read_text()]
        elif file.suffix == ".jsonl":
            texts = [line for line in file.read_text().splitlines() if line]
        elif file.suffix == ".html":
            texts = re.findall(r"^const sheets = (.*);$", file.read_text(), flags=re.M)
            assert texts
        for text in texts:
            strict(text, file)
        count += bool(texts)
    return count


def words(text):
    """Return printed text without line breaks and the frames of tables."""
    return " ".join(text.replace("│", " ").split())


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    """Let no cell of a printed table break into lines."""
    monkeypatch.setattr(console, "width", 1000)


def test_all_json_of_a_run_is_strict(root, run, tmp_path):
    uncseg("predict", run.root, root / "cohort", tmp_path / "out")
    uncseg("evaluate", run.root, "--dataset", root / "cohort")
    assert len(list((tmp_path / "out").glob("*.json"))) == 3
    assert assert_strict_below(tmp_path / "out") > 3  # and the record of what was written there
    assert assert_strict_below(run.root) > 10
    assert assert_strict_below(root / "runs" / "prepared") > 8
    scores = read_table(run.tables, "scores")
    assert scores["hd95_mm"].dtype == np.float64


def test_tables_made_of_kept_records_are_those_of_the_first_evaluation_to_the_bit(run, copied):
    for file in run.out_of_fold.iterdir():  # with them nothing is predicted again
        shutil.copy(file, copied.out_of_fold)
    uncseg("evaluate", copied.root)
    for name in ("per_case", "scores", "table1", "table2"):
        pd.testing.assert_frame_equal(read_table(copied.tables, name), read_table(run.tables, name), check_exact=True)
        assert (copied.tables / f"{name}.csv").read_bytes() == (run.tables / f"{name}.csv").read_bytes()


def test_null_in_a_kept_record_is_nan_in_a_table_of_floats(run, copied):
    for file in sorted(run.out_of_fold.glob("*.json")):
        for written in run.out_of_fold.glob(f"{file.stem}*"):
            shutil.copy(written, copied.out_of_fold)
        record = read_json(file)
        record["row"]["expected_dice_wt"] = None  # in all cases, as where nothing is predicted
        keep_record(copied.out_of_fold / file.name, record["source"], record)
    record["scores"][0]["hd95_mm"] = None  # in the last case alone
    keep_record(copied.out_of_fold / file.name, record["source"], record)
    uncseg("evaluate", copied.root)
    per_case, before = (read_table(folder.tables, "per_case") for folder in (copied, run))
    assert per_case["expected_dice_wt"].dtype == np.float64
    assert per_case["expected_dice_wt"].isna().all()
    same = [name for name in before if name != "expected_dice_wt"]
    pd.testing.assert_frame_equal(per_case[same], before[same], check_exact=True)
    scores, before = (read_table(folder.tables, "scores") for folder in (copied, run))
    row = record["scores"][0]
    changed = (before["case"] == row["case"]) & (before["region"] == row["region"])
    before.loc[changed, "hd95_mm"] = np.nan
    pd.testing.assert_frame_equal(scores, before, check_exact=True)


@pytest.fixture
def damaged_model(run, tmp_path):
    """A function that copies the model, and replaces one fold's weights by a value."""

    def make(value, fold=1):
        model = shutil.copytree(run.model, tmp_path / "model")
        file = model / f"fold_{fold}" / "checkpoint_final.pth"
        content = torch.load(file, weights_only=False)
        for name, tensor in content["network_weights"].items():
            if "seg_layers" in name and name.endswith("weight"):
                tensor[0] = value
        torch.save(content, file)
        return model

    return make


def test_a_network_whose_output_is_not_finite_is_no_prediction(root, damaged_model, tmp_path):
    model, out = damaged_model(3.5e37), tmp_path / "out"
    said = words(uncseg("predict", model, root / "cohort", out, code=1))
    for case in (path.name for path in (root / "cohort").iterdir() if path.is_dir()):
        assert f"{case}, the network of fold 1" in said
    assert not list(out.glob("*.nii.gz"))
    assert not list(out.glob("*.json"))
    uncseg("predict", model, root / "cohort", out, "--folds", 0)  # the other fold's network is whole
    assert len(list(out.glob("*.json"))) == 3
    uncseg("predict", model, root / "cohort", out, code=1)
    assert not list(out.glob("BraTS*")), "files of an earlier prediction beside a refusal"
    assert not list(out.glob("predictions*")), "a table of cases without files"


@pytest.fixture
def copied(root, run, tmp_path):
    """A copy of the trained run and of what it was trained on; none of its cases is evaluated yet."""
    shutil.copytree(root / "runs" / "prepared", tmp_path / "runs" / "prepared", symlinks=True)
    shutil.copytree(run.root, tmp_path / "runs" / "small")
    copy = RunFolder(tmp_path / "runs" / "small")
    experiment = yaml.safe_load(copy.experiment.read_text())
    experiment["storage"]["path"] = str(tmp_path / "runs")
    copy.experiment.write_text(yaml.safe_dump(experiment, sort_keys=False))
    for file in copy.out_of_fold.glob("*.json"):
        file.unlink()
    return copy


def prepared_file(storage, case):
    (file,) = storage.rglob(f"nnUNetPlans_3d_fullres/{case}.b2nd")
    return file


def write_nan(storage, case, channel, voxels):
    """Overwrite voxels of a prepared case as if it was prepared so, and return how many values the channel has."""
    array = blosc2.open(str(prepared_file(storage, case)), mode="a")
    array[(slice(channel, channel + 1), *voxels)] = np.full((1, *(s.stop - s.start for s in voxels)), np.nan, "f4")
    (record,) = storage.glob(f"prepared/*/records/{case}.json")  # a file that is not as described is made again
    content = read_json(record)
    keep_record(record, content["source"], content)
    return math.prod(array.shape[1:])


def test_a_prepared_case_with_nan_is_not_evaluated_and_the_others_are(copied):
    (splits,) = copied.root.parent.rglob("splits_final.json")
    case, *others = read_splits(splits)[0]["val"]
    values = write_nan(copied.root.parent, case, 3, (slice(3, 4), slice(3, 5), slice(3, 4)))
    said = words(uncseg("evaluate", copied.root, code=1))
    assert f"2 of {values} values that are not finite" in said
    assert case in said
    assert "channel t2f" in said
    assert not any(other in said for other in others)
    assert not list(copied.out_of_fold.glob(f"{case}*"))
    for other in others:
        assert (copied.out_of_fold / f"{other}.json").is_file()
    uncseg("report", copied.root)  # its tables still name the case, whose images are gone
    assert case in (copied.root / "report.html").read_text()


def test_a_fold_whose_network_is_damaged_is_not_evaluated(copied):
    file = copied.final_checkpoint(0)
    content = torch.load(file, weights_only=False)
    next(iter(content["network_weights"].values()))[:] = math.nan
    torch.save(content, file)
    write_json(file.with_name(DONE), done_record(0, 20, file))  # or it would be refused as another checkpoint
    (splits,) = copied.root.parent.rglob("splits_final.json")
    cases = read_splits(splits)[0]["val"]
    said = words(uncseg("evaluate", copied.root, code=1))
    assert all(case in said for case in cases), said
    assert f"{file}" in said
    assert "with values that are not finite" in said
    assert sorted(file.stem for file in copied.out_of_fold.glob("*.json")) == sorted(read_splits(splits)[1]["val"])


def test_batches_that_were_skipped_are_shown_at_the_end_and_on_the_page(root, tmp_path):
    """Cases of a fold are prepared, then one is damaged: steps are skipped, and the evaluation refuses the case."""
    (tmp_path / "cases").symlink_to(root / "cases")
    training = {"epochs": 3, "iterations_per_epoch": 6, "val_iterations_per_epoch": 4, "checkpoint_every": 1}
    file = write_small_experiment(tmp_path, training=training, evaluation={"last_epochs": 2})
    uncseg("prepare", file)
    (splits,) = tmp_path.rglob("splits_final.json")
    case = read_splits(splits)[0]["val"][0]  # fold 1 trains on it
    write_nan(tmp_path / "runs", case, 3, (slice(0, 8), slice(0, 28), slice(0, 28)))
    said = words(uncseg("cross-validate", file, code=1))
    run = RunFolder(tmp_path / "runs" / "small")
    counted = epoch_table(run.spool).groupby("fold")[[SKIPPED_STEPS, SKIPPED_BATCHES]].sum().astype(int)
    steps, batches = counted.loc[1, SKIPPED_STEPS], counted.loc[0, SKIPPED_BATCHES]
    assert steps > 0
    assert batches > 0
    assert counted.loc[0, SKIPPED_STEPS] == counted.loc[1, SKIPPED_BATCHES] == 0
    lines = [
        f"Fold 0: {batches} of 12 validation batches ({100 * batches / 12:.2g} %) left out",
        f"Fold 1: {steps} of 18 training steps ({100 * steps / 18:.2g} %) without effect, {steps} because",
    ]
    for line in lines:
        assert line in said
    logs = re.findall(r"cases: ([^)]*console.log)", said)
    assert len(logs) == 2
    for log in logs:
        assert f"{case}, whose images are not" in (run.root / log).read_text()
    assert f"{case}, channel t2f" in said
    uncseg("report", run.root)
    page = (run.root / "report.html").read_text()
    assert all(line in page for line in lines)
    assert assert_strict_below(run.root) > 3
    client = MlflowClient(f"sqlite:///{tmp_path}/runs/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("uncseg").experiment_id], "tags.`uncseg.fold` = '1'")
    history = client.get_metric_history(runs[0].info.run_id, SKIPPED_STEPS)
    assert sum(row.value for row in history) == steps


def test_nothing_is_said_where_nothing_was_skipped(run):
    page = (run.root / "report.html").read_text()
    assert "without effect" not in page
    assert "left out, because" not in page
    assert (epoch_table(run.spool)[[SKIPPED_STEPS, SKIPPED_BATCHES]] == 0).all(axis=None)
