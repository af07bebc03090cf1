# SPDX-License-Identifier: MIT
"""The experiments' tables in the documents are those of the stored runs."""

import importlib
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))
compare = importlib.import_module("compare")


def test_tables_are_the_measured_ones():
    text = compare.PAGE.read_text(encoding="utf-8")
    assert compare.fill(text) == text
    assert {name for _, name, _ in compare.BLOCK.findall(text)} == {p.stem for p in compare.RESULTS.glob("*.jsonl")}


def test_a_difference_is_paired_by_seed():
    ours, theirs = {0: 1.0, 1: 2.0, 2: 3.0, 7: 9.0}, {0: 1.5, 1: 2.4, 2: 3.6}
    # Differences -0.5, -0.4, -0.6: mean -0.5, standard error 0.1 / sqrt(3), t(2) = 4.30.
    assert compare.paired(ours, theirs) == "-0.5000 ± 0.2483"
    assert compare.paired({0: 1.0}, theirs) == "-0.5000"
    assert compare.paired({7: 1.0}, theirs) == "–"


def test_the_rival_is_the_best_magnitude_arm_of_the_window(tmp_path, monkeypatch):
    rows = [
        ("75-90/magnitude-global", 2.0),
        ("75-90/lamp", 1.9),
        ("25-75/lamp", 1.0),
        ("75-90/state-global", 1.8),
    ]
    lines = [
        f'{{"arm": "{arm}", "sparsity": 0.8, "seed": {seed}, "loss": {loss + seed}}}'
        for arm, loss in rows
        for seed in (0, 1)
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    state = next(line for line in compare.table("x").splitlines() if line.startswith("| 75-90/state-global"))
    assert "−0.1000 ± 0.0000" in state


def test_more_is_better_where_accuracy_was_measured(tmp_path, monkeypatch):
    rows = [
        {"arm": arm, "sparsity": 0.9, "seed": seed, "loss": 0.0, "accuracy": accuracy + seed}
        for arm, accuracy in [("75-90/lamp", 60.0), ("75-90/magnitude-erk", 64.0), ("75-90/state-global", 63.0)]
        for seed in (0, 1)
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    arms = [line.split(" | ") for line in compare.table("x").splitlines()[2:]]
    assert [arm[0] for arm in arms] == ["| 75-90/magnitude-erk", "| 75-90/state-global", "| 75-90/lamp"]
    assert arms[1][4:] == ["63.50 ± 0.71", "−1.00 ± 0.00", "–", "– |"]


def test_the_plain_arm_differs_in_the_score_alone(tmp_path, monkeypatch):
    losses = {"magnitude-layer": 2.0, "magnitude-global": 1.7, "state-layer": 1.9, "state-global": 1.8, "lamp": 1.6}
    rows = [
        {"arm": f"75-90/{arm}", "sparsity": 0.9, "seed": seed, "loss": loss + seed}
        for arm, loss in losses.items()
        for seed in (0, 1)
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    last = {line.split()[1]: line.split(" | ")[-2] for line in compare.table("x").splitlines()[2:]}
    assert last["75-90/state-layer"] == "−0.1000 ± 0.0000"
    assert last["75-90/state-global"] == "+0.1000 ± 0.0000"
    assert last["75-90/lamp"] == last["75-90/magnitude-layer"] == "–"


def test_whatever_uses_the_state_stands_beside_plain_state(tmp_path, monkeypatch):
    losses = {"75-90/state-global": 1.8, "75-90-long/state-global": 1.7, "75-90/magnitude-global": 1.9, "dense": 1.5}
    rows = [{"arm": arm, "sparsity": 0.9 * (arm != "dense"), "seed": 0, "loss": loss} for arm, loss in losses.items()]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    last = {line.split()[1]: line.split(" | ")[-1] for line in compare.table("x").splitlines()[2:]}
    assert last.pop("75-90-long/state-global") == "−0.1000 |"
    assert {*last.values()} == {"– |"}


def test_the_sparsest_tensor_of_any_seed_is_named(tmp_path, monkeypatch):
    rows = [
        {"arm": "75-90/lamp", "sparsity": 0.8, "seed": seed, "loss": 1.0, "tensors": {"a": high, "b": 0.7}}
        for seed, high in enumerate((0.85, 0.93, 0.81))
    ]
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    assert "| 75-90/lamp | 80% | 93.0% | 3 |" in compare.table("x")


def test_a_small_dense_network_shows_its_weights(tmp_path, monkeypatch):
    row = {"arm": "width-44", "sparsity": 0.0, "seed": 0, "loss": 1.9, "weights": 12345}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    monkeypatch.setattr(compare, "RESULTS", tmp_path)
    assert "| width-44, 12,345 weights | 0% | 0.0% | 1 | 1.9000 | – | – | – |" in compare.table("x")


@pytest.mark.parametrize("arm", ["75-90/state-global", "dense"])
def test_only_magnitude_is_a_rival(arm):
    assert not compare._rival(arm)
