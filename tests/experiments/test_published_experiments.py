# SPDX-License-Identifier: MIT
"""The experiments' tables in the documents are those of the stored runs."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("compare", ROOT / "experiments" / "compare.py")
compare = importlib.util.module_from_spec(spec)
spec.loader.exec_module(compare)


def test_tables_are_the_measured_ones():
    text = compare.PAGE.read_text(encoding="utf-8")
    assert compare.fill(text) == text
    assert {name for _, name, _ in compare.BLOCK.findall(text)} == {p.stem for p in compare.RESULTS.glob("*.jsonl")}


def test_a_difference_is_paired_by_seed():
    ours, theirs = {0: 1.0, 1: 2.0, 2: 3.0, 7: 9.0}, {0: 1.5, 1: 2.4, 2: 3.6}
    # Differences -0.5, -0.4, -0.6: mean -0.5, standard error 0.1 / sqrt(3), t(2) = 4.30.
    assert compare.paired(ours, theirs) == "-0.5000 ± 0.2483"
    assert compare.paired({0: 1.0}, theirs) == "–"


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
    state = next(line for line in compare.table("x").splitlines() if "state-global" in line)
    assert "−0.1000 ± 0.0000" in state


@pytest.mark.parametrize("arm", ["75-90/state-global", "dense"])
def test_only_magnitude_is_a_rival(arm):
    assert not compare._rival(arm)
