# SPDX-License-Identifier: MIT
"""Splits: a stratified partition, the same for ever."""

from __future__ import annotations

import hashlib

import torch
from hypothesis import given
from hypothesis import strategies as st

from adamwprune.data.splits import held_out, sample, stratified


@given(
    labels=st.lists(st.integers(0, 5), min_size=1, max_size=200),
    fraction=st.floats(0.01, 0.99),
    salt=st.integers(0, 3),
)
def test_a_split_is_a_stratified_partition(labels: list[int], fraction: float, salt: int) -> None:
    values = torch.tensor(labels)
    kept, held = stratified(values, fraction, salt)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert kept.tolist() == sorted(kept.tolist())
    assert held.tolist() == sorted(held.tolist())
    assert len(held) == held_out(len(labels), fraction)
    for label in set(labels):
        wanted = fraction * labels.count(label)
        assert abs((values[held] == label).sum().item() - wanted) < 1 + 1e-9


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=200), data=st.data(), salt=st.integers(0, 3))
def test_a_sample_has_its_count_and_every_class_its_share(labels: list[int], data: st.DataObject, salt: int) -> None:
    values = torch.tensor(labels)
    count = data.draw(st.integers(1, len(labels)))
    chosen = sample(values, count, salt)
    assert len(set(chosen.tolist())) == count
    assert chosen.tolist() == sorted(chosen.tolist())
    for label in set(labels):
        wanted = count * labels.count(label) / len(labels)
        assert abs((values[chosen] == label).sum().item() - wanted) < 1 + 1e-9


def test_a_split_is_the_same_for_ever() -> None:
    labels = torch.arange(1000) % 7
    _, held = stratified(labels, 0.1, 10)
    digest = hashlib.sha256(held.numpy().astype("<i8").tobytes()).hexdigest()
    assert digest == "9c9d522ffc26da7a8507fcf8810185284043c5a5214ad2a8160b074ad9ece192"
    assert not torch.equal(held, stratified(labels, 0.1, 11)[1])
    state = torch.random.get_rng_state()
    torch.manual_seed(99)
    assert torch.equal(held, stratified(labels, 0.1, 10)[1])
    torch.random.set_rng_state(state)
