"""Pictures of one patch while its fold trains, drawn after the first epoch and at every checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from uncseg.method.training.observed_patch import ObservedPatch, choose_patch, observe
from uncseg.method.training.trainer import UncertaintyTrainer
from uncseg.report.progress import draw_progress


class TrainingPictures:
    """Draws ``fold_K_epoch_EEEE.png``; a picture that cannot be drawn is noted in the fold's log and skipped.

    Args:
        trainer: of the fold, initialised.
        cases: the fold's validation cases; the first one, by id, that has the main region is drawn.
    """

    def __init__(self, trainer: UncertaintyTrainer, cases: Sequence[str], folder: Path) -> None:
        self._trainer, self._cases, self._folder = trainer, cases, folder
        self._patches: list[ObservedPatch | None] = []  # empty until it is first needed, then one entry

    def forget(self, first_epoch: int) -> None:
        """Remove the pictures of epochs that are about to be trained again."""
        for file in self._folder.glob(f"fold_{self._trainer.fold}_epoch_*.png"):
            if int(file.stem.rpartition("_")[2]) >= first_epoch:
                file.unlink(missing_ok=True)

    def draw(self, epoch: int) -> None:
        """Draw the network's output for the patch after this epoch. The training is not affected."""
        try:
            self._draw(epoch)
        except Exception as error:  # a training must not fail because of a picture
            self._trainer.print_to_log_file(f"no picture of epoch {epoch}: {type(error).__name__}: {error}")

    def _draw(self, epoch: int) -> None:
        trainer = self._trainer
        if not self._patches:
            size = trainer.configuration_manager.patch_size
            folder, task = Path(trainer.preprocessed_dataset_folder), trainer.settings.task
            self._patches.append(choose_patch(folder, self._cases, size, task))
        if (patch := self._patches[0]) is not None:
            title = f"{patch.case_id}, fold {trainer.fold}, after {epoch + 1} of {trainer.num_epochs} epochs"
            file = self._folder / f"fold_{trainer.fold}_epoch_{epoch:04d}.png"
            draw_progress(file, observe(trainer, patch), title, trainer.settings.task)
