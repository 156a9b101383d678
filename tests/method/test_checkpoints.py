"""Checkpoints from strangers, truncated ones, and those of nnU-Net's own trainer."""

import contextlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from support.training import SHORT, train
from uncseg.errors import ProblemsFound
from uncseg.method.checkpoints import MODEL_KEYS, DamagedCheckpoint, load_torch_file, require_whole


class Intruder:
    """Writes a file when it is unpickled in full."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def trained(trainer_for):
    trainer = trainer_for(**SHORT)
    train(trainer)
    return trainer


def problem_of(caught, file):
    (problem,) = caught.value.problems
    assert problem.where == str(file)
    assert caught.value.exit_code == 1
    return problem


def test_file_that_would_run_code_is_refused_unless_trusted(trained, tmp_path):
    mark = tmp_path / "intruded"
    file = Path(trained.output_folder) / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    torch.save(content | {"extra": Intruder(mark)}, file)
    with pytest.raises(ProblemsFound, match=r"posix\.system.*--trust") as caught:
        trained.load_checkpoint(str(file))
    problem_of(caught, file)
    assert not mark.exists()
    load_torch_file(file, MODEL_KEYS, trust=True)
    assert mark.exists()


@pytest.mark.parametrize("name", ["checkpoint_final.pth", "resume_epoch_0002.pt"])
def test_truncated_file_is_named(trained, name):
    file = Path(trained.output_folder) / name
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ProblemsFound, match="truncated") as caught:
        trained.load_checkpoint(str(Path(trained.output_folder) / "checkpoint_final.pth"))
    problem_of(caught, file)


@pytest.fixture
def small_file(tmp_path):
    """A checkpoint of a few kilobytes, and what it holds."""
    weights = {f"layer_{number}": torch.linspace(-1, 1, 50) + number for number in range(4)}
    content = dict.fromkeys(MODEL_KEYS, "a text") | {"network_weights": weights}
    torch.save(content, tmp_path / "checkpoint_final.pth")
    return tmp_path / "checkpoint_final.pth", content


def test_a_flipped_bit_anywhere_changes_nothing_or_is_noticed(small_file):
    """PyTorch alone reads another number; only bytes without a meaning, such as padding, may change."""
    file, content = small_file
    whole = bytearray(file.read_bytes())
    noticed = 0
    for place in np.random.default_rng(0).choice(8 * len(whole), 300, replace=False):
        altered = bytearray(whole)
        altered[place // 8] ^= 1 << (place % 8)
        file.write_bytes(altered)
        try:
            read = load_torch_file(file, MODEL_KEYS)
        except DamagedCheckpoint:  # only after this error another checkpoint is tried
            noticed += 1
            continue
        assert read.keys() == content.keys()
        for name, tensor in content["network_weights"].items():
            assert torch.equal(read["network_weights"][name], tensor), f"bit {place}"
    assert noticed > 100


def test_a_flipped_bit_is_noticed_in_a_trusted_file_too(small_file):
    file, content = small_file
    raw = content["network_weights"]["layer_2"].numpy().tobytes()
    whole = file.read_bytes()
    assert whole.count(raw) == 1
    place = whole.index(raw) + 3
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
    torch.load(file, weights_only=True)  # PyTorch does not notice
    for trust in (False, True):
        with pytest.raises(DamagedCheckpoint, match="altered since it was written"):
            load_torch_file(file, MODEL_KEYS, trust=trust)
    with pytest.raises(DamagedCheckpoint, match="altered"):
        require_whole([file])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_no_weights(small_file, value):
    file, content = small_file
    content["network_weights"]["layer_3"][7] = value
    torch.save(content, file)
    with pytest.raises(DamagedCheckpoint, match=r"layer_3 with values that are not finite"):
        load_torch_file(file, MODEL_KEYS)


def test_every_damaged_file_is_named_before_any_is_used(small_file, tmp_path):
    file, _ = small_file
    for number in (1, 2):
        (tmp_path / f"{number}.pth").write_bytes(file.read_bytes()[: -number * 100])
    with pytest.raises(DamagedCheckpoint) as caught:
        require_whole([tmp_path / "1.pth", file, tmp_path / "2.pth"])
    assert [problem.where for problem in caught.value.problems] == [str(tmp_path / f"{n}.pth") for n in (1, 2)]


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (lambda file: file.write_text("weights"), "another kind"),
        (lambda file: torch.save({"state_dict": {}}, file), "network_weights"),
        (lambda file: torch.save([1, 2], file), "network_weights"),
        (lambda file: file.unlink(missing_ok=True), "No such file"),
    ],
    ids=["text", "other keys", "a list", "absent"],
)
def test_file_of_another_kind_is_named(tmp_path, write, found):
    file = tmp_path / "checkpoint_final.pth"
    write(file)
    with pytest.raises(ProblemsFound, match=found) as caught:
        load_torch_file(file, MODEL_KEYS)
    problem_of(caught, file)


def test_checkpoint_of_nnunets_trainer_needs_no_trust(trained, tmp_path, monkeypatch):
    """nnU-Net's own trainer puts NumPy's numbers into its files; they are no code."""
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "stock"))
    arguments = trained.my_init_kwargs
    with contextlib.redirect_stdout(None):
        plans = {**arguments["plans"], "continue_training": False}
        about = (arguments["configuration"], 0, arguments["dataset_json"], torch.device("cpu"))
        stock = nnUNetTrainer(plans, *about)
        stock.initialize()
        stock.logger.log("train_losses", torch.tensor(0.5).numpy(), 0)
        stock._best_ema = torch.tensor(0.5, dtype=torch.float64).numpy().mean()
        file = tmp_path / "stock.pth"
        stock.save_checkpoint(str(file))
    content = load_torch_file(file, MODEL_KEYS)
    assert content["trainer_name"] == "nnUNetTrainer"
    assert content["_best_ema"] == 0.5


def test_checkpoint_does_not_carry_the_error_memory(trained):
    folder = Path(trained.output_folder)
    content = torch.load(folder / "checkpoint_final.pth", weights_only=False)
    # exactly what nnU-Net's own save_checkpoint writes
    assert set(content) == {
        "network_weights",
        "optimizer_state",
        "grad_scaler_state",
        "logging",
        "_best_ema",
        "current_epoch",
        "init_args",
        "trainer_name",
        "inference_allowed_mirroring_axes",
    }


def test_the_checkpoint_of_another_fold_is_refused(trained):
    """Its folder may have been exchanged: the network would be judged by cases that it was trained on."""
    file = Path(trained.output_folder) / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["init_args"]["fold"] += 1
    torch.save(content, file)
    with pytest.raises(ProblemsFound, match="a checkpoint of fold 1; expected one of fold 0") as caught:
        trained.load_checkpoint(str(file))
    problem_of(caught, file)
