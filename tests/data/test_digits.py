# SPDX-License-Identifier: MIT
"""The embedded digits: scikit-learn's own scans, enlarged, split and verified."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from adamwprune import data
from adamwprune.data import DataError, digits


@pytest.fixture(scope="module")
def dataset() -> data.Dataset:
    return data.load("digits", "unused")


def test_these_are_scikit_learns_digits(dataset: data.Dataset) -> None:
    from sklearn.datasets import load_digits

    bundle = load_digits()
    table = digits._table()
    assert np.array_equal(table[:, :64].reshape(-1, 8, 8), bundle.images)
    assert np.array_equal(table[:, 64], bundle.target)
    assert len(dataset.train) + len(dataset.test) == len(bundle.target) == 1797


def test_splits_share_no_scan_and_keep_the_classes_balanced(dataset: data.Dataset) -> None:
    def keys(split: data.Split) -> list[bytes]:
        return [image.numpy().tobytes() for image in split.images]

    assert not set(keys(dataset.train)) & set(keys(dataset.test))
    for split in (dataset.train, dataset.test):
        counts = torch.bincount(split.labels, minlength=10) / len(split)
        assert (counts - 0.1).abs().max() < 0.005


def test_the_registrys_statistics_are_those_of_the_training_images(dataset: data.Dataset) -> None:
    info = data.find("digits")
    pixels = dataset.train.images.double() / 255
    assert pixels.mean().item() == pytest.approx(info.mean[0], abs=5e-5)
    assert pixels.std(correction=0).item() == pytest.approx(info.std[0], abs=5e-5)


def test_bilinear_enlargement_against_its_definition() -> None:
    scans = torch.randint(0, 17, (3, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    centres = np.clip((np.arange(28) + 0.5) * 8 / 28 - 0.5, 0, 7)
    low = np.minimum(np.floor(centres).astype(int), 6)
    share = centres - low
    weights = np.zeros((28, 8))
    weights[np.arange(28), low] = 1 - share
    weights[np.arange(28), low + 1] += share
    expected = weights @ (scans[:, 0].numpy() * (255 / 16)) @ weights.T
    assert np.abs(digits.enlarge(scans)[:, 0].numpy() - expected).max() <= 0.5 + 1e-9


def test_another_content_is_refused() -> None:
    info = dataclasses.replace(digits.INFO, checksum="0" * 64)
    with pytest.raises(DataError, match=r"digits have changed: sha256 \w+, expected 0000"):
        digits.read(info, Path("unused"))


def test_without_scikit_learn_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'adamwprune\[digits\]'"):
        data.load("digits", "unused")
