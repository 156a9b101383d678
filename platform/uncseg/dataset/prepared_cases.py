"""Prepared cases: nnU-Net's dataset of them, read without running code that a stranger may have put into a file.

nnU-Net keeps a case's properties in a pickle. An experiment names the folder in which prepared cases lie, so the folder
may be from someone else.
"""

import pickle
from pathlib import Path
from typing import Any

from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

from uncseg.errors import Problem, ProblemsFound, first_line

ALLOWED = {
    *((package, name) for package in ("numpy", "numpy.core.multiarray") for name in ("dtype", "ndarray")),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("collections", "OrderedDict"),
}
"""What the properties of a case consist of beside plain values: NumPy's arrays and numbers."""


class PreparedCases(nnUNetDatasetBlosc2):
    """nnU-Net's dataset of prepared cases; a case that needs code of its own is refused."""

    def load_case(self, identifier: str) -> Any:
        """nnU-Net unpickles whatever a case's files hold; here its properties are read before, by a reader of values.

        Raises:
            ProblemsFound: naming the file that holds code or cannot be read.
        """
        properties = Path(self.source_folder, f"{identifier}.pkl")
        with properties.open("rb") as stream:
            _require_plain(properties, stream)
        try:
            return super().load_case(identifier)
        except (RuntimeError, ValueError) as error:  # blosc2's, also for a recipe in place of values
            files = Path(self.source_folder, f"{identifier}.b2nd or {identifier}_seg.b2nd")
            raise _refused(files, first_line(error)) from error


class _PlainReader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}, which only code of the file's own could build")
        return super().find_class(module, name)


def _require_plain(file: Path, stream: Any) -> None:
    try:
        content = _PlainReader(stream).load()
    except pickle.UnpicklingError as error:
        raise _refused(file, first_line(error)) from error
    except Exception as error:  # damaged bytes can raise anything
        raise _refused(file, f"a damaged file ({type(error).__name__})") from error
    if not isinstance(content, dict):
        raise _refused(file, f"a {type(content).__name__}")


def _refused(file: Path, found: str) -> ProblemsFound:
    advice = "delete the folder of prepared cases: the same command prepares them again"
    problem = Problem(str(file), found, "a prepared case: plain values and NumPy's arrays", advice)
    return ProblemsFound("A prepared case cannot be read.", [problem], exit_code=1)
