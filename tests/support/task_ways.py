"""What the tests of tasks compute themselves: voxels, regions, Dice and lesions of stored masks."""

import nibabel as nib
import numpy as np
from scipy import ndimage

TINY = {"epochs": 2, "iterations_per_epoch": 6, "val_iterations_per_epoch": 2, "checkpoint_every": 2}
"""A training of seconds."""


def voxels(file):
    """Return the voxels of a file."""
    return np.asanyarray(nib.load(file).dataobj)


def inside(file, task, region):
    """Return where a mask, as the task numbers it, has one of the region's labels."""
    return np.isin(voxels(file), [task.labels[label] for label in task.regions[region]])


def dice(one, other):
    """Return the Dice of two masks; 1 where both are empty."""
    return 2 * (one & other).sum() / (one.sum() + other.sum()) if one.any() or other.any() else 1.0


def lesions(mask, rule):
    """Count the lesions of a mask of 1 mm³ voxels: parts that the dilation joins, larger than the smallest volume."""
    element = ndimage.generate_binary_structure(3, 2)
    grown = ndimage.binary_dilation(mask, element, iterations=rule.dilations) if rule.dilations else mask
    parts, _ = ndimage.label(grown, np.ones((3, 3, 3)))
    return int((np.bincount(parts[mask])[1:] > rule.smallest_mm3).sum())
