"""Tune's snapshots of a sweep: whether Tune can go on from one, also after a kill that left one half-written.

The files of each command belong to a session, named by the time at which the command began. Tune reads the newest file
of each kind; if it cannot read one, it only logs that, and draws all trials again.
"""

import shutil
from itertools import product

from ray import cloudpickle

from uncseg.cluster.ray_internals import snapshot_files
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json
from uncseg.ownership import is_own
from uncseg.studies.study_folder import SweepFolder
from uncseg.studies.sweep.load_sweep import OPTUNA
from uncseg.studies.sweep.sweep_file import Sweep
from uncseg.studies.sweep.trials import VALUES


def refuse_strangers_state(folder: SweepFolder) -> None:
    """Refuse a state of Tune's in a folder that is not the user's own: reading it runs the code that it holds.

    Raises:
        ProblemsFound: there is one.
    """
    if (folder.tune.is_symlink() or folder.tune.exists()) and not is_own(folder.root):
        found = "a state of the search that can run code, in a folder that you did not make here"
        advice = "add --trust if you know where it comes from, or write another name for a new search"
        problem = Problem(str(folder.tune), found, "a folder of your own, at its place", advice)
        raise ProblemsFound("The sweep cannot go on with its trials.", [problem])


def can_go_on(folder: SweepFolder, sweep: Sweep) -> bool:
    """Return whether Tune can go on from a snapshot, which runs the code that it holds.

    Torn snapshots are renamed, and the newest whole one takes their place.

    Raises:
        ProblemsFound: trials have begun, and no snapshot can be read.
    """
    kinds = snapshot_files(sweep.search.type in OPTUNA)
    sessions = _sessions(folder, kinds)
    whole = next((session for session in sessions if _is_whole(folder, session, kinds)), None)
    torn = sessions if whole is None else sessions[: sessions.index(whole)]
    if whole is None and any(folder.runs.glob(f"*/{VALUES}")):
        found = "trials, and no state of the search that can be read" + (": all are torn" if torn else "")
        advice = f"write another name for a new search, or delete {folder.root} to start over"
        problem = Problem(str(folder.tune), found, "what the search has drawn and learned", advice)
        raise ProblemsFound("The sweep cannot go on with its trials.", [problem], exit_code=1)
    for session, file in product(torn, kinds):
        damaged = folder.tune / file.format(session)
        if damaged.exists():
            damaged.replace(damaged.with_name(f"{damaged.name}.damaged"))
        if whole is not None:
            # under the same name: on a cluster that is still up Tune has a copy of the torn file, and this replaces it
            shutil.copyfile(folder.tune / file.format(whole), damaged)
    return whole is not None


def _sessions(folder: SweepFolder, kinds: tuple[str, ...]) -> list[str]:
    """Return all sessions that have written a file, the newest first."""
    found = set()
    for kind in kinds:
        before, _, after = kind.partition("{}")
        found |= {file.name[len(before) : -len(after)] for file in folder.tune.glob(f"{before}*{after}")}
    return sorted(found, reverse=True)


def _is_whole(folder: SweepFolder, session: str, kinds: tuple[str, ...]) -> bool:
    state, *pickles = (folder.tune / kind.format(session) for kind in kinds)
    try:
        content = read_json(state)
        for file in pickles:
            cloudpickle.loads(file.read_bytes())
    except Exception:  # unpickling a torn file can raise anything
        return False
    return bool(content["trial_data"])
