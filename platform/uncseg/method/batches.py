"""Batches as a pure function of (seed, fold, batch index), whatever the number of loader processes.

Around nnU-Net's own sampling and transforms: each batch starts from random states seeded by its index, and carries
the geometry of its patches.
"""

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from torch.utils.data import DataLoader, Dataset, Sampler

from uncseg.method.patch_geometry import PatchGeometry, carry_geometry

TRAINING, VALIDATION, INITIALISATION = 0, 1, 2


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed torch, numpy and random from a key of whole numbers; afterwards all three go on as they were."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    state = np.random.SeedSequence(key).generate_state(3)
    random.seed(int(state[0]))
    np.random.seed(int(state[1]))
    torch.manual_seed(int(state[2]))
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


class _TransformsWithGeometry:
    """nnU-Net's loader calls its transforms with image and segmentation; the crop's geometry goes along."""

    def __init__(self, transforms: BasicTransform) -> None:
        self.transforms = carry_geometry(transforms)
        self.crop: PatchGeometry | None = None
        self.results: list[PatchGeometry] = []

    def __call__(self, **sample: Any) -> dict:
        sample = self.transforms(**sample, geometry=self.crop)
        self.results.append(sample.pop("geometry"))
        return sample


class LoaderWithGeometry(nnUNetDataLoader):
    """nnU-Net's loader; its batches have a ``geometry`` list, one :class:`PatchGeometry` a sample."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.transforms: _TransformsWithGeometry = _TransformsWithGeometry(self.transforms)

    def get_bbox(self, data_shape: np.ndarray, *args: Any, **kwargs: Any) -> tuple[list[int], list[int]]:
        """nnU-Net chooses the crop here; its place is kept for the geometry."""
        lower, upper = super().get_bbox(data_shape, *args, **kwargs)
        self.transforms.crop = PatchGeometry.of_crop(lower, self.patch_size, data_shape)
        return lower, upper

    def generate_train_batch(self) -> dict:
        """nnU-Net builds the batch here; the geometries of its patches are added."""
        self.transforms.results = []
        batch = super().generate_train_batch()
        batch["keys"] = [str(key) for key in batch["keys"]]
        batch["geometry"] = self.transforms.results
        return batch


class _BatchByIndex(Dataset):
    def __init__(self, loader: LoaderWithGeometry, seed: int, fold: int, stage: int) -> None:
        self.loader = loader
        self.key = (seed, fold, stage)

    def __getitem__(self, index: int) -> dict:
        with seeded(*self.key, index):
            return self.loader.generate_train_batch()


class _CountFrom(Sampler):
    def __init__(self, first: int) -> None:
        self.first = first

    def __iter__(self) -> Iterator[int]:
        index = self.first
        while True:
            yield index
            index += 1


def _as_it_is(batch: Any) -> Any:
    return batch


class BatchStream:
    """Batches ``first``, ``first + 1``, … without end.

    ``seconds_waited`` adds up the time that ``next`` took; set it to 0 where an epoch starts.

    Args:
        loader: draws one batch from the current random states.
        seed, fold, stage: with the index, all that a batch depends on.
        first: index of the first batch (after a resume: how many were used).
        processes: loader processes; 0 loads in the training process.
        pin_memory: copy batches to page-locked memory for a GPU.
    """

    def __init__(
        self,
        loader: LoaderWithGeometry,
        *,
        seed: int,
        fold: int,
        stage: int,
        first: int,
        processes: int,
        pin_memory: bool,
    ) -> None:
        self.seconds_waited = 0.0
        data = DataLoader(
            _BatchByIndex(loader, seed, fold, stage),
            batch_size=None,
            sampler=_CountFrom(first),
            num_workers=processes,
            collate_fn=_as_it_is,
            pin_memory=pin_memory,
            # a forked child of a process with Ray's threads can hang; a spawned one starts clean
            multiprocessing_context="spawn" if processes else None,
            prefetch_factor=3 if processes else None,
        )
        self._batches: Iterator[dict] | None = iter(data)

    def __next__(self) -> dict:
        started = time.perf_counter()
        if self._batches is None:
            raise StopIteration
        batch = next(self._batches)
        self.seconds_waited += time.perf_counter() - started
        return batch

    def close(self) -> None:
        """End the loader processes."""
        self._batches = None
