"""Calibrated p: its numbers against those that made the data, and its formula voxel by voxel."""

import math

import numpy as np
import pytest
import torch

from uncseg.method.failures.calibration import AT_ITS_WORD, Calibration, calibrated_logits, fit_calibration
from uncseg.method.failures.margins import about_decisions, against_decision, clipped_logit


def test_the_numbers_that_made_the_failures_are_found():
    random = np.random.default_rng(0)
    logits, decisions = random.normal(0, 2, 400_000), random.random(400_000) < 0.4
    margins = np.where(decisions, logits, -logits)
    chance = 1 / (1 + np.exp(-(-0.7 - 0.5 * margins + 1.2 * decisions + 0.3 * margins * decisions)))
    found = fit_calibration(logits, decisions, random.random(len(chance)) < chance)
    assert vars(found) == pytest.approx({"intercept": -0.7, "margin": -0.5, "side": 1.2, "both": 0.3}, abs=0.03)


@pytest.mark.parametrize(("p", "chosen"), [(0.9, True), (0.3, True), (0.3, False), (0.02, False)])
def test_each_side_of_a_decision_has_numbers_of_its_own(p, chosen):
    calibration = Calibration(-1.0, -0.5, 0.8, 0.2)
    margin = math.log(p / (1 - p)) if chosen else math.log((1 - p) / p)
    expected = -1.0 - 0.5 * margin + chosen * (0.8 + 0.2 * margin)
    told = torch.tensor(clipped_logit(np.array([p]))), torch.tensor([chosen])
    assert calibration.logit(*told).item() == pytest.approx(expected, abs=1e-5)


def test_without_enough_failures_a_probability_is_taken_at_its_word():
    random = np.random.default_rng(0)
    logits, decisions = random.normal(0, 2, 1000), random.random(1000) < 0.5
    few = np.arange(1000) < 19
    assert fit_calibration(logits, decisions, few) == fit_calibration(logits, decisions, ~few) == AT_ITS_WORD
    p = np.array([0.8, 0.8])
    found = AT_ITS_WORD.logit(torch.tensor(clipped_logit(p)), torch.tensor([True, False])).sigmoid()
    assert found.tolist() == pytest.approx([0.2, 0.8], abs=1e-6)


def test_decisions_of_one_side_alone_are_calibrated_too():
    random = np.random.default_rng(0)
    logits = random.normal(0, 2, 50_000)
    wrong = random.random(50_000) < 1 / (1 + np.exp(0.3 + 0.6 * logits))
    found = fit_calibration(logits, np.ones(50_000, bool), wrong)
    assert (found.intercept, found.margin) == pytest.approx((-0.3, -0.6), abs=0.05)
    assert (found.side, found.both) == (0, 0)


def test_each_region_has_numbers_of_its_own():
    first, second = Calibration(-1.0, 0.0, 0.0, 0.0), Calibration(2.0, 0.0, 0.0, 0.0)
    logits = torch.zeros(3, 2, 4, 5, 6)
    found = calibrated_logits([first, second], logits, torch.zeros(3, 2, 4, 5, 6, dtype=torch.bool))
    assert found.shape == logits.shape
    assert set(found[:, 0].flatten().tolist()) == {-1.0}
    assert set(found[:, 1].flatten().tolist()) == {2.0}


def test_an_opinion_on_a_decision_holds_for_the_opposite_one():
    own, others = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert about_decisions(np.array([0.2, 0.2, 0.1, 0.1]), own, others).tolist() == [0.2, 0.8, 0.9, 0.1]


def test_an_opinion_against_a_decision_depends_on_what_was_decided():
    p, decisions = np.array([0.9, 0.9, 0.2, 0.2], np.float32), np.array([True, False, False, True])
    assert against_decision(p, decisions).tolist() == pytest.approx([0.1, 0.9, 0.2, 0.8], rel=1e-6)


def test_certain_probabilities_have_finite_logits():
    assert clipped_logit(np.array([0.0, 0.5, 1.0])).tolist() == pytest.approx([-9.2, 0, 9.2])
