"""The error memory as a public trainer keeps it: wrong on purpose, each difference by its formula, only if asked."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from support.training import SHORT, Stopped, train, train_in_two_parts
from uncseg.config.training_sections import Memory, PublishedMemory
from uncseg.method.memory.error_memory import ErrorMemory, Reading
from uncseg.method.memory.patch_geometry import PatchGeometry
from uncseg.method.training.error_sources import Visit
from uncseg.method.training.keeping import OURS, keeping_of
from uncseg.method.training.observed_patch import choose_patch, observe
from uncseg.tasks.built_in_tasks import paper_task
from uncseg.tasks.outputs import Outputs

CASE = (40, 32, 24)
PATCHES = {"3d": (8, 16, 16), "2d": (16, 16)}
LABELS, REGIONS = (Outputs.of(paper_task(), kind) for kind in ("labels", "regions"))
ALPHA = 1 / 30


def only(*names):
    """Return how memories are kept with these differences alone."""
    fields = dict.fromkeys(PublishedMemory.model_fields, False) | dict.fromkeys(names, True)
    return keeping_of(Memory(published=fields))


def random_batch(patch, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 2, (2, 1, *patch))).float()


def places(patch, seed):
    """Two places of a patch in a case, one turned."""
    random = np.random.default_rng(seed)
    turn = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    first, second = (PatchGeometry.from_crop(random.integers(0, 8, 3), patch, CASE) for _ in range(2))
    return [first, second.then(turn, np.zeros(3), patch)]


def write(memory, keys, geometries, failure):
    values = dict.fromkeys(memory.names, failure)
    memory.write(keys, geometries, values, torch.zeros_like(failure) > 0)
    memory.settle()


@pytest.mark.parametrize("kind", list(PATCHES))
def test_slots_average_over_cases_and_places(kind):
    """Whatever case and place: the first patch of a batch meets the mean of all first patches, and so the second."""
    patch = PATCHES[kind]
    memories = only("slots").memories(ALPHA)
    batches = [random_batch(patch, seed) for seed in range(3)]
    for seed, (keys, failure) in enumerate(zip((("a", "b"), ("b", "c"), ("d", "a")), batches, strict=True)):
        write(memories["training"], list(keys), places(patch, seed), failure)
    reading = memories["validation"].read(["new", "newer"], places(patch, 9))
    expected = torch.stack(batches).mean(0).reshape(2, -1)
    torch.testing.assert_close(reading.values["error"].reshape(2, -1), expected, rtol=0, atol=1e-3)
    assert reading.visited.all()
    box = memories["validation"].read_box("a", tuple(slice(0, n) for n in CASE))
    assert not box.visited.any(), "nothing is known of a case"
    assert set(box.values) == {"error", "variance"}


@pytest.mark.parametrize("smaller", [False, True])
def test_after_the_first_visit_small_steps_leave_it_as_it_was(smaller):
    """A failure at the first of 40 visits: its share is 1/30 · (29/30)¹⁰, or Π(1 − min(1/n, 1/30)) over the others."""
    memory = only(*["smaller_step"] * smaller).memories(ALPHA)["training"]
    geometry = PatchGeometry.from_crop([0, 0, 0], (8, 8, 8), CASE)
    for n in range(1, 41):
        write(memory, ["a"], [geometry], torch.full((1, 1, 8, 8, 8), float(n == 1)))
    expected = ALPHA * (1 - ALPHA) ** 10
    if smaller:
        expected = np.prod([1 - min(1 / n, ALPHA) for n in range(2, 41)])
        assert 0.2 < expected < 0.4
    found = memory.read(["a"], [geometry]).values["error"]
    torch.testing.assert_close(found, torch.full_like(found, expected), rtol=0, atol=5e-3)
    state = memory.state()
    again = only(*["smaller_step"] * smaller).memories(ALPHA)["training"]
    again.load_state(state)
    for kept in (memory, again):
        write(kept, ["a"], [geometry], torch.ones(1, 1, 8, 8, 8))
    assert torch.equal(memory.read(["a"], [geometry]).values["error"], again.read(["a"], [geometry]).values["error"])


def visit_of(patch, outputs=LABELS, seed=0):
    """A visit with random logits, and a random reference that is as often there as not."""
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(3 * random.standard_normal((2, outputs.channels, *patch)))
    reference = torch.from_numpy(random.integers(0, 2, (2, 1, *patch))).bool()
    masks = {"reference": reference, "union": torch.ones_like(reference)}
    return Visit(logits, logits, reference, reference, random_batch(patch, seed), masks, "union")


def pooled(values):
    """The mean of 3³ neighbours, of those that there are, of each sample of (B, 1, …)."""
    element = np.ones((3,) * (values.ndim - 2))
    counts = ndimage.convolve(np.ones(values.shape[2:]), element, mode="constant")
    return np.stack([ndimage.convolve(sample[0], element, mode="constant") / counts for sample in values])[:, None]


def compressed(values, inside):
    """Around one half in the reference of the batch."""
    return 1 / (1 + np.exp(values[inside].mean() - values))


@pytest.mark.parametrize("kind", list(PATCHES))
def test_a_pooled_failure_is_the_mean_of_its_neighbours_in_the_patch(kind):
    visit = visit_of(PATCHES[kind])
    np.testing.assert_allclose(only("pooled").failure(visit), pooled(visit.failure.numpy()), atol=1e-6)
    assert only().failure(visit) is visit.failure


@pytest.mark.parametrize("names", [("inside_reference",), ("inside_reference", "pooled")], ids=["alone", "pooled"])
def test_outside_of_the_reference_nothing_fails(names):
    """What is pooled is 0 there already: near its border a reference looks better than it is."""
    visit = visit_of(PATCHES["3d"])
    wt = 1 - visit.logits.softmax(1)[:, :1].numpy()
    inside = visit.masks["reference"].numpy()
    failure, variance = visit.failure.numpy() * inside, 4 * wt * (1 - wt) * inside
    expected = [pooled(values) if "pooled" in names else values for values in (failure, variance)]
    keeping = only(*names)
    np.testing.assert_allclose(keeping.failure(visit), expected[0], atol=1e-6)
    np.testing.assert_allclose(keeping.variance(visit, LABELS), expected[1], atol=1e-5)
    np.testing.assert_allclose(keeping.shown_variance(visit, LABELS), expected[1], atol=1e-5)


def test_with_shifted_labels_a_right_class_fails_and_the_one_before_it_does_not():
    """By hand, of one voxel per column: channels background, NCR, ED, ET; labels 0 to 3."""
    target = torch.tensor([0, 1, 1, 2, 2, 3])[None, None]
    largest = torch.tensor([2, 1, 2, 2, 3, 3])  # of the three classes, whatever the background says
    logits = torch.nn.functional.one_hot(largest, 4).T[None].float()
    logits[:, 0] = 9
    reference, predicted = target > 0, torch.tensor([True, True, False, False, True, True])[None, None]
    found = only("shifted_labels").fails(logits, target, predicted, reference)
    assert found.flatten().tolist() == [False, True, False, True, False, True]
    found = only().fails(logits, target, predicted, reference)
    assert found.flatten().tolist() == [True, False, True, True, False, False]


def test_compressed_errors_lie_around_one_half_in_the_reference_of_the_batch():
    visit = visit_of((4, 5, 6))
    inside = visit.masks["reference"].numpy()
    error, variance = (torch.from_numpy(np.random.default_rng(n).random((2, 1, 4, 5, 6))) for n in (0, 1))
    reading = Reading({"error": error, "variance": variance}, torch.ones_like(error))
    found = only("compressed").compared(reading, visit).values
    for name, values in {"error": error.numpy(), "variance": variance.numpy()}.items():
        np.testing.assert_allclose(found[name], compressed(values, inside), rtol=1e-6)
    assert only().compared(reading, visit) is reading
    half = torch.zeros_like(error)
    half[:, :, :2] = 1
    partly = only("compressed").compared(Reading({"error": error * half}, half), visit).values["error"].numpy()
    expected = compressed(error.numpy(), inside & (half.numpy() > 0))
    np.testing.assert_allclose(partly[:, :, :2], expected[:, :, :2], rtol=1e-6)


def test_many_visits_are_not_lost_in_rounding():
    """After 6000 visits with a failure in each hundredth: the recursion in double precision."""
    memory, geometry = (
        only("smaller_step").memories(ALPHA)["training"],
        PatchGeometry.from_crop([0] * 3, (8,) * 3, CASE),
    )
    expected = 0.0
    for n in range(1, 6001):
        failed = float(n % 100 == 0)
        expected += (1 if n == 1 else min(1 / n, ALPHA)) * (failed - expected)
        write(memory, ["a"], [geometry], torch.full((1, 1, 8, 8, 8), failed))
    found = memory.read(["a"], [geometry]).values["error"]
    assert float(found.min()) == pytest.approx(expected, rel=1e-2)
    assert float(found.max()) == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize("outputs", [LABELS, REGIONS], ids=["labels", "regions"])
def test_the_variance_across_classes_is_large_where_the_network_is_certain_of_one(outputs):
    """Of labels it is that of each class against the background, for the paper's network has no channel for that."""
    visit = visit_of((4, 5, 6), outputs)
    z = visit.logits.numpy()
    p = 1 / (1 + np.exp(-(z[:, 1:] - z[:, :1] if outputs is LABELS else z)))
    expected = p.var(1, ddof=1, keepdims=True)
    np.testing.assert_allclose(only("variance_of_channels").variance(visit, outputs), expected, rtol=1e-4, atol=1e-7)
    shown = only("variance_of_channels").shown_variance(visit, outputs)
    np.testing.assert_allclose(shown, expected, rtol=1e-4, atol=1e-7)
    one = Outputs("regions", 1, ((1,),), 0)
    single = visit_of((4, 5, 6), one)
    chance = single.logits.sigmoid().numpy()
    of_one = np.concatenate((chance, 1 - chance), axis=1).var(1, ddof=1, keepdims=True)
    np.testing.assert_allclose(only("variance_of_channels").variance(single, one), of_one, rtol=1e-3, atol=1e-7)
    wt = 1 - np.exp(z[:, :1]) / np.exp(z).sum(1, keepdims=True) if outputs is LABELS else p[:, :1]
    np.testing.assert_allclose(only().variance(visit, outputs), 4 * wt * (1 - wt), rtol=1e-3, atol=1e-6)
    assert only().shown_variance(visit, outputs) is None


