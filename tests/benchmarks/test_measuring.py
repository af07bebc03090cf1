# SPDX-License-Identifier: MIT
"""How benchmarks time, weigh, store and show."""

from __future__ import annotations

import json

import pytest
import record
import shapes
import tables
import timing
import torch
from torch import nn


class Clock:
    """A clock that jobs move by hand."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def job(self, *durations):
        times = iter(durations)

        def run():
            self.now += next(times)

        return run


def test_a_run_is_divided_by_the_mean_of_its_neighbours(monkeypatch):
    clock = Clock(monkeypatch)
    unit = clock.job(9.0, 1.0, 3.0, 2.0, 2.0, 4.0, 4.0)
    run = clock.job(7.0, 1.0, 4.0, 6.0)
    found = timing.paired(run, unit, rounds=3, warm_up=1)
    assert found.ratios == [0.5, 2.0, 1.5]
    assert found.extras == [-1.0, 2.0, 2.0]
    row = found.row()
    assert row["ratio"] == 1.5
    assert row["quartiles"] == [0.5, 2.0]
    assert (row["ms"], row["unit_ms"], row["rounds"]) == (4000.0, 2000.0, 3)


def test_a_slow_machine_changes_no_ratio(monkeypatch):
    rows = []
    for speed in (1.0, 10.0):
        clock = Clock(monkeypatch)
        unit = clock.job(*[speed * 2.0] * 8)
        rows.append(timing.paired(clock.job(*[speed * t for t in (1, 1, 3, 2)]), unit, 3, warm_up=1).row()["ratio"])
    assert rows[0] == rows[1]


def test_what_is_stored_is_read_back(tmp_path):
    path = record.write("some", {"model": "x"}, [{"a": 1.5}], tmp_path)
    content = record.read("some", tmp_path)
    assert content["rows"] == [{"a": 1.5}]
    assert content["settings"] == {"model": "x"}
    assert content["schema"] == record.SCHEMA
    path.write_text(json.dumps({**content, "schema": 0}))
    with pytest.raises(ValueError, match="schema 0, expected 1"):
        record.read("some", tmp_path)


def test_only_rows_of_the_same_commit_and_settings_are_gone_on_with(tmp_path):
    assert record.begun("some", {"model": "x"}, tmp_path) == []
    path = record.write("some", {"model": "x"}, [{"a": 1.5}], tmp_path)
    assert record.begun("some", {"model": "x"}, tmp_path) == [{"a": 1.5}]
    assert record.begun("some", {"model": "y"}, tmp_path) == []
    path.write_text(json.dumps({**record.read("some", tmp_path), "commit": "another"}))
    assert record.begun("some", {"model": "x"}, tmp_path) == []


def test_step_times_stand_candidates_down_and_places_across(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(tables, "there", lambda name: stored.get(name))
    where = record.where()

    def row(candidate, threads, ratio):
        return {"candidate": candidate, "threads": threads, "ratio": ratio, "quartiles": [ratio - 0.01, ratio + 0.01]}

    stored = {
        "optimizer_step-resnet50-pruned": {**where, "rows": [row("a", 1, 0.5), row("a", 2, 0.6), row("b", 1, 2.0)]},
        "optimizer_step-gpt2-pruned": {**where, "rows": [row("a", 1, 0.7)]},
    }
    header, body, sources = tables.step_times("pruned")
    assert header == ["", "ResNet-50, 1 thread", "ResNet-50, 2 threads", "GPT-2, 1 thread"]
    assert body == [
        ["a", "0.50 [0.49, 0.51]", "0.60 [0.59, 0.61]", "0.70 [0.69, 0.71]"],
        ["b", "2.00 [1.99, 2.01]", "–", "–"],
    ]
    assert len(sources) == 2
    assert tables.step_times("pruned", ("b",))[1] == [["b", "2.00 [1.99, 2.01]"]]
    lines = tables.render("optimizer_step/pruned").splitlines()
    assert lines[1] == "| :--- | ---: | ---: | ---: |"
    assert where["commit"] in lines[-1]


def test_a_table_that_was_not_measured_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    assert tables.render("mask_update") == "*Not run here: `python benchmarks/mask_update.py`.*"
    assert tables.render("memory/whole") == "*Not run here: `python benchmarks/memory.py --scope whole`.*"
    with pytest.raises(ValueError, match="unknown table 'nothing'"):
        tables.render("nothing")


def test_shapes_are_those_of_the_networks():
    resnet, gpt = shapes.resnet50(), shapes.gpt2()
    assert shapes.count(resnet) == 25_557_032  # torchvision's
    assert shapes.count(gpt) == 124_439_808  # Hugging Face's gpt2
    assert shapes.count(shapes.matrices(resnet)) == shapes.count(resnet) - 2 * 26_560 - 1000


def test_filters_lie_as_asked():
    named = dict(shapes.parameters({"a": (3, 4, 2, 2), "b": (3, 4)}, memory_format=torch.channels_last))
    assert named["a"].is_contiguous(memory_format=torch.channels_last)
    assert named["a"].grad.stride() == named["a"].stride() == (16, 1, 8, 4)
    assert named["b"].is_contiguous()


def test_parameters_are_leaves_with_gradients():
    named = shapes.parameters({"a.weight": (3, 4), "a.bias": (3,)})
    assert [name for name, _ in named] == ["a.weight", "a.bias"]
    for _, p in named:
        assert isinstance(p, nn.Parameter)
        assert p.grad is not None
        assert p.grad.shape == p.shape
