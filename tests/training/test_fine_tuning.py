# SPDX-License-Identifier: MIT
"""Runs that begin with given weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import tiny_text
import torch

from adamwprune.models.hugging_face import to_hugging_face
from adamwprune.training import ConfigError
from adamwprune.training.engine import train
from adamwprune.training.identity import identity, run_id, run_name
from adamwprune.training.resolve import resolve
from adamwprune.training.run import Run

MOVEMENT = {"optimizer": "adam", "pruning_method": "movement", "target_sparsity": 0.5}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    train(tiny.config(), folder)
    return folder / "checkpoints"


@pytest.mark.parametrize("kind", ["best", "last", "state-dict"])
def test_a_run_begins_where_another_ended(trained: Path, tmp_path: Path, kind: str) -> None:
    saved = torch.load(trained / ("last.pt" if kind == "last" else "best.pt"), weights_only=True)
    expected = saved["run"]["model"] if kind == "last" else saved["model"]
    path = trained / f"{kind}.pt"
    if kind == "state-dict":
        path = tmp_path / "weights.pt"
        torch.save(expected, path)
    run = Run(resolve(tiny.config(init=str(path))))
    assert all(torch.equal(value, expected[name]) for name, value in run.model.state_dict().items())


def test_movement_prunes_a_trained_network(trained: Path, tmp_path: Path) -> None:
    result = train(tiny.config(**MOVEMENT, init=str(trained / "best.pt"), epochs=3), tmp_path)
    assert result["status"] == "finished"
    assert result["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert result["final"]["test_accuracy"] > 0.9


def test_the_content_of_the_file_identifies_the_run_and_its_place_does_not(trained: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "copy.pt"
    elsewhere.write_bytes((trained / "best.pt").read_bytes())
    configs = [resolve(tiny.config(init=path and str(path))) for path in (trained / "best.pt", elsewhere, None)]
    configs.append(resolve(tiny.config(init=str(trained / "last.pt"))))
    ids = [run_id(identity(config, "data")) for config in configs]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    assert run_name(configs[0]) == "lenet5_w0.5_tuned-tiny-adamw-none-s0"


def test_weights_of_hugging_face_are_taken(tmp_path: Path) -> None:
    source = Run(resolve(tiny_text.config(seed=3))).model
    torch.save(to_hugging_face(source), tmp_path / "gpt2.pt")
    run = Run(resolve(tiny_text.config(init=str(tmp_path / "gpt2.pt"))))
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), source.parameters(), strict=True))


def test_weights_in_safetensors_are_taken(trained: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    expected = torch.load(trained / "best.pt", weights_only=True)["model"]
    safetensors.save_file(expected, tmp_path / "w.safetensors")
    run = Run(resolve(tiny.config(init=str(tmp_path / "w.safetensors"))))
    assert all(torch.equal(value, expected[name]) for name, value in run.model.state_dict().items())


def test_what_does_not_fit_is_refused(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"head.weight": torch.zeros(4, 42)}, tmp_path / "part.pt")
    for path, changes, message in (
        (tmp_path / "missing.pt", {}, "cannot be read: No such file"),
        (tmp_path / "text.pt", {}, "holds no weights that can be read safely"),
        (tmp_path / "list.pt", {}, "neither a checkpoint of a run nor a state dict"),
        (tmp_path / "part.pt", {}, "does not fit the network: conv1.bias is only in the network"),
        (trained / "best.pt", {"width": 0.25}, r"conv1.weight has shape \(3, 1, 5, 5\), the network's is \(2, 1, 5"),
    ):
        with pytest.raises(ConfigError, match=message):
            Run(resolve(tiny.config(init=str(path)).replace(**changes)))
