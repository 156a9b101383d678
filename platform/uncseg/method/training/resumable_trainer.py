"""The reproducible trainer with checkpoints that are whole or absent, and from which a training resumes exactly."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from uncseg.errors import Problem, ProblemsFound
from uncseg.files import whole_file
from uncseg.method import checkpoints
from uncseg.method.training.reproducible_trainer import ReproducibleTrainer


class ResumableTrainer(ReproducibleTrainer):
    """The reproducible trainer, which writes a resume file beside each checkpoint."""

    trust = False
    """Let checkpoints run code of their own."""
    on_checkpoint: Callable[[int], None] | None = None
    """Called with the last epoch that a resumable checkpoint holds, when the checkpoint is whole."""

    def resume_content(self) -> dict[str, Any]:
        """Return what else a resume needs, by name: tensors and plain values."""
        return {} if self.averaged is None else {"averaged_weights": self.averaged.average.state_dict()}

    def restore_resume_content(self, content: dict[str, Any]) -> None:
        """Inverse of :meth:`resume_content`."""
        if self.averaged is not None:
            self.averaged.average.load_state_dict(content["averaged_weights"])

    def save_checkpoint(self, filename: str) -> None:
        """nnU-Net writes in place; here a file is whole or absent, and its resume file is written first."""
        if self.disable_checkpointing or self.local_rank != 0:
            return
        path, epochs = Path(filename), self.current_epoch + 1
        resumable = path.name != checkpoints.BEST
        if resumable:
            content = {
                "epoch": epochs,
                "memories": self.resume_content(),
                "random": checkpoints.random_states(),
                "next_batch": self.batches_after(epochs),
            }
            checkpoints.save_resume_file(checkpoints.resume_file(path, epochs), content)
        with whole_file(path) as temporary:
            super().save_checkpoint(str(temporary))
            if path.name == checkpoints.LATEST and path.is_file():
                path.replace(path.with_name(checkpoints.PREVIOUS))
        if resumable:
            checkpoints.remove_old_resume_files(checkpoints.resume_file(path, epochs))
            if self.on_checkpoint is not None:
                self.on_checkpoint(self.current_epoch)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """nnU-Net unpickles whatever a file holds; here one that needs code is refused, and the resume file is read.

        A file is read twice, since nnU-Net 2.8.1 fails when it is given the content instead of a path.
        """
        path = Path(str(filename_or_checkpoint))
        content = checkpoints.load_torch_file(path, checkpoints.TRAINING_KEYS, trust=self.trust)
        self._require_own_fold(path, content)
        super().load_checkpoint(str(path))
        self.next_batch = self.batches_after(self.current_epoch)
        if path.name == checkpoints.BEST:
            return  # for predictions alone: only the latest, the previous and the final checkpoint have a resume file
        resumed = checkpoints.load_resume_file(checkpoints.resume_file(path, self.current_epoch))
        self.restore_resume_content(resumed["memories"])
        self.next_batch = resumed["next_batch"]
        checkpoints.restore_random_states(resumed["random"])

    def _require_own_fold(self, path: Path, content: Mapping[str, Any]) -> None:
        """Refuse the checkpoint of another fold, which was trained on the cases that this one is judged by."""
        written = (content.get("init_args") or {}).get("fold", self.fold)
        if written != self.fold:
            advice = "put each fold's own files back, or move the folder away: the same command trains it again"
            problem = Problem(str(path), f"a checkpoint of fold {written}", f"one of fold {self.fold}", advice)
            raise ProblemsFound("The checkpoint cannot be used.", [problem], exit_code=1)
