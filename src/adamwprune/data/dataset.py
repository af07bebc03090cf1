# SPDX-License-Identifier: MIT
"""What a data set is: its files, its facts, and its tensors once it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adamwprune.data.tokens import Tokens

if TYPE_CHECKING:  # it needs DataError
    from adamwprune.data.image_index import Index


class DataError(ValueError):
    """Data files that are missing or not what they should be, and what to do about it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """One file of a data set: its path under the data folder, where it can be fetched, and what it must contain."""

    path: str
    urls: tuple[str, ...]
    sha256: str
    size: int
    #: Other places under the data folder where tools leave the same file.
    also: tuple[str, ...] = ()
    #: Checksum of the content without gzip, where the unpacked file is accepted too.
    sha256_unpacked: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Images (uint8; examples, channels, rows, columns) and their labels (int64)."""

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8, self.images.dtype
        assert self.images.ndim == 4, self.images.shape
        assert self.labels.dtype == torch.int64, self.labels.dtype
        assert len(self.images) == len(self.labels), (len(self.images), len(self.labels))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Split:
        """The examples at ``index``, in its order."""
        return Split(images=self.images[index], labels=self.labels[index])

    def to(self, device: torch.device) -> Split:
        """The same examples on ``device``."""
        return Split(images=self.images.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, kw_only=True, slots=True)
class Dataset:
    """A data set in memory. Training examples include those that a run holds out for validation."""

    name: str
    train: Split
    test: Split


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenData:
    """A text in memory or in mapped files. Training tokens include those that a run holds out for validation."""

    name: str
    train: Tokens
    test: Tokens
    #: Every id is below this.
    vocabulary: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """What every entry of the registry says of its files."""

    name: str
    summary: str
    #: Empty where the data come with an installed package, or are prepared from files that a person names.
    files: tuple[DataFile, ...] = ()
    #: What is wrong, by path, where that is not a matter of looking for ``files`` one by one.
    check: Callable[[Any, Path], dict[str, str]] | None = None
    #: The same with every byte read, where ``check`` leaves that out because there are so many.
    check_bytes: Callable[[Any, Path], dict[str, str]] | None = None

    @property
    def built_in(self) -> bool:
        """Whether there is nothing to fetch or prepare."""
        return not self.files and self.check is None


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenInfo(SourceInfo):
    """A text's entry in the registry."""

    read: Callable[[TokenInfo, Path], TokenData]
    #: Identifies the content, whatever the files around it look like.
    identify: Callable[[TokenInfo, Path], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetInfo(SourceInfo):
    """An entry of images in the registry: all that can be said before a file is read."""

    shape: tuple[int, int, int]
    classes: int
    #: Training examples, those held out for validation included.
    examples: int
    #: Mean and standard deviation of a pixel in [0, 1], per channel, over the training images; used for every split.
    mean: tuple[float, ...]
    std: tuple[float, ...]
    #: Augmentation: images move by up to this many pixels, and may be mirrored where that keeps their meaning.
    shift: int
    flip: bool
    #: Identifies the canonical content, whatever the files around it look like.
    checksum: str
    read: Callable[[DatasetInfo, Path], Dataset]
    #: Checksums of the parts that differ from the canonical ones, where such parts can be accepted.
    digests: Callable[[DatasetInfo, Path], dict[str, str]] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFolders:
    """A data set of images that stay where they are."""

    name: str
    train: Index
    test: Index


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamInfo(SourceInfo):
    """An entry of images that do not fit into memory: they are read while they are trained on."""

    classes: int
    #: Mean and standard deviation of a pixel in [0, 1], per channel.
    mean: tuple[float, ...]
    std: tuple[float, ...]
    open: Callable[[StreamInfo, Path], ImageFolders]
    #: Identifies the content, whatever the files around it look like.
    identify: Callable[[StreamInfo, Path], str]


#: An entry of the registry.
Info = DatasetInfo | TokenInfo | StreamInfo
