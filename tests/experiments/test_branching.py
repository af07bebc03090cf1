# SPDX-License-Identifier: MIT
"""Arms go on from a dense run: nothing before the window differs, and a run that is done is not done again."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import adamwprune as ap

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments"))
branching = importlib.import_module("branching")

STEPS = 40


class Lines(branching.Training):
    """Least squares with two matrices."""

    lr = 0.01

    def __init__(self, seed, prune=None, width=16):
        torch.manual_seed(seed)
        self.seed = seed
        self.model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4))
        self.optimizer = ap.AdamWPrune(branching.groups(self.model, 0.1), lr=self.lr, prune=prune)

    def lr_factor(self, step):
        return 1 - step / STEPS

    def loss(self, number):
        x = torch.randn(32, 8, generator=torch.Generator().manual_seed(number))
        return (self.model(x) - x[:, :4]).square().mean()

    def take_step(self, step):
        self.loss(1000 * self.seed + step).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def validation(self):
        return {"loss": float(self.loss(-1))}


@pytest.fixture
def setting():
    return branching.Setting(steps=STEPS, every=2, train=Lines, small={"narrow": lambda seed: Lines(seed, width=3)})


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_arm_that_removes_nothing_is_the_dense_run(setting, tmp_path):
    states, dense = branching.dense_states(setting, 3, tmp_path)
    reached, _ = branching.pruned(setting, 3, branching.ARMS["75-90/state-global"], 0.0, states)
    straight = Lines(3)
    straight.go(0, STEPS)
    assert reached == dense == straight.validation()


@pytest.mark.parametrize("arm", ["25-75/magnitude-global", "75-90/lr-alpha-global", "75-90/eighth-layer", "75-90/lamp"])
def test_an_arm_ends_at_its_sparsity(setting, tmp_path, arm):
    states, dense = branching.dense_states(setting, 0, tmp_path)
    reached, tensors = branching.pruned(setting, 0, branching.ARMS[arm], 0.5, states)
    assert reached["loss"] > dense["loss"]
    assert (8 * 16 * tensors["0.weight"] + 4 * 16 * tensors["2.weight"]) / (12 * 16) == pytest.approx(0.5, abs=1e-3)


def test_a_row_is_a_run_and_runs_once(setting, tmp_path):
    file = tmp_path / "x.jsonl"
    arms = ["75-90/magnitude-layer"]
    for sparsities in ([0.5], [0.5, 0.75]):
        branching.run(setting, branching.Results(file), [0, 1], arms, sparsities, small=["narrow"])
    keys = [(row["arm"], row["sparsity"], row["seed"]) for row in rows(file)]
    wanted = [("dense", 0.0), ("narrow", 0.0), (arms[0], 0.5), (arms[0], 0.75)]
    assert sorted(keys) == sorted((arm, sparsity, seed) for arm, sparsity in wanted for seed in (0, 1))
    assert {row["weights"] for row in rows(file) if row["arm"] == "narrow"} == {8 * 3 + 3 + 3 * 4 + 4}


def test_alpha_follows_the_learning_rate():
    w, v = torch.tensor([-2.0]), torch.tensor([16.0])
    assert branching.follows_lr(w, v, progress=[1.0]).item() == 2.0
    assert branching.follows_lr(w, v, progress=[0.1]).item() == pytest.approx(4.0)
    assert branching.powered(w, v, alpha=0.25).item() == pytest.approx(4.0)
