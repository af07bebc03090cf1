# SPDX-License-Identifier: MIT
"""CIFAR in each of its four forms, and everything that is not CIFAR."""

from __future__ import annotations

import dataclasses
import os
import pickle
import tarfile
from pathlib import Path

import cifar_forms
import numpy as np
import pytest

from adamwprune import data
from adamwprune.data import DATASETS, DataError, DatasetInfo, fetch, python_batches

FORMS = ("folder", "archive", "python folder", "python archive")


def problem(info: DatasetInfo, data_dir: Path) -> str:
    with pytest.raises(DataError) as error:
        info.read(info, data_dir)
    assert info.check is not None
    [reason] = info.check(info, data_dir).values()
    assert reason in str(error.value)
    return reason


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_the_same(tmp_path: Path, classes: int, form: str) -> None:
    info, layout = cifar_forms.make(classes)
    cifar_forms.write(layout, tmp_path, form)
    dataset = info.read(info, tmp_path)
    tables = cifar_forms.parts(layout)
    for split, names in ((dataset.train, layout.train), (dataset.test, layout.test)):
        table = np.concatenate([tables[name] for name in names])
        fine = len(layout.labels) - 1
        assert split.labels.tolist() == table[:, fine].tolist()
        assert split.images.shape == (len(table), 3, 32, 32)
        for image, row in zip(split.images, table, strict=True):
            red, green, blue = (row[fine + 1 :][1024 * plane : 1024 * (plane + 1)] for plane in range(3))
            pixels = [plane.reshape(32, 32) for plane in (red, green, blue)]
            assert np.array_equal(image.numpy(), np.stack(pixels))
    assert info.check is not None
    assert info.check(info, tmp_path) == {}


def test_a_whole_form_is_preferred_to_a_broken_one(tmp_path: Path) -> None:
    info, layout = cifar_forms.make(10)
    folder = cifar_forms.write(layout, tmp_path, "folder")
    (folder / "test_batch.bin").unlink()
    reason = problem(info, tmp_path)
    assert f"{folder} lacks cifar-10-batches-bin/test_batch.bin" in reason
    cifar_forms.write(layout, tmp_path, "python archive")
    assert len(info.read(info, tmp_path).train) == 6


def test_missing_files_are_named(tmp_path: Path) -> None:
    info, layout = cifar_forms.make(10)
    assert problem(info, tmp_path) == f"{tmp_path / layout.archive} is missing"


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    info, layout = cifar_forms.make(100)
    folder = cifar_forms.write(layout, tmp_path, "folder")
    content = bytearray((folder / "test.bin").read_bytes())
    content[100] ^= 1
    (folder / "test.bin").write_bytes(content)
    reason = problem(info, tmp_path)
    assert reason.startswith(f"{folder}: test is corrupt: sha256 ")
    assert layout.parts["test"] in reason


