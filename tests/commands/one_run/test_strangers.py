"""Runs, models and prepared cases from someone else: no code of theirs runs, and nothing outside of them is touched."""

import pickle
import shutil
import zipfile

import pytest

from support.commands import uncseg
from support.intruder import Intruder
from uncseg.cli import main
from uncseg.layout import RunFolder

pytestmark = pytest.mark.usefixtures("wide")


@pytest.fixture
def given(root, run, tmp_path):
    """A copy of the trained run and of its prepared cases, as someone else would pass it on; nothing is evaluated."""
    shutil.copytree(root / "runs" / "prepared", tmp_path / "runs" / "prepared", symlinks=True)
    copy = RunFolder(shutil.copytree(run.root, tmp_path / "runs" / "small"))
    shutil.rmtree(copy.out_of_fold)
    return copy


def test_code_in_a_prepared_case_is_not_run(given, tmp_path):
    mark = tmp_path / "intruded"
    files = list(given.root.parent.rglob("nnUNetPlans_3d_fullres/*.pkl"))
    assert len(files) == 6
    for file in files:
        content = pickle.loads(file.read_bytes())
        file.write_bytes(pickle.dumps(content | {"extra": Intruder(mark)}))
    with pytest.raises(SystemExit):
        main(["evaluate", str(given.root)])
    assert not mark.exists()


def flip_a_bit(file):
    """Change a bit of the largest tensor, as a damaged disk or memory does; bytes between the parts mean nothing."""
    with zipfile.ZipFile(file) as parts:
        part = max(parts.infolist(), key=lambda one: one.file_size)
    content = bytearray(file.read_bytes())
    lengths = content[part.header_offset + 26 : part.header_offset + 30]  # of the part's name and of its padding
    start = part.header_offset + 30 + int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
    content[start + part.file_size // 2] ^= 0x40
    file.write_bytes(content)


def test_a_flipped_bit_in_a_model_is_named_before_anything_is_predicted(root, run, tmp_path):
    model, out = shutil.copytree(run.model, tmp_path / "model"), tmp_path / "out"
    damaged = model / "fold_1" / "checkpoint_final.pth"
    flip_a_bit(damaged)
    said = uncseg("predict", model, root / "cohort", out, code=1)
    assert f"{damaged}" in said
    assert "altered since it was written" in said
    assert "fold_0" not in said
    assert not list(out.glob("*.nii.gz"))
    uncseg("predict", model, root / "cohort", out, "--folds", 0)
    assert len(list(out.glob("*.json"))) >= 3


def test_a_model_that_was_altered_since_its_download_is_downloaded_again(root, run, server_uri, tmp_path, monkeypatch):
    copy = shutil.copytree(run.root, tmp_path / "runs" / "passed_on")
    (copy / "manifest.json").unlink()
    uncseg("sync", copy, "--tracking-uri", server_uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server_uri)
    out = tmp_path / "out"
    uncseg("predict", "models:/small@candidate", root / "cohort", out)
    (kept,) = out.glob(".model-*/**/fold_0/checkpoint_final.pth")
    whole = kept.read_bytes()
    flip_a_bit(kept)
    uncseg("predict", "models:/small@candidate", root / "cohort", out)
    assert kept.read_bytes() == whole


@pytest.mark.parametrize("command", ["evaluate", "report", "predict"])
def test_a_link_out_of_a_run_of_others_is_not_followed(root, given, tmp_path, command):
    outside = tmp_path / "home"
    outside.mkdir()
    (outside / "per_case.csv").write_text("mine")
    shutil.rmtree(given.tables)
    given.tables.symlink_to(outside)
    arguments = [root / "cohort", tmp_path / "out"] if command == "predict" else []
    said = uncseg(command, given.root, *arguments, code=2)
    assert f"a link to {outside}" in said
    assert [file.name for file in outside.iterdir()] == ["per_case.csv"]
    assert (outside / "per_case.csv").read_text() == "mine"
