"""What a trained run was made from is changed: every command that reads the run says what, and writes nothing.

Each test works on a copy of the trained run and of its cases, which is a test of moved storages as well.
"""

import os
import re
import shutil

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from support.commands import uncseg
from support.small_experiment import write_small_experiment
from uncseg.files import read_json, write_json
from uncseg.layout import RunFolder

TRAINING = {"epochs": 20, "iterations_per_epoch": 8, "val_iterations_per_epoch": 2, "checkpoint_every": 10}


class Copy:
    """A copy of the trained run and its cases."""

    def __init__(self, root, folder):
        shutil.copytree(root, folder, symlinks=True)
        self.root, self.cases, self.run = folder, folder / "cases", RunFolder(folder / "runs" / "small")
        more = {"loss": {"warmup_epochs": 10}, "evaluation": {"last_epochs": 2}}
        self.file = write_small_experiment(folder, training=TRAINING, **more)
        self.before = self.outputs()

    def outputs(self):
        """Return size and time of every file of the storage, except databases and locks."""
        files = [file for file in (self.root / "runs").rglob("*") if file.is_file()]
        return {
            file: file.stat().st_mtime_ns for file in files if "lock" not in file.name and "mlflow" not in str(file)
        }

    def case(self, number=0):
        return sorted(folder.name for folder in self.cases.glob("BraTS*"))[number]

    def edit(self, section, field, value):
        """Change a field of the run's own experiment file."""
        content = yaml.safe_load(self.run.experiment.read_text())
        content[section][field] = value
        self.run.experiment.write_text(yaml.safe_dump(content, sort_keys=False))

    def image(self, case):
        return self.cases / case / f"{case}-t1n.nii.gz"

    def evaluate(self, *more, code=0):
        return words(uncseg("evaluate", self.run.root, "--set", f"dataset.path={self.cases}", *more, code=code))

    def cross_validate(self, *more, code=0):
        return words(uncseg("cross-validate", self.file, *more, code=code))

    def refused(self, *found):
        """Check that evaluate and cross-validate are refused with these texts, and leave all as it was."""
        for output in (self.evaluate(code=2), self.cross_validate(code=2)):
            for text in found:
                assert text in output
        assert self.outputs() == self.before


def words(output):
    return " ".join(re.sub("[│┃]", " ", output).split())


@pytest.fixture
def copy(root, tmp_path, wide):
    return Copy(root, tmp_path / "copy")


def digests(text):
    return re.findall(r"digest ([0-9a-f]{12})", text)


def test_a_removed_case_is_named_with_both_digests(copy):
    case = copy.case()
    shutil.rmtree(copy.cases / case)
    copy.refused(f"1 case removed: {case}")
    assert len(set(digests(copy.evaluate(code=2)))) == 2


def test_an_added_case_is_named(copy):
    name = "BraTS-GLI-09999-000"
    shutil.copytree(copy.cases / copy.case(), copy.cases / name)
    for file in (copy.cases / name).iterdir():
        file.rename(file.with_name(f"{name}-{file.name.rpartition('-')[2]}"))
    copy.refused(f"1 case added: {name}")


def test_a_file_of_other_content_is_named_even_with_its_old_size_and_time(copy):
    file = copy.image(copy.case(2))
    before, times = file.read_bytes(), file.stat()
    image = nib.load(file)
    changed = np.asarray(image.dataobj).copy()
    changed[tuple(np.argwhere(changed)[0])] += 1
    nib.save(nib.Nifti1Image(changed, image.affine, image.header), file)
    data = file.read_bytes()
    file.write_bytes(data[: len(before)].ljust(len(before), b"\0"))
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    copy.refused(f"1 case changed: {copy.case(2)}")


def test_a_file_that_cannot_be_read_is_a_change(copy):
    case = copy.case(1)
    copy.image(case).unlink()
    copy.image(case).symlink_to(copy.root / "gone.nii.gz")
    copy.refused("1 case", case)


