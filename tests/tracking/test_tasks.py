"""Final figures and the model card of runs of other tasks: regions, labels and images by their own names."""

from typing import get_args

import numpy as np
import pandas as pd
import pytest
import yaml

from support.own_tasks import LIVER, PROSTATE
from uncseg.config.failures import LEARNERS
from uncseg.config.training_sections import Memory, Model
from uncseg.evaluation.failure_table import table3
from uncseg.evaluation.tables import table1, table2
from uncseg.files import json_text, write_json
from uncseg.layout import RunFolder
from uncseg.table_files import write_table
from uncseg.tasks.built_in_tasks import built_in, paper_task
from uncseg.tracking.final_figures import describe, final_figures
from uncseg.tracking.model_card import HEADS, LEARNS_BY, SOURCES, describe_model, write_card

POST = built_in("gli-2024")
TASKS = [POST, PROSTATE, LIVER]


def evaluated(root, task):
    """A run of two folds with four cases; region number n has a Dice of 0.9 − n/10, and an ECE of n/100."""
    run = RunFolder(root / "run")
    run.root.mkdir()
    experiment = {"name": "run", "dataset": {"name": "Small", "task": task.model_dump(mode="json")}}
    run.experiment.write_text(yaml.safe_dump(experiment, sort_keys=False))
    rows, scores = [], []
    for number in range(4):
        keys = {"case": str(number), "patient": str(number), "fold": number % 2}
        dices = {f"dice_{key}": 0.9 - place / 10 for place, key in enumerate(task.region_keys.values())}
        expected = {f"expected_dice_{task.main_key}": (number + 1) / 10}
        rows.append(keys | dices | {"dice_mean": 0.5} | expected)
        for place, region in enumerate(task.regions):
            scores.append(
                keys | {"region": region, "dice": 0.9 - place / 10, "hd95_mm": 1.0 + place, "ece": place / 100}
            )
    per_case = pd.DataFrame(rows)
    write_table(per_case, run.tables, "per_case")
    write_table(pd.DataFrame(scores), run.tables, "scores")
    write_table(table1(per_case, task), run.tables, "table1")
    write_table(table2(per_case, pd.DataFrame({"fold": [], "epoch": []}), 3, task), run.tables, "table2")
    write_table(table3(per_case), run.tables, "table3")
    return run


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_final_figures_have_the_names_of_the_regions(tmp_path, task):
    run = evaluated(tmp_path, task)
    figures = final_figures(run)
    dices = {
        name: value for name, value in figures.run.items() if name.startswith("final/dice_") and "_std" not in name
    }
    keys = list(task.region_keys.values())
    assert dices == pytest.approx(
        {f"final/dice_{key}": 0.9 - n / 10 for n, key in enumerate(keys)} | {"final/dice_mean": 0.5}
    )
    for place, key in enumerate(keys):
        assert figures.folds[1][f"final/hd95_mm_{key}"] == 1 + place
    main = list(task.regions).index(task.main_region)
    assert {name for name in figures.run if "ece" in name and "_std" not in name} == {f"final/ece_{task.main_key}"}
    assert figures.run[f"final/ece_{task.main_key}"] == pytest.approx(main / 100)
    first, second, _ = describe(run, "page").splitlines()
    assert second.strip() == "**AUPRC of failures**, union mask: none valid"  # the maps of these cases have no figures
    assert all(f"{region} {0.9 - n / 10:.3f} ± 0.000" in first for n, region in enumerate(task.regions))


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_the_card_says_what_the_labels_mean(tmp_path, task):
    run = evaluated(tmp_path, task)
    about = describe_model(run, yaml.safe_load(run.experiment.read_text()), {}, [0, 1])
    json_text(about)  # what a file can hold
    assert about["task"] == task.name
    assert about["channels"] == list(task.modalities)
    assert about["labels"] == {str(number): label for label, number in task.labels.items()}
    assert about["regions"] == {region: list(numbers) for region, numbers in task.numbers.items()}
    assert about["main_region"] == task.main_region
    assert about["review_below"] == pytest.approx(np.quantile([0.1, 0.2, 0.3, 0.4], 0.2))
    card = write_card(run, about, "run", "candidate")
    assert f'found["expected_dice_{task.main_key}"]' in card
    assert f"({len(task.modalities)}, D, H, W)" in card
    assert ("CASE_0001.nii.gz" in card) == (len(task.modalities) == 2)
    for number, name in enumerate(task.modalities):
        assert f"{number} {name}" in card
    for label, number in task.labels.items():
        assert f"{number} {label}" in card
    assert f"| {' | '.join(f'Dice {region}' for region in task.regions)} | mean |" in card
    assert "brain tumour" not in card
    for other in {"WT", "NCR", "t1n"} - {*task.regions, *task.labels, *task.modalities}:
        assert other not in card


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"model": {"uncertainty": True}, "loss": {"cancer_mask": "union"}, "memory": {"source": "cases"}},
            [
                "| uncertainty map | one more channel of the last layer; trained on the running average of the "
                "network's own errors |",
                "| mask of the loss | union |",
                "| split | by patient, digest",
            ],
        ),
        (
            {
                "model": {"uncertainty": True, "head": "decoder_stages", "residual": True},
                "memory": {"source": "members", "run": "plain"},
                "split": {"drawn": "cases", "allow_shared_patients": True},
            },
            [
                "| uncertainty map | own layers on all decoder stages, added to calibrated p; trained on where the "
                "members of the run plain disagree with the network's own decision |",
                "| split | case by case; a patient may be in several, digest",
            ],
        ),
        (
            {"model": {"uncertainty": True, "error_network": {"run": "plain"}}, "loss": {"cancer_mask": "union"}},
            ["| uncertainty map | a second network, which judges the run plain |", "| mask of the loss | union |"],
        ),
        ({"model": {"uncertainty": False}}, ["| failures | learnt from the other folds by 150 boosted trees or a "]),
    ],
)
def test_the_card_says_what_gives_the_uncertainty(tmp_path, settings, said):
    run = evaluated(tmp_path, paper_task())
    for fold, learner in enumerate(({"perceptron": 32, "trees": 0}, {"perceptron": 0, "trees": 150})):
        write_json(run.fold(fold) / "failures.json", {"settings": learner})
    about = describe_model(run, yaml.safe_load(run.experiment.read_text()), {}, [0, 1])
    about["settings"] |= settings
    card = " ".join(write_card(run, about, "run", "candidate").split())
    for words in said:
        assert words in card
    assert ("| uncertainty map" in card) == ("| mask of the loss" in card) == settings["model"]["uncertainty"]