def test_the_variance_of_one_visit_is_shown_with_all_differences():
    """Compressed first, and pooled then; what is kept is pooled alone."""
    visit = visit_of((4, 5, 6))
    z, inside = visit.logits.numpy(), visit.masks["reference"].numpy()
    variance = (1 / (1 + np.exp(-(z[:, 1:] - z[:, :1])))).var(1, ddof=1, keepdims=True) * inside
    keeping = keeping_of(Memory(published=PublishedMemory()))
    np.testing.assert_allclose(keeping.variance(visit, LABELS), pooled(variance), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(keeping.shown_variance(visit, LABELS), pooled(compressed(variance, inside)), rtol=1e-5)


def test_ours_is_the_default():
    assert keeping_of(Memory()).differences is OURS
    assert not any(value for _, value in OURS)
    memories = keeping_of(Memory()).memories(ALPHA)
    assert {type(memory) for memory in memories.values()} == {ErrorMemory}
    assert memories["training"] is not memories["validation"]
    assert all(value for _, value in PublishedMemory()), "asked for, everything differs"


def sections(**differences):
    published = dict.fromkeys(PublishedMemory.model_fields, False) | differences
    return {"memory": {"published": published}, "loss": {"warmup_epochs": 0}, **SHORT}


def first_step(trainer_for, **differences):
    """Return the terms of the loss of the first step, and the trainer."""
    trainer = trainer_for("_".join(differences) or "none", **sections(**differences))
    with torch.no_grad():  # a wide range of u, so that it and the map correlate differently
        trainer.network.backbone.decoder.seg_layers[-1].weight[-1] *= 30

    def stop(*_args):
        raise Stopped

    trainer.descend = stop
    with pytest.raises(Stopped):
        train(trainer)
    return trainer._means.means(), trainer


def test_written_first_a_step_meets_its_own_failure(trainer_for):
    """In the first step our memory is empty, and that one holds this very failure."""
    ours, _ = first_step(trainer_for)
    theirs, _ = first_step(trainer_for, writes_first=True)
    assert ours["train/loss_unc"] == 0
    assert theirs["train/loss_unc"] > 0
    assert ours["train/loss_seg"] == theirs["train/loss_seg"]


def test_the_correlation_of_the_raw_logit_is_trained(trainer_for):
    """1 − Pearson of u and the failure that was just written, in the reference; the map's differs."""
    found = []
    for raw in (False, True):
        means, trainer = first_step(trainer_for, slots=True, writes_first=True, raw_logit=raw)
        batch = next(trainer.get_dataloaders()[0])
        with torch.no_grad():
            logits, u = trainer.network.train()(batch["data"], uncertainty=True)
        logits = logits[0] if isinstance(logits, list) else logits
        target = batch["target"][0] if isinstance(batch["target"], list) else batch["target"]
        failure, inside = ((logits.argmax(1)[:, None] > 0) != (target > 0)).numpy(), (target > 0).numpy()
        values = u.double().numpy() if raw else u.double().sigmoid().numpy()
        correlations = []
        for own, wrong, mask in zip(values, failure, inside, strict=True):
            if mask.sum() >= 50 and wrong[mask].std() > 1e-4:
                correlations.append(np.corrcoef(own[mask], wrong[mask])[0, 1])
        found.append(means["train/loss_one_minus_corr"])
        assert found[-1] == pytest.approx(1 - np.mean(correlations), abs=2e-3)
    assert abs(found[0] - found[1]) > 0.01


def test_a_training_with_all_differences_goes_on_as_it_was(trainer_for):
    asked = {"training": {"epochs": 4, "iterations_per_epoch": 3, "checkpoint_every": 2}, "memory": {"published": {}}}
    whole = trainer_for("whole", **asked)
    metrics = train(whole)[3]
    assert whole.memories["training"] is whole.memories["validation"]
    # a place in the batch finds every voxel visited, whatever anatomy it shows
    assert metrics["uncertainty/memory/visited_share_union"] == 1
    assert 0.4 < metrics["uncertainty/memory/mean_error_val_union"] < 0.6, "compressed"
    second = train_in_two_parts(trainer_for, 2, **asked)
    torch.testing.assert_close(whole.network.state_dict(), second.network.state_dict(), rtol=0, atol=0)
    size = tuple(whole.configuration_manager.patch_size)
    case = whole.get_tr_and_val_datasets()[1].identifiers[0]
    patch = choose_patch(whole.preprocessed_dataset_folder, [case], size, task=paper_task())
    assert not observe(whole, patch).error.any(), "nothing is known of a place in a case"