def test_an_excluded_case_is_named(copy):
    case = copy.case(3)
    output = copy.evaluate("--set", f"dataset.exclude=[{case}]", code=2)
    assert "dataset.exclude" in output
    assert copy.outputs() == copy.before


def test_touched_and_copied_files_are_no_change(copy):
    for file in copy.cases.rglob("*.nii.gz"):
        os.utime(file)
    prepared = sorted((copy.root / "runs" / "prepared").iterdir())
    tables = {file.name: file.read_bytes() for file in copy.run.tables.glob("*.csv")}
    shutil.copyfile(copy.run.final_checkpoint(0), copy.root / "copied")  # another time, the same content
    (copy.root / "copied").replace(copy.run.final_checkpoint(0))
    records = {file: file.stat().st_mtime_ns for file in copy.run.out_of_fold.glob("*.json")}
    copy.evaluate()
    assert sorted((copy.root / "runs" / "prepared").iterdir()) == prepared  # nothing is prepared again
    assert {file: file.stat().st_mtime_ns for file in records} == records  # or predicted
    assert {file.name: file.read_bytes() for file in copy.run.tables.glob("*.csv")} == tables


def test_exchanged_folders_of_folds_are_named(copy):
    first, second, aside = copy.run.fold(0), copy.run.fold(1), copy.run.model / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)
    copy.before = copy.outputs()
    copy.refused("the training of fold 1", "that of fold 0")


def test_exchanged_checkpoints_are_named(copy):
    first, second = copy.run.final_checkpoint(0), copy.run.final_checkpoint(1)
    content = first.read_bytes()
    shutil.copyfile(second, first)
    second.write_bytes(content)
    copy.before = copy.outputs()
    copy.refused(str(first), "another checkpoint", str(second))


def test_an_edited_split_is_refused_with_the_cases_that_moved(copy):
    (file,) = (copy.root / "runs").rglob("splits_final.json")
    splits = read_json(file, shape=list)
    case = splits[0]["val"].pop()
    splits[1]["val"].append(case)
    write_json(file, splits)
    copy.before = copy.outputs()
    copy.refused(f"{case} in fold 1, was in 0")


def test_edited_settings_are_named(copy):
    copy.edit("loss", "unc_weight", 0.1)
    copy.before = copy.outputs()
    assert "loss.unc_weight" in copy.evaluate(code=2)
    assert "loss.unc_weight" in copy.cross_validate(code=2)
    assert "loss.unc_weight" in words(uncseg("report", copy.run.root, code=2))
    assert copy.outputs() == copy.before


def test_without_its_record_a_run_is_not_evaluated(copy):
    copy.run.data.unlink()
    copy.before = copy.outputs()
    for code, command in ((1, copy.evaluate), (1, copy.cross_validate)):
        assert "data.json" in command(code=code)
    assert copy.outputs() == copy.before


def test_commands_that_do_not_depend_on_the_cases_warn(copy):
    copy.edit("dataset", "path", str(copy.cases))
    copy.edit("loss", "unc_weight", 0.1)
    case = copy.case()
    shutil.rmtree(copy.cases / case)
    output = words(uncseg("sync", copy.run.root))
    assert f"1 case removed: {case}" in output
    assert "loss.unc_weight" in output
    assert f"{copy.root}/runs/mlflow.db" in output  # where it writes: not into the database of the original


def test_the_report_shows_no_slices_of_a_changed_case(copy):
    copy.edit("dataset", "path", str(copy.cases))
    uncseg("report", copy.run.root, "--cases", "6")
    whole = (copy.run.root / "report.html").read_text()
    shown = pd.read_csv(copy.run.tables / "work_list.csv")["case"].tolist()
    changed = shown[0]
    copy.image(changed).write_bytes(copy.image(shown[1]).read_bytes())
    output = words(uncseg("report", copy.run.root, "--cases", "6"))
    assert f"1 case changed: {changed}" in output
    page = (copy.run.root / "report.html").read_text()
    assert len(page) < len(whole)
    assert whole.count("data:image") > page.count("data:image") > 0
