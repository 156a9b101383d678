"""The teacher: the average of the weights over the steps, and the error that it expects."""

import contextlib

import pytest
import torch
from torch import nn

from support.training import SHORT, train, train_in_two_parts
from uncseg.method.loss.terms import Step, total_loss
from uncseg.method.network.logits import reference_regions
from uncseg.method.training.error_sources import Visit
from uncseg.method.training.teacher import Teacher
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tasks.outputs import Outputs

DECAY = 0.8
SECTIONS = {"memory": {"source": "teacher", "teacher_decay": DECAY}, "loss": {"warmup_epochs": 0}}


def weights_of(trainer):
    return [p.detach().clone() for p in trainer.network.parameters()]


def test_teachers_weights_are_the_average_over_the_steps(trainer_for):
    """After steps 1..n with weights w: decay^(n-1)·w1 + Σ (1 − decay)·decay^(n-i)·wi."""
    trainer = trainer_for(**SHORT, **SECTIONS)
    steps, descend = [], trainer.descend

    def remember():
        descend()
        steps.append(weights_of(trainer))

    trainer.descend = remember
    train(trainer)
    n = len(steps)
    assert n == 6
    share = [DECAY ** (n - 1), *((1 - DECAY) * DECAY ** (n - i) for i in range(2, n + 1))]
    assert sum(share) == pytest.approx(1)
    found = [p for name, p in trainer.teacher.named_parameters()]
    for number, parameter in enumerate(found):
        expected = sum(s * step[number].double() for s, step in zip(share, steps, strict=True))
        torch.testing.assert_close(parameter.double(), expected, rtol=1e-5, atol=1e-7)
        assert not parameter.requires_grad
    assert not trainer.teacher.training
    assert any(not torch.equal(a, b) for a, b in zip(found, steps[-1], strict=True))


@pytest.mark.parametrize("output", ["labels", "regions"])
def test_expected_error_is_the_distance_of_probability_and_reference(trainer_for, output):
    """|p(WT) − reference WT|; p from the logits of an independent pass."""
    loss = {"weight_ce": None, "warmup_epochs": 0}
    trainer = trainer_for(**SHORT, memory=SECTIONS["memory"], model={"output": output}, loss=loss)
    trainer.network.eval()
    x = torch.randn(2, 4, 16, 16, 16)
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 4, (2, 1, 16, 16, 16), generator=generator)
    wt = target > 0
    if output == "regions":
        target = torch.cat((wt, (target == 1) | (target == 3), target == 3), dim=1).float()
    nothing = torch.zeros(2, 3, 16, 16, 16, dtype=torch.bool)  # what the network itself decides is not asked
    visit = Visit(
        x,
        torch.zeros(2, 4, 16, 16, 16),
        nothing,
        reference_regions(target, trainer.outputs),
        nothing[:, :1],
        {},
        "union",
    )
    expected = trainer.teacher.expected_error(visit)
    with torch.no_grad():
        logits = trainer.network(x)  # no step has been taken: the teacher is the network's copy
        logits = logits[0] if isinstance(logits, list) else logits
        exp = logits.exp()
        p = exp[:, :1] / (1 + exp[:, :1]) if output == "regions" else 1 - exp[:, :1] / exp.sum(1, keepdim=True)
    torch.testing.assert_close(expected.values["error"], torch.where(wt, 1 - p, p), rtol=1e-4, atol=1e-5)
    assert expected.visited.all()
    assert expected.values["error"].shape == wt.shape


def test_head_learns_from_the_teacher_where_nothing_was_visited(trainer_for):
    """In the first step the memory is empty: from it the head would learn nothing."""
    once = {"training": {"epochs": 1, "iterations_per_epoch": 1, "val_iterations_per_epoch": 1}}
    with_teacher = train(trainer_for("with", **once, **SECTIONS))[0]
    without = train(trainer_for("without", **once, loss=SECTIONS["loss"]))[0]
    assert with_teacher["train/loss_unc"] > 0
    assert without["train/loss_unc"] == 0
    assert with_teacher["train/loss_seg"] == without["train/loss_seg"]
    # the error memory is kept too, and validation compares with it
    assert "uncertainty/memory/mean_error_train_union" not in with_teacher
    assert with_teacher["uncertainty/memory/visited_share_union"] == without["uncertainty/memory/visited_share_union"]


def test_loss_compares_the_head_with_the_teachers_error(trainer_for):
    """l_unc of a step: mean over the patch of (mask·(sigmoid(u) − |p_teacher − y|))²."""
    trainer = trainer_for(**SHORT, **SECTIONS)
    with contextlib.redirect_stdout(None):
        trainer.on_train_start()
    batch = next(trainer.dataloader_train)
    data, target = trainer._to_device(batch)
    wt = reference_regions(target[0], trainer.outputs)[:, :1]
    logits, u, segmentation = trainer._forward(data, target)
    predicted, reference = trainer._regions(logits, target[0])
    learned = trainer._expected_error(
        Visit(data, logits.detach(), predicted, reference, wt.float(), {"reference": wt}, "reference")
    )
    _, terms = total_loss(trainer.settings, 0, Step(segmentation, logits, u, wt.float(), learned, wt))
    p = 1 - logits.detach().softmax(1)[:, :1]
    expected = ((u.sigmoid() - (p - wt.float()).abs()) * wt).square().mean()
    torch.testing.assert_close(terms["loss_unc"], expected, rtol=1e-4, atol=1e-7)
    trainer.on_train_end()


def test_resumed_training_ends_with_the_same_teacher(trainer_for):
    sections = {"training": {"epochs": 4, "iterations_per_epoch": 3, "checkpoint_every": 2}, **SECTIONS}
    whole = trainer_for("whole", **sections)
    train(whole)
    second = train_in_two_parts(trainer_for, 2, **sections)
    for a, b in ((whole.network, second.network), (whole.teacher, second.teacher)):
        torch.testing.assert_close(a.state_dict(), b.state_dict(), rtol=0, atol=0)


def test_there_is_no_teacher_by_default(trainer_for):
    trainer = trainer_for(**SHORT)
    assert trainer.teacher is None
    assert set(trainer.resume_content()) == {"training", "validation"}


class Compiled(nn.Module):
    """As torch.compile and DistributedDataParallel wrap a network: by attribute."""

    def __init__(self, network, attribute):
        super().__init__()
        setattr(self, attribute, network)


def test_teacher_follows_a_wrapped_network():
    network = nn.Conv3d(2, 4, 1)
    wrapped = Compiled(Compiled(network, "_orig_mod"), "module")
    teacher = Teacher(wrapped, Outputs.of(paper_task(), "labels"), 0.5)
    teacher.follow(wrapped)
    first = network.weight.detach().clone()
    with torch.no_grad():
        network.weight += 1
    teacher.follow(wrapped)
    torch.testing.assert_close(teacher.module.weight, first + 0.5)