def test_the_card_has_words_for_every_head_source_and_learner():
    fields = Model.model_fields["head"], Memory.model_fields["source"]
    assert [set(get_args(field.annotation)) for field in fields] == [set(HEADS), set(SOURCES)]
    assert set(LEARNS_BY) == set(LEARNERS)


def test_the_card_of_the_paper_explains_its_labels(tmp_path):
    run = evaluated(tmp_path, paper_task())
    about = describe_model(run, yaml.safe_load(run.experiment.read_text()), {}, [0, 1])
    card = " ".join(write_card(run, about, "run", "candidate").split())
    assert "1 NCR (necrotic core), 2 ED (oedema), 3 ET (enhancing tumour)" in card
    assert "0 t1n (T1), 1 t1c (T1 with contrast), 2 t2w (T2), 3 t2f (FLAIR)" in card
    assert "expected Dice of WT (whole tumour) is below" in card
    assert "WT (whole tumour) of NCR, ED, ET; TC (tumour core) of NCR, ET; ET (enhancing tumour) of ET" in card
    assert "CASE_0003.nii.gz" in card


def test_the_description_leads_with_the_trained_map_and_the_best_floor(tmp_path):
    run = evaluated(tmp_path, TASKS[0])
    maps = {"cross_fitted": 0.5, "calibrated": 0.45, "min_p": 0.3, "border_distance": 0.2}
    kinds = ("auprc", "brier", "ece", "corr")
    cases = [{f"{name}/union/{kind}_failure": value for name, value in maps.items() for kind in kinds}] * 12
    keys = pd.DataFrame({"case": [f"c{n}" for n in range(12)], "patient": [f"p{n}" for n in range(12)]})
    write_table(table3(pd.concat([keys, pd.DataFrame(cases)], axis=1)), run.tables, "table3")
    line = describe(run, "page").splitlines()[1].strip()
    values = "cross_fitted 0.500 [0.500, 0.500]; best floor, calibrated 0.450 [0.450, 0.450]"
    assert line == f"**AUPRC of failures**, union mask: {values}"
