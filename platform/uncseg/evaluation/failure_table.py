"""Tables 3 and 4: how well each map tells where the segmentation is wrong, beside the floors of the same network.

``per_case`` has one row per case: case, patient, and the keys of :func:`~uncseg.metric_keys.case_key`; ``per_region``
one per case and region. All maps judge the same decisions: Table 3 those on the main region, Table 4 those on each
region, by its own maps. They are of one pass, but for the second opinions of Table 3, of several predictions. The mask
is the union of a region's reference and prediction, dilated.
"""

import math

import pandas as pd

from uncseg.estimators.registry import (
    AGAINST_DECISION,
    CALIBRATED,
    CROSS_FITTED,
    FLOORS,
    HEAD,
    NO_FURTHER_PASS,
    ORACLE,
    SECOND_OPINIONS,
)
from uncseg.evaluation.figures import CONSTANT, HIGHER, Figure, best_floor, shown_in
from uncseg.evaluation.summary import bootstrap_mean
from uncseg.metric_keys import case_key, opinion_key
from uncseg.page_table import PageTable, Row, fixed, with_interval
from uncseg.tasks.task import Task

PROTOCOL = "union"
JUDGED = {HEAD: "the uncertainty head", CROSS_FITTED: "the cross-fitted map"}
"""Maps that a network is trained for, and what a sentence calls them."""


def table3(per_case: pd.DataFrame) -> pd.DataFrame:
    """Return one row per map that the cases have.

    The columns are estimator, floor (bool), and for each figure of the table KEY, the mean over cases, with KEY_low and
    KEY_high, its 95 % interval over patients. For the maps of :data:`JUDGED` also KEY_floor, the best floor, and
    KEY_lead, by how much the map is better than it on the same cases (positive: better), with KEY_lead_low and
    KEY_lead_high. NaN where no value is valid, and for intervals of fewer than 10 patients.
    """
    figures = shown_in("table3")
    columns = _columns(per_case, figures)
    rows: dict[str, dict[str, object]] = {name: {"estimator": name, "floor": name in FLOORS} for name in columns}
    for key, figure in figures.items():
        means = {name: float(per_case[own[key]].mean()) for name, own in columns.items()}
        for name, own in columns.items():
            low, high = bootstrap_mean(per_case[own[key]], per_case["patient"])
            rows[name] |= {key: means[name], f"{key}_low": low, f"{key}_high": high}
        # the constant is each case's own share of failures, whose calibration error is 0 by definition
        best = best_floor({name: v for name, v in means.items() if (name, figure.kind) != (CONSTANT, "ece")}, key)
        for name in JUDGED.keys() & columns.keys():
            rows[name] |= _lead(per_case, columns[name][key], None if best is None else columns[best][key], figure)
            rows[name][f"{key}_floor"] = best
    ends = ("", "_low", "_high", "_floor", "_lead", "_lead_low", "_lead_high")
    names = ["estimator", "floor", *(f"{key}{end}" for key in figures for end in ends)]
    return pd.DataFrame(rows.values(), columns=names)


