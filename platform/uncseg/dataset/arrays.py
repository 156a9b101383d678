"""NumPy arrays as files."""

import io
from pathlib import Path

import numpy as np

from uncseg.files import whole_file


def write_array(path: Path, array: np.ndarray) -> None:
    """Write NAME.npy, whole or not at all."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    with whole_file(path) as temporary:  # NumPy itself writes past Python's file, which would tell of a full disk
        temporary.write_bytes(content.getbuffer())
