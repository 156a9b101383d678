"""A batch depends on nothing but seed, fold and index."""

import contextlib

import pytest
import torch

from uncseg.method.training.batches import TRAINING, BatchStream, Share

CALM = {"plan": {"max_stages": 3, "batch_size": 4}}


def stream_of(trainer, first=0, processes=0, seed=0, fold=0, share=None):
    """Return the trainer's own training stream, with other numbers."""
    with contextlib.redirect_stdout(None):
        training, validation = trainer.get_dataloaders()
    loader = training.loader
    loader.key = (seed, fold, TRAINING)
    for each in (training, validation):
        each.close()
    if share is not None:
        loader.share, loader.batch_size = share, share.count
    return BatchStream(loader, first=first, processes=processes, pin_memory=False)


def draw(stream, count):
    batches = [next(stream) for _ in range(count)]
    stream.close()
    return batches


def assert_same(a, b):
    assert a["keys"] == b["keys"]
    torch.testing.assert_close(a["data"], b["data"], rtol=0, atol=0)
    torch.testing.assert_close(a["target"], b["target"], rtol=0, atol=0)
    for first, second in zip(a["geometry"], b["geometry"], strict=True):
        assert (first.matrix == second.matrix).all()
        assert (first.offset == second.offset).all()


@pytest.fixture
def trainer(trainer_for):
    return trainer_for(**CALM)


def test_any_number_of_processes_gives_the_same_batches(trainer):
    alone = draw(stream_of(trainer), 6)
    for processes in (1, 2):
        for a, b in zip(alone, draw(stream_of(trainer, processes=processes), 6), strict=True):
            assert_same(a, b)


def test_stream_starts_at_any_index(trainer):
    alone = draw(stream_of(trainer), 6)
    for a, b in zip(alone[4:], draw(stream_of(trainer, first=4), 2), strict=True):
        assert_same(a, b)


def test_other_seeds_folds_and_indices_give_other_batches(trainer):
    first, second = draw(stream_of(trainer), 2)
    for other in (second, *draw(stream_of(trainer, seed=1), 1), *draw(stream_of(trainer, fold=1), 1)):
        assert not torch.equal(first["data"], other["data"])


def test_shares_add_up_to_the_joint_batch(trainer):
    joint = draw(stream_of(trainer), 3)
    halves = [draw(stream_of(trainer, share=Share(4, first, 2)), 3) for first in (0, 2)]
    for whole, first, second in zip(joint, *halves, strict=True):
        assert whole["keys"] == first["keys"] + second["keys"]
        assert torch.equal(whole["data"], torch.cat((first["data"], second["data"])))
        for level, parts in enumerate(zip(first["target"], second["target"], strict=True)):
            assert torch.equal(whole["target"][level], torch.cat(parts))


def test_random_states_of_the_process_stay_as_they_were(trainer):
    stream = stream_of(trainer)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    next(stream)
    assert torch.equal(torch.rand(3), expected)