def table4(per_region: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of :func:`table3` of each region, behind a column region, in the order of the regions."""
    parts = {str(region): table3(part) for region, part in per_region.groupby("region", sort=False)}
    named = [part.assign(region=region) for region, part in parts.items()]
    return pd.concat(named, ignore_index=True)[["region", *named[0].columns.drop("region")]]


def _columns(per_case: pd.DataFrame, figures: dict[str, Figure]) -> dict[str, dict[str, str]]:
    """Return each map that the cases have, in the order of the registry, with the column of each figure."""
    one_pass = {
        name: {key: case_key(name, PROTOCOL, figure.kind) for key, figure in figures.items()}
        for name in (*NO_FURTHER_PASS, ORACLE)
    }
    opinions = {
        name: {key: opinion_key(name, figure.kind) for key, figure in figures.items()} for name in SECOND_OPINIONS
    }
    return {name: own for name, own in (one_pass | opinions).items() if {*own.values()} <= {*per_case.columns}}


def _lead(per_case: pd.DataFrame, own: str, floor: str | None, figure: Figure) -> dict[str, float]:
    """Return how much better a map is than a floor on the cases for which both are valid, with its interval."""
    lead = low = high = math.nan
    if floor is not None:
        better = (per_case[own] - per_case[floor]) * (1 if figure.better == HIGHER else -1)
        lead, (low, high) = float(better.mean()), bootstrap_mean(better, per_case["patient"])
    return {f"{figure.key}_lead": lead, f"{figure.key}_lead_low": low, f"{figure.key}_lead_high": high}


def failures_table(table: pd.DataFrame, task: Task) -> PageTable:
    """Return :func:`table3` for people."""
    note = (
        f"Maps of one pass against the failures of {task.main_region} out of fold, inside the union of reference and "
        "prediction, dilated by 2 voxels. Mean over cases [95 % interval, patients resampled; needs 10 patients]. "
        "AUPRC of failures: average precision of finding wrong voxels; Brier score: mean squared difference; ECE: "
        "expected calibration error. * floor: of the same network and pass, and no network is trained for it; "
        f"{CALIBRATED}: fitted on the other folds' cases."
    )
    opinions = table["estimator"].isin(SECOND_OPINIONS)
    rows = _rows(table[~opinions])
    if opinions.any():
        rows += [Row(["second opinions, of several predictions"], "part"), *_rows(table[opinions])]
        note += (
            " Second opinions judge the run's own segmentation, too: the spread of the predictions, and "
            f"…_{AGAINST_DECISION}, |p − decision| with their mean p. They are no floors: most take several passes."
        )
    return _page("table3", "Table 3. Where the segmentation is wrong", rows, note)


def regions_table(table: pd.DataFrame) -> PageTable:
    """Return :func:`table4` for people."""
    rows = []
    for region, part in table.groupby("region", sort=False):
        rows += [Row([str(region)], "part"), *_rows(part)]
    note = (
        "Each region's own maps against the failures of the decision on it, inside the union of its reference and "
        "prediction, dilated by 2 voxels; cases in which all of that is right, or all wrong, count for nothing. "
        "Otherwise as in Table 3."
    )
    return _page("table4", "Table 4. Where each region is wrong", rows, note)


def _rows(table: pd.DataFrame) -> list[Row]:
    rows = []
    for row in table.to_dict("records"):
        cells = [with_interval(row[key], row[f"{key}_low"], row[f"{key}_high"], 3) for key in shown_in("table3")]
        kind = "floor" if row["floor"] else "strong" if row["estimator"] in JUDGED else ""
        rows.append(Row([f"{row['estimator']}{' *' if row['floor'] else ''}", *cells], kind))
    return rows


def _page(name: str, title: str, rows: list[Row], note: str) -> PageTable:
    heads = {figure.label: figure.short for figure in shown_in("table3").values()}
    return PageTable(name, title, ["estimator", *heads], rows, note, terminal={"estimator": "estimator", **heads})


def verdicts(table: pd.DataFrame) -> list[str]:
    """Return one sentence per trained map and figure of :func:`table3`: whether it is better than the best floor."""
    lines = []
    for row in table[table["estimator"].isin(list(JUDGED))].to_dict("records"):
        for key, figure in shown_in("table3").items():
            lines.append(f"union mask, {figure.label}: {JUDGED[row['estimator']]} {_verdict(row, key)}")
    return lines


def _verdict(row: dict, key: str) -> str:
    best, lead, low, high = row[f"{key}_floor"], *(row[f"{key}_lead{end}"] for end in ("", "_low", "_high"))
    if not isinstance(best, str) or math.isnan(lead):
        return "has no valid value, or the floors have none, so nothing is shown."
    by = f"({best}) by {with_interval(lead, low, high, 3, signed=True)}, paired over patients"
    value = fixed(row[key], 3)
    if math.isnan(low):
        return f"{value} differs from the best floor's {by}; fewer than 10 patients, unproven."
    if low > 0:
        return f"{value} is better than the best floor's {by}."
    if high < 0:
        return f"{value} is worse than the best floor's {by}."
    return f"{value} is not told apart from the best floor's {by}."
