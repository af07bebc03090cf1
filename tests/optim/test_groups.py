# SPDX-License-Identifier: MIT
"""Who decays and who may be pruned: by module, and by name where modules are not known."""

from __future__ import annotations

import pytest
import torch
from lab import prune
from torch import nn

from adamwprune import AdamWPrune, Prune, attach, param_groups


class Conv1D(nn.Module):
    """A look-alike of Hugging Face's transposed linear layer."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))


class RMSNorm(nn.Module):
    def __init__(self, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(*shape))


class Transformer(nn.Module):
    def __init__(self, tied=True):
        super().__init__()
        self.tokens = nn.Embedding(11, 8)
        self.places = nn.Embedding(5, 8)
        self.attention = Conv1D(24, 8)
        self.first = nn.Linear(8, 16)
        self.again = self.first
        self.patches = nn.Conv2d(3, 8, 2)
        self.norm = nn.LayerNorm(8)
        self.wide_norm = RMSNorm(2, 8)
        self.gate = nn.Parameter(torch.zeros(4, 4))
        self.lm_head = nn.Linear(8, 11, bias=False)
        if tied:
            self.lm_head.weight = self.tokens.weight


def scope(params, prune):
    optimizer = AdamWPrune(params, prune=prune)
    return optimizer.pruner.report()


def split(groups):
    """Name to (decays, prunable)."""
    return {name: (g["weight_decay"] > 0, g["prunable"]) for g in groups for name, _ in g["params"]}


def test_by_module():
    model = Transformer(tied=False)
    found = split(param_groups(model, weight_decay=0.1))
    prunable = {name for name, (_, takes) in found.items() if takes}
    assert prunable == {"attention.weight", "first.weight", "patches.weight"}
    decaying = {name for name, (decays, _) in found.items() if decays}
    assert decaying == prunable | {"tokens.weight", "places.weight", "gate", "lm_head.weight"}
    assert set(found) == {name for name, _ in model.named_parameters()}


def test_each_tensor_once_and_a_tied_head_follows_its_embedding():
    groups = param_groups(Transformer(), weight_decay=0.1, prune_head=True)
    names = [name for g in groups for name, _ in g["params"]]
    assert len(names) == len(set(names))
    assert "again.weight" not in names
    assert "lm_head.weight" not in names
    reasons = {name: reason for g in groups for name, reason in g["left_out"].items()}
    assert "tied" in reasons["tokens.weight"]
    assert "embedding" in reasons["places.weight"]
    assert reasons["gate"] == "not a Linear or convolution weight"
    assert reasons["norm.weight"] == "fewer than two dimensions"


def test_the_head_only_when_asked():
    model = Transformer(tied=False)
    assert not split(param_groups(model, weight_decay=0.1))["lm_head.weight"][1]
    assert split(param_groups(model, weight_decay=0.1, prune_head=True))["lm_head.weight"][1]
    reasons = [g["left_out"].get("lm_head.weight") for g in param_groups(model, weight_decay=0.1)]
    assert "the classifier or head" in reasons


def test_a_classifier_of_several_layers_has_one_head():
    vgg = nn.Module()
    vgg.features = nn.Sequential(nn.Conv2d(3, 4, 3))
    vgg.classifier = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 10))
    found = split(param_groups(vgg, weight_decay=0.1))
    assert {name for name, (_, takes) in found.items() if takes} == {"features.0.weight", "classifier.0.weight"}


def test_no_decay_is_no_group_of_its_own_where_nothing_is_in_it():
    groups = param_groups(nn.Linear(4, 4, bias=False), weight_decay=0.1)
    assert len(groups) == 1
    assert all(g["params"] for g in param_groups(Transformer(), weight_decay=0.0))


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_groups_serve_any_torch_optimizer(make):
    model = Transformer()
    optimizer = make(param_groups(model, weight_decay=0.1), lr=0.1)
    pruner = attach(optimizer, prune(score="magnitude"))
    report = pruner.report()
    assert set(report["tensors"]) == {"attention.weight", "first.weight", "patches.weight"}
    assert set(report["tensors"]) | set(report["left_out"]) == {name for name, _ in model.named_parameters()}
    assert "tied" in report["left_out"]["tokens.weight"]


def test_by_name():
    model = nn.ModuleDict({"wte": nn.Embedding(9, 4), "conv": nn.Conv2d(3, 4, 3), "lm_head": nn.Linear(4, 9)})
    report = scope(model.named_parameters(), prune=prune())
    assert set(report["tensors"]) == {"conv.weight"}
    assert report["left_out"]["wte.weight"] == "an embedding, by its name"
    assert report["left_out"]["lm_head.weight"] == "a head, by its name"


def test_globs_overrule_modules_and_names():
    model = Transformer(tied=False)
    for params in (model.named_parameters(), param_groups(model, weight_decay=0.1)):
        settings = prune(include=("lm_head.*", "first.*", "tokens.weight"), exclude=("first.*",))
        report = scope(params, prune=settings)
        assert set(report["tensors"]) == {"lm_head.weight", "tokens.weight"}
        assert "exclude" in report["left_out"]["first.weight"]
        assert "include" in report["left_out"]["attention.weight"]


def test_what_globs_take_must_still_be_a_matrix_with_weights():
    model = nn.Linear(4, 4)
    named = [("fc.weight", model.weight), ("fc.bias", model.bias), ("empty.weight", nn.Parameter(torch.zeros(4, 0)))]
    report = scope(named, prune=prune(include=("*",)))
    assert report["left_out"]["fc.bias"] == "fewer than two dimensions"
    assert report["left_out"]["empty.weight"] == "it has no weights"


def test_tensors_that_a_pattern_does_not_fit_are_left_out_with_the_reason():
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 8))
    report = scope(model.named_parameters(), prune=prune(pattern="2:4"))
    assert set(report["tensors"]) == {"0.weight"}
    assert "6 inputs are not a multiple of 4" in report["left_out"]["1.weight"]


def test_a_group_can_be_marked_by_hand():
    named = [("a.weight", nn.Parameter(torch.randn(4, 4))), ("b.weight", nn.Parameter(torch.randn(4, 4)))]
    groups = [{"params": named[:1], "prunable": False}, {"params": named[1:], "prunable": True}]
    report = scope(groups, prune=Prune(sparsity=0.5, total_steps=10))
    assert list(report["tensors"]) == ["b.weight"]
    assert report["left_out"]["a.weight"] == "its group is marked as not prunable"


def test_patterns_run_along_the_inputs_of_each_module():
    """Hugging Face's Conv1D and transposed convolutions have them in front."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"linear": nn.Linear(8, 6), "conv1d": Conv1D(6, 8), "up": nn.ConvTranspose2d(8, 6, 2), "odd": Conv1D(8, 6)}
    )
    prune = Prune(sparsity=0.5, total_steps=1, start=0, end=1, every=1, pattern="2:4", score="magnitude")
    optimizer = AdamWPrune(param_groups(model, weight_decay=0.0), prune=prune)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    masks = optimizer.pruner.named_masks()
    assert masks.keys() == {"linear.weight", "conv1d.weight", "up.weight"}
    assert optimizer.pruner.report()["left_out"]["odd.weight"] == "its 6 inputs are not a multiple of 4 (pattern 2:4)"
    assert (masks["linear.weight"].view(-1, 4).sum(1) == 2).all()
    for name in ("conv1d.weight", "up.weight"):
        assert (masks[name].transpose(0, -1).reshape(-1, 4).sum(1) == 2).all(), name
