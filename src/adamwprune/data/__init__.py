# SPDX-License-Identifier: MIT
"""Data sets as tensors: where their files come from, how they are read, split and augmented.

A new data set is one file with a reader and one line in ``registry.py``.
"""

from adamwprune.data.dataset import DataError, DataFile, Dataset, DatasetInfo, Split
from adamwprune.data.registry import DATASETS, VERSION, find, load

__all__ = ["DATASETS", "VERSION", "DataError", "DataFile", "Dataset", "DatasetInfo", "Split", "find", "load"]
