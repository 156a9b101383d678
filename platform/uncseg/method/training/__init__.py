"""Training one fold: the trainer, its batches, validation and metrics."""
