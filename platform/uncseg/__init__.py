"""uncseg: cross-validation experiments for uncertainty-aware brain-tumour segmentation."""

__version__ = "0.1.0"
