# SPDX-License-Identifier: MIT
"""The scripts that train on a GPU, tried on a CPU: a few steps, slices, and the parcels that bring the data."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "gpu"))

import parcels
import training

from adamwprune.data import DATASETS, Dataset, Split, corpora
from adamwprune.training import RunConfig
from adamwprune.training.resolve import resolve

SCRIPTS = ("train_resnet18", "train_gpt", "train_resnet50", "train_gpt2")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Noise in the place of pictures, and a short text."""
    for name in ("cifar10", "cifar100"):
        info = DATASETS[name]

        def read(info, data_dir):
            pixels = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8)
            split = Split(images=pixels, labels=torch.arange(40) % info.classes)
            return Dataset(name=info.name, train=split, test=split)

        monkeypatch.setitem(DATASETS, name, dataclasses.replace(info, read=read, examples=40))
    source = tmp_path / "source"
    source.mkdir()
    (source / "some.txt").write_text("to be or not to be, that is the question\n" * 40)
    corpora.prepare("text", tmp_path / "data", [source], tokenizer="bytes", test_share=0.2)
    (tmp_path / "data/text").rename(tmp_path / "data/fineweb-edu")
    corpora.prepare("text", tmp_path / "data", [source], tokenizer="bytes", test_share=0.2)
    return tmp_path / "data"


def first_and_last(matrix, count=2):
    return dataclasses.replace(matrix, runs=(matrix.runs[0], *matrix.runs[1 - count :]))


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs_for_two_steps_and_estimates(name, data, tmp_path, monkeypatch, capsys):
    matrix = first_and_last(importlib.import_module(name).MATRIX)
    arguments = ["--data", str(data), "--work", str(tmp_path / "work"), "--out", str(tmp_path / "out"), "--tiny"]
    assert training.main(matrix, None, arguments) in (0, 1)  # two steps may miss a target to the weight
    results = [json.loads(path.read_text()) for path in (tmp_path / "work").glob("*/result.json")]
    assert len(results) == 2
    assert all(result["steps"] == 2 for result in results)
    assert not (tmp_path / "out").exists()
    assert training.main(matrix, None, [*arguments, "--estimate"]) == 0
    assert "an estimate, not measured" in capsys.readouterr().out


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_run_of_a_script_is_one_of_its_own(name, monkeypatch):
    runs = importlib.import_module(name).MATRIX.runs
    assert len({resolve(config) for config in runs}) == len(runs)


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(training.device, "available", lambda name: name == "cpu")
    with pytest.raises(SystemExit, match="--tiny tries the script"):
        training.main(importlib.import_module("train_resnet18").MATRIX, None, [])


def test_a_slice_ends_and_the_next_goes_on(tmp_path, monkeypatch, capsys):
    """Rows are added as runs end, and what has ended is not trained again."""
    pytest.importorskip("sklearn")
    small = RunConfig(model="lenet5", data="digits", epochs=1, width=0.5)
    runs = training.arms(small, (0, 1), {"optimizer": "adamw"})
    matrix = training.Matrix(name="small", share=0.1, runs=runs)
    monkeypatch.setattr(training.device, "available", lambda name: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr(training.device, "find", lambda name: "cpu")
    arguments = ["--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    assert training.main(matrix, None, [*arguments, "--minutes", "0"]) == 3
    assert "run this again to go on" in capsys.readouterr().out
    assert training.main(matrix, None, arguments) == 0
    rows = json.loads((tmp_path / "small.json").read_text())["rows"]
    assert [row["where"]["device"] for row in rows.values()] == ["a card", "a card"]
    assert training.main(matrix, None, arguments) == 0
    assert capsys.readouterr().out.count("there already") == 2


@given(sizes=st.lists(st.integers(0, 50), min_size=1, max_size=5), limit=st.integers(1, 60), seed=st.integers(0, 9))
def test_parcels_hold_every_byte(tmp_path_factory, sizes, limit, seed):
    folder = tmp_path_factory.mktemp("parcels")
    generator = torch.Generator().manual_seed(seed)
    for number, size in enumerate(sizes):
        path = folder / "source" / f"part{number % 2}" / f"file{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(torch.randint(0, 256, (size,), generator=generator).tolist()))
    paths = parcels.pack(folder / "source", folder / "parcels", limit)
    assert all(0 < path.stat().st_size <= limit for path in paths)
    assert len(paths) == -(-sum(sizes) // limit)
    parcels.unpack(folder / "parcels", folder / "copy")
    for path in (folder / "source").rglob("file*"):
        assert (folder / "copy" / path.relative_to(folder / "source")).read_bytes() == path.read_bytes()


def test_parcels_that_lack_or_differ_are_refused(tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/file").write_bytes(bytes(100))
    first, second = parcels.pack(tmp_path / "source", tmp_path / "parcels", 60)
    second.write_bytes(bytes(39) + b"x")
    with pytest.raises(SystemExit, match="another checksum"):
        parcels.unpack(tmp_path / "parcels", tmp_path / "copy")
    second.write_bytes(bytes(39))
    with pytest.raises(SystemExit, match="ends within file"):
        parcels.unpack(tmp_path / "parcels", tmp_path / "copy")
    first.unlink()
    with pytest.raises(SystemExit, match="lacks parcel-000 of 2 parcels"):
        parcels.unpack(tmp_path / "parcels", tmp_path / "copy")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match="holds no files"):
        parcels.pack(tmp_path / "empty", tmp_path / "parcels", 60)
