"""The trainer, by the name that plans and checkpoints call it."""

from uncseg.method.training.trainer import UncertaintyTrainer

__all__ = ["UncertaintyTrainer"]
