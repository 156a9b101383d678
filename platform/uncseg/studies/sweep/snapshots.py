"""Tune's snapshots of a sweep: whether one of them can be gone on from, also after a kill in the middle of writing one.

Each command writes the files of a session of its own, named by the time at which it began, and Tune goes on from the
newest of each kind. Of a state that it cannot read it says so in its log, and draws all trials again.
"""

import shutil
from pathlib import Path

from ray import cloudpickle

from uncseg.cluster.ray_internals import snapshot_files
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json
from uncseg.studies.sweep.load_sweep import OPTUNA
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.trials import VALUES


def can_go_on(tune: Path, trials: Path, sweep: Sweep) -> bool:
    """Whether Tune can go on from a snapshot. Those that are torn are set aside, and the newest whole one stands in.

    Args:
        tune: Tune's own folder.
        trials: in which a folder for each trial lies.
        sweep: what they are trials of.

    Raises:
        ProblemsFound: trials have begun, and no snapshot can be read.
    """
    kinds = snapshot_files(sweep.search.type in OPTUNA)
    torn, whole = [], None
    for session in _sessions(tune, kinds):
        if _is_whole(tune, session, kinds):
            whole = session
            break
        torn.append(session)
    if whole is None and any(trials.glob(f"*/{VALUES}")):
        found = "trials, and no state of the search that can be read" + (": all are torn" if torn else "")
        advice = f"write another name for a new search, or delete {tune.parent} to start over"
        problem = Problem(str(tune), found, "what the search has drawn and heard", advice)
        raise ProblemsFound("The sweep cannot go on with its trials.", [problem], exit_code=1)
    for session in torn:
        for kind in kinds:
            _replace(tune / kind.format(session), None if whole is None else tune / kind.format(whole))
    return whole is not None


def _sessions(tune: Path, kinds: tuple[str, ...]) -> list[str]:
    """All that have written a file, the newest first."""
    found = set()
    for kind in kinds:
        before, _, after = kind.partition("{}")
        found |= {file.name[len(before) : -len(after)] for file in tune.glob(f"{before}*{after}")}
    return sorted(found, reverse=True)


def _is_whole(tune: Path, session: str, kinds: tuple[str, ...]) -> bool:
    try:
        content = read_json(tune / kinds[0].format(session))
        for kind in kinds[1:]:
            with (tune / kind.format(session)).open("rb") as stream:
                cloudpickle.load(stream)
    except Exception:  # unpickling what is torn ends in whatever the bytes happen to say
        return False
    return bool(content["trial_data"])


def _replace(torn: Path, whole: Path | None) -> None:
    if torn.exists():
        torn.replace(torn.with_name(f"{torn.name}.damaged"))
    if whole is not None:
        # under the same name: on a cluster that is still up Tune has a copy of the torn one, which this overwrites
        shutil.copyfile(whole, torn)