@pytest.mark.parametrize("form", ["archive", "python archive"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_archives(tmp_path: Path, form: str, share: float) -> None:
    info, layout = cifar_forms.make(10)
    archive = cifar_forms.write(layout, tmp_path, form)
    size = int(share * archive.stat().st_size)
    os.truncate(archive, size)
    assert f"{archive} is no archive, or a truncated one of {size} bytes" in problem(info, tmp_path)


def test_a_truncated_part(tmp_path: Path) -> None:
    info, layout = cifar_forms.make(10)
    folder = cifar_forms.write(layout, tmp_path, "folder")
    os.truncate(folder / "data_batch_2.bin", 5000)
    assert "data_batch_2.bin is no CIFAR file, or a truncated one: it has 5000 bytes" in problem(info, tmp_path)


def test_another_archive(tmp_path: Path) -> None:
    info, layout = cifar_forms.make(10)
    with tarfile.open(tmp_path / layout.archive, "w:gz"):
        pass
    assert f"{tmp_path / layout.archive} lacks cifar-10-batches-bin/data_batch_1.bin" in problem(info, tmp_path)


class Touch:
    """A pickle of this calls ``os.mkdir`` when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_pickle_is_executed(tmp_path: Path) -> None:
    info, layout = cifar_forms.make(10)
    folder = cifar_forms.write(layout, tmp_path, "python folder")
    target = tmp_path / "made"
    (folder / "test_batch").write_bytes(pickle.dumps({b"data": Touch(target)}, protocol=3))
    assert "names posix.mkdir, which no CIFAR file does; it was not executed" in problem(info, tmp_path)
    assert not target.exists()


def test_pickles_of_today_and_arrays_in_column_order() -> None:
    _, layout = cifar_forms.make(100)
    table = cifar_forms.parts(layout)["test"]
    for content in (cifar_forms.modern_batch(table, layout), cifar_forms.python_batch(table, layout, order="F")):
        assert python_batches.records(content, layout.labels, 3072) == table.tobytes()


def test_pickles_that_are_no_batches() -> None:
    _, layout = cifar_forms.make(10)
    table = cifar_forms.parts(layout)["test_batch"]
    whole = cifar_forms.python_batch(table, layout)
    batch = {b"labels": [1, 2], b"data": 3}
    for content, expected in (
        (whole[:-20], "not a complete pickle"),
        (b"", "not a complete pickle"),
        (b"\x80\x02Pabc\n.", "outside the file"),
        (pickle.dumps([1, 2]), "expected a dictionary with data and labels"),
        (pickle.dumps({b"data": 1}), "expected a dictionary with data and labels"),
        (pickle.dumps(batch), "its data are not an array"),
        (cifar_forms.python_batch(table, layout, dtype="i4"), "type 'i4', expected u1"),
        (cifar_forms.python_batch(table[:, :-1], layout), r"shape \(4, 3071\)"),
        (cifar_forms.python_batch(table, dataclasses.replace(layout, labels=())), "expected a dictionary"),
    ):
        with pytest.raises(ValueError, match=expected):
            python_batches.records(content, layout.labels, 3072)


def test_files_that_differ_can_be_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info, layout = cifar_forms.make(10)
    monkeypatch.setitem(DATASETS, "cifar10", info)
    folder = cifar_forms.write(layout, tmp_path, "folder")
    canonical = data.checksum("cifar10", tmp_path)
    assert canonical == info.checksum
    content = bytearray((folder / "test_batch.bin").read_bytes())
    content[-1] ^= 1
    (folder / "test_batch.bin").write_bytes(content)
    assert "test_batch is corrupt" in problem(info, tmp_path)
    assert fetch.accept("cifar10", tmp_path) == ["test_batch"]
    assert fetch.verify("cifar10", tmp_path) == {}
    assert info.read(info, tmp_path).test.images.flatten()[-1] == content[-1]
    assert data.checksum("cifar10", tmp_path) != canonical, "its runs are not those of the canonical files"
    content[-1] ^= 2
    (folder / "test_batch.bin").write_bytes(content)
    assert "test_batch is corrupt" in problem(info, tmp_path)
    (tmp_path / "cifar10.accepted.json").write_text("[]")
    with pytest.raises(ValueError, match=r"cifar10\.accepted\.json must hold"):
        data.checksum("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("part", "content", "expected"),
    [
        ("data_batch_1", bytes(3073 * 2), "has 5 training and 4 test images, expected 6 and at least one"),
        ("data_batch_1", bytes([10]) + bytes(3073 * 3 - 1), "has the label 10, expected 0 to 9"),
        ("test_batch", bytes([200]) + bytes(3073 * 2 - 1), "has the label 200, expected 0 to 9"),
    ],
)
def test_files_that_cannot_be_trained_on_are_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, content: bytes, expected: str
) -> None:
    info, layout = cifar_forms.make(10)
    monkeypatch.setitem(DATASETS, "cifar10", info)
    folder = cifar_forms.write(layout, tmp_path, "folder")
    (folder / f"{part}.bin").write_bytes(content)
    with pytest.raises(DataError, match=expected):
        fetch.accept("cifar10", tmp_path)
    assert data.checksum("cifar10", tmp_path) == info.checksum


def test_canonical_files_alone_are_taken_where_nothing_else_can_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"mnist.*canonical form only"):
        fetch.accept("mnist", tmp_path)
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz is missing"):
        fetch.accept("cifar10", tmp_path)


def test_facts_of_every_data_set_agree() -> None:
    for info in DATASETS.values():
        if isinstance(info, DatasetInfo):
            assert len(info.mean) == len(info.std) == info.shape[0]
