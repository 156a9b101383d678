"""A trained model as nnU-Net stores it: plans.json, dataset.json and one folder per fold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from uncseg.errors import DamagedFile, Problem, ProblemsFound
from uncseg.files import digest, file_digest, read_json
from uncseg.layout import FAILURES, folds_in
from uncseg.method.checkpoints import FINAL, MODEL_KEYS, init_args_of, load_torch_file
from uncseg.method.inference.label_meaning import known_task, label_numbers, region_channels
from uncseg.method.network.known_classes import require_known_classes
from uncseg.method.settings import PLANS_KEY, TrainerSettings, model_digest
from uncseg.tasks.nnunet_dataset import as_word, task_of_dataset_json
from uncseg.tasks.outputs import Outputs
from uncseg.tasks.task import Task

FETCH = "restore it from a copy, or fetch the model again"
CANNOT_BE_USED = "The model cannot be used."
DESCRIPTION = "uncseg.json"
"""A file beside plans.json in models that uncseg puts into MLflow: what they were trained on, how they predict."""


@dataclass(frozen=True)
class ModelFolder:
    """A model folder, ours or nnU-Net's own, with the attributes of nnU-Net's predictor."""

    root: Path
    configuration: str

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what has been read: the process that receives it reads it again."""
        return {"root": self.root, "configuration": self.configuration}

    @cached_property
    def dataset_json(self) -> dict[str, Any]:
        """Content of dataset.json: labels, channels and file ending.

        Raises:
            DamagedFile: it cannot be read, or lacks labels or channels.
        """
        content: dict[str, Any] = read_json(self.root / "dataset.json", FETCH, keys=("labels", "channel_names"))
        for name in ("labels", "channel_names"):
            if not (isinstance(content[name], dict) and content[name]):
                raise DamagedFile.of(self.root / "dataset.json", f"{name} {content[name]!r}", "their names", FETCH)
        return content

    @cached_property
    def plans_manager(self) -> Any:
        """nnU-Net's reader of plans.json."""
        return PlansManager(read_json(self.root / "plans.json"))

    @property
    def has_head(self) -> bool:
        """Whether its networks give an uncertainty map; those that nnU-Net trained do not."""
        plans = self.plans_manager.plans
        return PLANS_KEY in plans and TrainerSettings.from_plans(plans).model.uncertainty

    @cached_property
    def configuration_manager(self) -> Any:
        """nnU-Net's reader of the configuration."""
        return self.plans_manager.get_configuration(self.configuration)

    @cached_property
    def label_manager(self) -> Any:
        """nnU-Net's reader of the labels."""
        return self.plans_manager.get_label_manager(self.dataset_json)

    @cached_property
    def _task_and_meaning(self) -> tuple[Task, dict[int, int]]:
        labels, plans = self.dataset_json["labels"], self.plans_manager.plans
        where = f"{self.root}: dataset.json"
        if PLANS_KEY in plans:
            task = TrainerSettings.from_plans(plans).task
            if (meaning := label_numbers(labels, task)) is None:
                expected = f"those of its task {task.name}: {task.describe_labels()}"
                problem = Problem(where, f"labels {labels}", expected, "fetch the file again")
                raise ProblemsFound(CANNOT_BE_USED, [problem])
            return task, meaning
        if known := known_task(labels, len(self.dataset_json["channel_names"])):
            return known
        own = {name: value for name, value in labels.items() if name != "ignore"}  # no channel is trained for it
        name = as_word(str(self.plans_manager.dataset_name))
        task_or_none, problems = task_of_dataset_json({**self.dataset_json, "labels": own}, where, name)
        if task_or_none is None:
            raise ProblemsFound(CANNOT_BE_USED, problems)
        return task_or_none, {number: number for number in task_or_none.labels.values()}

    @property
    def task(self) -> Task:
        """The task that the model was trained for: as its plans say, else by the labels of its dataset.json.

        Labels of BraTS have a built-in task; with others dataset.json describes it.

        Raises:
            ProblemsFound: dataset.json contradicts the plans, or does not describe a task.
        """
        return self._task_and_meaning[0]

    @property
    def meaning(self) -> dict[int, int]:
        """The task's number of each of the model's labels; raises as :attr:`task`."""
        return self._task_and_meaning[1]

    @cached_property
    def region_channels(self) -> list[list[int]]:
        """The channels whose probabilities add up to that of each region of the task."""
        own_regions = self.label_manager.foreground_regions if self.label_manager.has_regions else ()
        return region_channels(self.task, self.meaning, own_regions)

    @cached_property
    def outputs(self) -> Outputs:
        """What the model's own channels mean."""
        number = list(self.task.regions).index(self.task.main_region)
        if not self.label_manager.has_regions:
            return Outputs("labels", len(self.meaning), tuple(map(tuple, self.region_channels)), number)
        parts = tuple(tuple(np.atleast_1d(part).tolist()) for part in self.label_manager.foreground_regions)
        return Outputs("regions", len(self.meaning), parts, self.region_channels[number][0])

    def require_known_classes(self) -> None:
        """Refuse plans that would make nnU-Net run any code that they name.

        Raises:
            ProblemsFound: plans.json has no such configuration, or names anything but networks.
        """
        where = f"{self.root}: plans.json, {self.configuration}"
        try:
            architecture = self.configuration_manager.configuration["architecture"]
        except (KeyError, RuntimeError, ValueError) as error:
            problem = Problem(where, f"{error}", "the configuration that was trained", "fetch the file again")
            raise ProblemsFound(CANNOT_BE_USED, [problem]) from error
        require_known_classes(architecture, where)

    def require_own_files(self, folds: Iterable[int]) -> None:
        """Refuse plans.json or dataset.json that are not those with which these folds were trained, as these tell.

        nnU-Net's own checkpoints are not asked: its users may edit the plans of a trained model.

        Raises:
            ProblemsFound: naming the folds.
        """
        trained = {fold: init_args_of(self.checkpoint(fold)) for fold in folds}
        known = {fold: known for fold, known in trained.items() if PLANS_KEY in (known.get("plans") or {})}
        found = model_digest(self.plans_manager.plans, self.dataset_json) if known else ""
        other = [f for f, own in known.items() if model_digest(own["plans"], own.get("dataset_json") or {}) != found]
        if other:
            folds_text = f"fold{'s' * (len(other) > 1)} {', '.join(map(str, other))}"
            expected = f"those with which {folds_text} was trained, as the checkpoint tells"
            problem = Problem(str(self.root), "another plans.json or dataset.json", expected, "restore these files")
            raise ProblemsFound(CANNOT_BE_USED, [problem], exit_code=1)

    def checkpoint(self, fold: int) -> Path:
        """Return the final checkpoint of a fold."""
        return self.root / f"fold_{fold}" / FINAL

    def content(self, folds: Sequence[int], learnt: bool = False) -> str:
        """Return a digest of what these folds' predictions depend on: their checkpoints, by content.

        With ``learnt`` also what the folds have learnt from each other's failures.
        """
        files = [self.checkpoint(fold) for fold in folds]
        files += [file.with_name(FAILURES) for file in files if learnt and file.with_name(FAILURES).is_file()]
        return digest([list(folds), [file_digest(file) for file in files]])


