"""The trainer, under the name that checkpoints give."""

from uncseg.method.training.trainer import UncertaintyTrainer

__all__ = ["UncertaintyTrainer"]
