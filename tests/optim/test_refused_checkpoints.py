# SPDX-License-Identifier: MIT
"""Checkpoints that cannot be right are refused before anything is loaded."""

from __future__ import annotations

import copy

import pytest
import torch
from lab import mlp, prune, train

from adamwprune import AdamWPrune, AdamWSPAM, attach


def own(model, **settings):
    return AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(**settings))


def theirs(model, **settings):
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=0.01)
    attach(optimizer, prune(**settings))
    return optimizer


KINDS = {"ours": own, "attached": theirs}


@pytest.fixture(params=KINDS)
def pruned(request):
    model = mlp()
    optimizer = KINDS[request.param](model, distribution="global")
    train(model, optimizer, 1, 12)
    return KINDS[request.param], model, copy.deepcopy(optimizer.state_dict())


def refused(optimizer, saved, message):
    """Loading raises, and the optimizer is as it was."""
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)
    after = optimizer.state_dict()
    assert before["param_groups"] == after["param_groups"]
    assert before["state"].keys() == after["state"].keys()
    for key, state in before["state"].items():
        assert all(torch.equal(value, after["state"][key][name]) for name, value in state.items())


def test_lost_marks(pruned):
    make, _, saved = pruned
    for state in saved["state"].values():
        state["exp_avg_sq"] += 0.0
        state.pop("prune_mask", None)
    refused(make(mlp()), saved, r"weights are pruned, but its state marks 0: the marks were lost.*earlier checkpoint")


def test_marks_of_one_tensor_lost(pruned):
    make, _, saved = pruned
    saved["state"][0]["exp_avg_sq"] += 0.0
    saved["state"][0].pop("prune_mask", None)
    refused(make(mlp()), saved, "the marks were lost")


def test_another_scope(pruned):
    make, _, saved = pruned
    refused(make(mlp(), exclude=("0.weight",)), saved, r"masks 0\.weight, which this optimizer does not prune")


def test_another_pattern(pruned):
    make, _, saved = pruned
    refused(make(mlp(), pattern="2:4"), saved, r"pruned with pattern=None, not '2:4': use the same pattern")


def test_a_record_of_a_later_release(pruned):
    make, _, saved = pruned
    saved["param_groups"][0]["prune"]["version"] = 2
    refused(make(mlp()), saved, "record has version 2")


def test_a_checkpoint_of_another_model(pruned):
    make, _, saved = pruned
    other = torch.nn.Sequential(torch.nn.Linear(8, 10), torch.nn.ReLU(), torch.nn.Linear(10, 8), torch.nn.Linear(8, 4))
    refused(make(other), saved, "mask of 80 weights|the marks were lost|of another model")


def test_another_number_of_parameters(pruned):
    make, _, saved = pruned
    refused(
        make(torch.nn.Sequential(torch.nn.Linear(8, 12))),
        saved,
        "doesn't match the size|parameter group|the marks were lost",
    )


def test_weights_of_another_checkpoint_are_noticed_at_the_first_step(pruned):
    make, model, saved = pruned
    other = mlp(seed=1)
    optimizer = make(other, distribution="global")
    optimizer.load_state_dict(saved)
    before = copy.deepcopy(other.state_dict())
    with pytest.raises(ValueError, match=r"of 0\.weight are not zero though .* masks them: load the model's weights"):
        train(other, optimizer, 13, 13)
    assert all(torch.equal(x, before[k]) for k, x in other.state_dict().items())
    other.load_state_dict(model.state_dict())
    train(other, optimizer, 13, 14)
    assert optimizer.pruner.at_target


def test_the_way_out_that_the_message_names_works(pruned):
    make, model, saved = pruned
    for state in saved["state"].values():
        state["exp_avg_sq"] += 0.0
        state.pop("prune_mask", None)
    for group in saved["param_groups"]:
        del group["prune"]
    optimizer = make(model)
    optimizer.load_state_dict(saved)
    assert optimizer.pruner.step == 0
    train(model, optimizer, 1, 12)
    assert optimizer.pruner.at_target


def test_a_dense_optimizer_takes_a_pruned_checkpoint_as_torch_does(pruned):
    _, trained, saved = pruned
    model = copy.deepcopy(trained)
    optimizer = AdamWPrune(model.named_parameters(), lr=0.01)
    optimizer.load_state_dict({**saved, "state": {k: dict(s) for k, s in saved["state"].items()}})
    train(model, optimizer, 13, 14)
    assert model[0].weight.count_nonzero() > trained[0].weight.count_nonzero() + 20


def test_marks_without_a_record_are_not_taken_for_a_dense_checkpoint():
    """The record may be lost on the way (flattened by a framework) while the marks are still there."""
    model = mlp()
    optimizer = own(model)
    train(model, optimizer, 1, 12)
    saved = copy.deepcopy(optimizer.state_dict())
    for group in saved["param_groups"]:
        del group["prune"]
    refused(own(mlp()), saved, "mark")


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_a_movement_buffer_of_another_shape(make):
    model = mlp()
    optimizer = make(model, score="movement")
    train(model, optimizer, 1, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["prune_movement"] = torch.zeros(3)
    refused(
        make(mlp(), score="movement"), saved, r"prune_movement of 0\.weight has shape \[3\], and the weight \[12, 8\]"
    )


@pytest.mark.parametrize("change", [{"offsets": [0]}, {"version": 2}], ids=["offsets", "version"])
def test_a_damaged_record_of_resets(change):
    model = mlp()
    optimizer = AdamWSPAM(model.named_parameters())
    train(model, optimizer, 1, 3)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["param_groups"][0]["spam"] |= change
    refused(AdamWSPAM(mlp().named_parameters()), saved, "the checkpoint's spam record has version")
