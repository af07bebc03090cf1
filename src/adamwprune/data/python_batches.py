# SPDX-License-Identifier: MIT
"""Reader of CIFAR's python batches: pickles of 2009 that hold a dictionary of lists, bytes and one uint8 array.

A pickle names functions for its reader to call. This reader knows the four names that these files hold and gives each
an inert stand-in of its own; any other name is refused, so that nothing in a file is ever executed.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np


class _Type:
    """Stands for ``numpy.dtype``; all that is kept is its code."""

    def __init__(self, code: str | bytes, *_: object) -> None:
        self.code = code if isinstance(code, str) else code.decode("ascii", "replace")

    def __setstate__(self, state: object) -> None:
        pass


class _Array:
    """Stands for ``numpy.ndarray``; keeps the state that numpy would have restored."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def table(self, columns: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """The uint8 array of so many columns, rows first."""
        _, shape, kind, fortran, content = self.state
        if not isinstance(kind, _Type) or kind.code.lstrip("|") != "u1":
            raise ValueError(f"its array has type {getattr(kind, 'code', kind)!r}, expected u1")
        if len(shape) != 2 or shape[1] != columns or len(content) != shape[0] * shape[1]:
            raise ValueError(f"its array has shape {shape} in {len(content)} bytes, expected rows of {columns}")
        return np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


class _Reader(pickle.Unpickler):
    """Knows the names in CIFAR's batches, and no others."""

    known = {  # noqa: RUF012 (never changed)
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Type,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name."""
        try:
            return self.known[module, name]
        except KeyError:
            raise ValueError(f"it names {module}.{name}, which no CIFAR file does; it was not executed") from None

    def persistent_load(self, pid: object) -> Any:
        """CIFAR's files refer to nothing outside themselves."""
        raise ValueError(f"it refers to {pid!r} outside the file")


def records(content: bytes, labels: tuple[str, ...], columns: int) -> bytes:
    """A batch in the binary version's form: for each image its ``labels``, then its ``columns`` of pixels.

    Raises:
        ValueError: the content is not such a batch; the message says what it is instead.
    """
    try:
        batch = _Reader(io.BytesIO(content), encoding="bytes").load()
    except ValueError:
        raise
    except Exception as error:  # whatever a damaged pickle leads to
        raise ValueError(f"it is not a complete pickle: {error}") from error
    if not isinstance(batch, dict) or not {b"data", *(name.encode() for name in labels)} <= batch.keys():
        raise ValueError(f"expected a dictionary with data and {' and '.join(labels)}")
    if not isinstance(batch[b"data"], _Array) or batch[b"data"].state is None:
        raise ValueError("its data are not an array")
    pixels = batch[b"data"].table(columns)
    table = np.empty((len(pixels), len(labels) + columns), np.uint8)
    for column, name in enumerate(labels):
        values = batch[name.encode()]
        if len(values) != len(pixels):
            raise ValueError(f"it has {len(values)} {name} for {len(pixels)} images")
        table[:, column] = values
    table[:, len(labels) :] = pixels
    return table.tobytes()
