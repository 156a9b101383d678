"""The preprocessing of one case for training, with nnU-Net's classes; nnU-Net is imported only where it is used."""

import contextlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from uncseg.dataset.case_volumes import read_case_volumes
from uncseg.dataset.cases import Case, oracle_path
from uncseg.dataset.finite import naming, require_finite_channels
from uncseg.dataset.preparation import raw_images, raw_reference
from uncseg.dataset.volumes import read_volume
from uncseg.errors import Problem, ProblemsFound
from uncseg.files import read_json, whole_file
from uncseg.layout import PreparedFolder
from uncseg.tasks.task import Task


def preprocess_case(prepared: PreparedFolder, case: Case, configuration: str, task: Task) -> list[Problem]:
    """Read a case once; put it into the raw folder; crop, normalise and resample it with nnU-Net's preprocessor.

    Its files are complete or absent; a case that has them is skipped.

    Returns:
        The problems of its files, or one for each channel whose values are not finite then; such a case gets no files.
    """
    try:
        with naming(case.case_id):
            _preprocess(prepared, case, configuration, task)
    except ProblemsFound as error:
        return error.problems
    return []


def _preprocess(prepared: PreparedFolder, case: Case, configuration: str, task: Task) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    from uncseg.dataset.nnunet_case import LoadedCasePlans, write_raw_case

    content = read_json(prepared.plans)
    plans = PlansManager(content)
    settings = plans.get_configuration(configuration)
    folder = prepared.dataset / settings.data_identifier
    files = [f"{case.case_id}{ending}" for ending in (".b2nd", "_seg.b2nd", ".pkl")]
    if not all((folder / file).is_file() for file in files):
        volumes = read_case_volumes(case, task)
        write_raw_case(volumes, prepared.raw_dataset / "imagesTr", prepared.raw_dataset / "labelsTr")
        folder.mkdir(parents=True, exist_ok=True)
        # in a folder of its own: nnU-Net takes every .b2nd file in the dataset's folder for a case
        with tempfile.TemporaryDirectory(prefix=".part-", dir=prepared.root) as partial:
            images, reference = raw_images(prepared, case.case_id, task), str(raw_reference(prepared, case.case_id))
            described = LoadedCasePlans(content, volumes), settings, read_json(prepared.dataset / "dataset.json")
            with contextlib.redirect_stdout(None), np.errstate(over="ignore", invalid="ignore"):
                preprocessor = checked(settings.preprocessor_class(verbose=False), task)
                preprocessor.run_case_save(str(Path(partial) / case.case_id), images, reference, *described)
            for file in files:
                (Path(partial) / file).replace(folder / file)
    _write_oracle(prepared, case, plans, settings)


def checked(preprocessor: Any, task: Task) -> Any:
    """Let nnU-Net's preprocessor refuse a case of a task whose values are not finite, before it saves it."""
    run_case = preprocessor.run_case

    def run_case_and_check(*arguments: Any) -> Any:
        data, reference, properties = run_case(*arguments)
        require_finite_channels(data, task.modalities)
        return data, reference, properties

    preprocessor.run_case = run_case_and_check
    return preprocessor


def _write_oracle(prepared: PreparedFolder, case: Case, plans: Any, settings: Any) -> None:
    """Write a phantom's q on the preprocessed grid: transposed, cropped and, if necessary, resampled linearly."""
    q_file, target = oracle_path(case), prepared.oracle / f"{case.case_id}.npy"
    if q_file is None or target.is_file():
        return
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
    with whole_file(target) as temporary:
        np.save(temporary, resampled[0].astype(np.float16))
