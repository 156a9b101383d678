"""The preprocessing of one case for training, with nnU-Net's classes; nnU-Net is imported only where it is used."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from uncseg.dataset.case_volumes import read_case_volumes
from uncseg.dataset.cases import Case, oracle_path
from uncseg.dataset.finite import naming, require_finite_channels
from uncseg.dataset.preparation import REMAKE, raw_images, raw_reference
from uncseg.dataset.volumes import read_volume, write_array
from uncseg.errors import Problem, ProblemsFound, first_line
from uncseg.files import digest, file_states, move_whole, not_whole, read_json
from uncseg.kept_records import compute_once, is_whole
from uncseg.layout import PreparedFolder
from uncseg.partial_files import partial_folder
from uncseg.tasks.task import Task


def preprocess_case(prepared: PreparedFolder, case: Case, configuration: str, task: Task) -> list[Problem]:
    """Read a case once; put it into the raw folder; crop, normalise and resample it with nnU-Net's preprocessor.

    A case that was prepared with these plans, and whose files are as they were written then, is skipped.

    Returns:
        The problems of its files, or one for each channel whose values are not finite then; such a case gets no files.
    """
    plans = read_json(prepared.plans, REMAKE)
    source = digest([plans, configuration, file_states(case.files)])
    how = prepared, case, plans, configuration, task
    try:
        with naming(case.case_id):
            compute_once(_record(prepared, case), source, lambda: _preprocess(*how))
    except ProblemsFound as error:
        return error.problems
    return []


def damaged_cases(prepared: PreparedFolder, cases: Sequence[Case]) -> list[Case]:
    """Return the cases of a finished preparation whose files are missing, damaged or changed.

    Only their sizes are looked at where files are large and older than the case's record.
    """
    return [case for case in cases if not is_whole(_record(prepared, case))]


def _record(prepared: PreparedFolder, case: Case) -> Path:
    return prepared.records / f"{case.case_id}.json"


def _preprocess(
    prepared: PreparedFolder, case: Case, content: dict[str, Any], configuration: str, task: Task
) -> dict[str, Any]:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from uncseg.dataset.nnunet_case import LoadedCasePlans, write_raw_case

    plans = PlansManager(content)
    settings = plans.get_configuration(configuration)
    folder = prepared.dataset / settings.data_identifier
    volumes = read_case_volumes(case, task)
    written = write_raw_case(volumes, prepared.raw_dataset / "imagesTr", prepared.raw_dataset / "labelsTr")
    # in a folder of its own: nnU-Net takes every .b2nd file in the dataset's folder for a case
    with partial_folder(prepared.root) as partial:
        images, reference = raw_images(prepared, case.case_id, task), str(raw_reference(prepared, case.case_id))
        described = LoadedCasePlans(content, volumes), settings, read_json(prepared.dataset / "dataset.json", REMAKE)
        with contextlib.redirect_stdout(None), np.errstate(over="ignore", invalid="ignore"):
            preprocessor, arrays = checked(settings.preprocessor_class(verbose=False), task)
            preprocessor.run_case_save(str(partial / case.case_id), images, reference, *described)
        _require_stored(partial, case.case_id, arrays)
        for ending in (".b2nd", "_seg.b2nd", ".pkl"):
            move_whole(partial / f"{case.case_id}{ending}", folder / f"{case.case_id}{ending}")
            written.append(folder / f"{case.case_id}{ending}")
    written += _write_oracle(prepared, case, plans, settings)
    return {"files": [os.path.relpath(file, prepared.records) for file in written]}


def _require_stored(folder: Path, case_id: str, arrays: list[np.ndarray]) -> None:
    """Compare what Blosc2, which does not tell when a disk is full, has stored with what it was given."""
    from uncseg.dataset.prepared_cases import PreparedCases

    try:
        data, reference, _, _ = PreparedCases(str(folder), [case_id]).load_case(case_id)
        same = all(np.array_equal(own[:], given) for own, given in zip((data, reference), arrays, strict=True))
    except Exception as error:  # whatever Blosc2 or pickle says of half a file
        raise not_whole(folder / case_id, first_line(error)) from error
    if not same:
        raise not_whole(folder / case_id, "other voxels")


def checked(preprocessor: Any, task: Task) -> tuple[Any, list[np.ndarray]]:
    """Let nnU-Net's preprocessor refuse a case of a task whose values are not finite, before it saves it.

    Returns:
        The preprocessor, and a list that has the images and the reference once they are saved.
    """
    run_case = preprocessor.run_case
    arrays: list[np.ndarray] = []

    def run_case_and_check(*arguments: Any) -> Any:
        data, reference, properties = run_case(*arguments)
        require_finite_channels(data, task.modalities)
        arrays.extend((data, reference))
        return data, reference, properties

    preprocessor.run_case = run_case_and_check
    return preprocessor, arrays


def _write_oracle(prepared: PreparedFolder, case: Case, plans: Any, settings: Any) -> list[Path]:
    """Write a phantom's q on the preprocessed grid, transposed, cropped and, if necessary, resampled linearly.

    Returns:
        The file; nothing if the case is no phantom.
    """
    q_file, target = oracle_path(case), prepared.oracle / f"{case.case_id}.npy"
    if q_file is None:
        return []
    from uncseg.dataset.prepared_cases import PreparedCases

    folder = str(prepared.dataset / settings.data_identifier)
    data, _, _, properties = PreparedCases(folder, [case.case_id]).load_case(case.case_id)
    q = read_volume(q_file).voxels.transpose(plans.transpose_forward)
    box = tuple(slice(lower, upper) for lower, upper in properties["bbox_used_for_cropping"])
    resampled = q[box][None].astype(np.float32)
    if resampled.shape[1:] != data.shape[1:]:
        spacing = [properties["spacing"][i] for i in plans.transpose_forward]
        # a 2D configuration does not change the spacing between slices
        target_spacing = settings.spacing if len(settings.spacing) == 3 else [spacing[0], *settings.spacing]
        resampled = np.asarray(settings.resampling_fn_probabilities(resampled, data.shape[1:], spacing, target_spacing))
    write_array(target, resampled[0].astype(np.float16))
    return [target]
