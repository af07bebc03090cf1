# SPDX-License-Identifier: MIT
"""Files of a data set: found wherever tools leave them, verified, and refused with what to do."""

from __future__ import annotations

import gzip
from pathlib import Path

import idx_files
import numpy as np
import pytest
import torch

from adamwprune.data import DataError, DatasetInfo, idx


def unpacked(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {name.removesuffix(".gz"): gzip.decompress(content) for name, content in contents.items()}


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_files_are_read_wherever_and_however_they_lie(tmp_path: Path, folder: str, packed: bool) -> None:
    info, contents = idx_files.make()
    idx_files.write(contents if packed else unpacked(contents), tmp_path / folder)
    dataset = info.read(info, tmp_path)
    images, labels, test_images, test_labels = idx_files.arrays()
    assert np.array_equal(dataset.train.images.numpy()[:, 0], images)
    assert np.array_equal(dataset.train.labels.numpy(), labels)
    assert np.array_equal(dataset.test.images.numpy()[:, 0], test_images)
    assert np.array_equal(dataset.test.labels.numpy(), test_labels)


def problem(info: DatasetInfo, folder: Path) -> str:
    with pytest.raises(DataError) as error:
        info.read(info, folder)
    return str(error.value)


def test_missing_files_are_named_with_checksum_and_place(tmp_path: Path) -> None:
    info, contents = idx_files.make(urls=("https://example.invalid",))
    del contents["train-labels.gz"], contents["test-images.gz"]
    idx_files.write(contents, tmp_path / "mnist")
    message = problem(info, tmp_path)
    reasons, places = message.split("\nRun ")
    for file in info.files:
        assert (f"{tmp_path / file.path} is missing (expected sha256 {file.sha256})" in reasons) == (
            file.path in ("mnist/train-labels.gz", "mnist/test-images.gz")
        )
        assert f"{tmp_path / file.path}\n    {file.size} bytes, sha256 {file.sha256}\n    from {file.urls[0]}" in places
    assert f"`adamwprune data fetch mnist --data-dir {tmp_path}`" in message


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    info, contents = idx_files.make()
    broken = bytearray(contents["train-images.gz"])
    broken[100] ^= 1
    idx_files.write({**contents, "train-images.gz": bytes(broken)}, tmp_path / "mnist")
    message = problem(info, tmp_path)
    assert "train-images.gz is corrupt: sha256" in message
    assert info.files[0].sha256 in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\x1f\x8b\x08\x00", "not an idx file"),
        (b"", "not an idx file"),
        (b"\0\0\x0d\x01\0\0\0\x01abcd", "type 0x0d"),
        (b"\0\0\x08\x03\0\0", "inside its header"),
        (b"\0\0\x08\x01\0\0\0\x05abcd", "has 12 bytes, expected 13"),
        (b"\0\0\x08\x01\0\0\0\x03abcd", "has 12 bytes, expected 11"),
    ],
)
def test_what_is_not_idx_is_refused(content: bytes, expected: str) -> None:
    with pytest.raises(ValueError, match=f"some/file.*{expected}"):
        idx.parse(content, "some/file")


def test_idx_of_any_rank(tmp_path: Path) -> None:
    for shape in [(0,), (7,), (2, 3), (2, 3, 4), (2, 1, 3, 2)]:
        array = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        assert torch.equal(idx.parse(idx_files.idx(array), "x"), torch.from_numpy(array))
