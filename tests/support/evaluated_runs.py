"""Runs whose cases were predicted and scored, without a network: what a report reads."""

import numpy as np
import pandas as pd
import pytest
import yaml

from uncseg.cli import main
from uncseg.config.experiment import load_experiment, save_experiment
from uncseg.dataset.case_volumes import read_reference
from uncseg.dataset.phantom import write_phantoms
from uncseg.dataset.scan import scan_folder
from uncseg.dataset.volumes import write_volume
from uncseg.evaluation.case_scores import score_case
from uncseg.evaluation.tables import table1, table2
from uncseg.layout import CaseFiles, RunFolder
from uncseg.report.score_tables import write_scores
from uncseg.table_files import write_table
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tracking.spool import SpoolWriter

PAPER = paper_task()


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
        corr = {"uncertainty/union/corr_failure": 0.5 + number / 10, "min_p/union/corr_failure": 0.1}
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