def read_description(folder: Path) -> dict[str, Any]:
    """Read :data:`DESCRIPTION`; empty if the model has none."""
    file = folder / DESCRIPTION
    return dict(read_json(file)) if file.is_file() else {}


def open_model_folder(folder: Path, trust: bool = False) -> ModelFolder:
    """Open a model folder with a finished fold, and find the configuration that it was trained with.

    With ``trust`` its checkpoint, and the classes that its plans name, may run code of their own.

    Raises:
        ProblemsFound: no fold is finished, the checkpoint of the first cannot be read, or the plans name classes other
            than networks of torch and nnU-Net.
    """
    folds = folds_in(folder)
    if not folds:
        problem = Problem(str(folder), "no fold_N/checkpoint_final.pth", "a finished fold", "train one")
        raise ProblemsFound("There is nothing to predict with.", [problem])
    reader = read_json(folder / "plans.json").get("image_reader_writer")
    if reader == "NibabelIOWithReorient":
        expected, advice = "one that leaves the axes as they are", "predict with nnUNetv2_predict, then uncseg score"
        problem = Problem(f"{folder}: plans.json", f"image_reader_writer {reader}", expected, advice)
        raise ProblemsFound("The model cannot be used: its labels would come out mirrored.", [problem])
    named = folder.name.split("__")
    if len(named) == 3:  # nnU-Net's own naming: TRAINER__PLANS__CONFIGURATION
        model = ModelFolder(folder, named[2])
    else:
        checkpoint = load_torch_file(folder / f"fold_{folds[0]}" / FINAL, (*MODEL_KEYS, "init_args"), trust=trust)
        model = ModelFolder(folder, str(checkpoint["init_args"]["configuration"]))
    if not trust:
        model.require_known_classes()
    return model
