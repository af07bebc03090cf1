# SPDX-License-Identifier: MIT
"""torch.distributed.checkpoint of an FSDP2 model: saved by two ranks, loaded by one, by three, and by plain AdamW."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lab import mlp, prune, train
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import adamwprune as ap

OTHERS = {"AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD, "RMSprop": torch.optim.RMSprop}


def make(settings, plain=False):
    """A model that the ranks share, and its optimizer."""
    model = mlp()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for module in model:
        if list(module.parameters()):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    if plain:
        return model, torch.optim.AdamW(model.named_parameters(), lr=0.01)
    return model, single(model, settings)


def single(model, settings):
    if "attached" in settings:
        settings = dict(settings)
        optimizer = OTHERS[settings.pop("attached")](model.named_parameters(), lr=0.01)
        ap.attach(optimizer, prune(**settings))
        return optimizer
    settings = dict(settings)
    options = settings.pop("optimizer", {})
    return ap.AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(**settings), **options)


def whole(state):
    return {name: x.full_tensor() if isinstance(x, DTensor) else x for name, x in state.items()}


def state_dict(model, optimizer, flatten):
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    return {
        "model": get_model_state_dict(model),
        "optimizer": get_optimizer_state_dict(model, optimizer, options=options),
    }


def take_up(model, optimizer, folder, flatten):
    """Load a checkpoint into a model and its optimizer."""
    loaded = state_dict(model, optimizer, flatten)
    dcp.load(loaded, checkpoint_id=folder)
    set_model_state_dict(model, loaded["model"])
    options = StateDictOptions(flatten_optimizer_state_dict=flatten)
    set_optimizer_state_dict(model, optimizer, loaded["optimizer"], options=options)


def save(rank, folder, settings, flatten):
    """Seven steps, as one process takes them, and a checkpoint."""
    model, optimizer = make(settings)
    train(model, optimizer, 1, 7)
    other = mlp()
    reference = single(other, settings)
    train(other, reference, 1, 7)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p.full_tensor(), q)
        assert p.grad is None or torch.equal(p.grad.full_tensor(), q.grad)
    dcp.save(state_dict(model, optimizer, flatten), checkpoint_id=folder)


def load(rank, folder, settings, flatten):
    """The checkpoint on other ranks is the state of one process, and training goes on as there."""
    model, optimizer = make(settings)
    take_up(model, optimizer, folder, flatten)
    other = mlp()
    reference = single(other, settings)
    train(other, reference, 1, 7)
    assert optimizer.pruner.step == 7
    assert optimizer.pruner.report()["tensors"] == reference.pruner.report()["tensors"]
    mine, theirs = optimizer.state_dict()["state"], reference.state_dict()["state"]
    assert mine.keys() == theirs.keys()
    for number, entry in theirs.items():
        found = whole(mine[number])
        assert entry.keys() == found.keys()
        for name, value in entry.items():
            assert torch.equal(found[name], value), name
            assert torch.equal(found[name].signbit(), value.signbit()), name
    for name, mask in whole(optimizer.pruner.named_masks()).items():
        assert torch.equal(mask, reference.pruner.named_masks()[name])
    train(model, optimizer, 8, 14)
    train(other, reference, 8, 14)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.full_tensor(), q.detach())
    assert optimizer.pruner.at_target


def load_plain(rank, folder):
    """torch's AdamW takes the same checkpoint, dense."""
    model, optimizer = make({}, plain=True)
    take_up(model, optimizer, folder, flatten=False)
    other = mlp()
    reference = single(other, {})
    train(other, reference, 1, 7)
    plain = torch.optim.AdamW(other.named_parameters(), lr=0.01)
    plain.load_state_dict(reference.state_dict())
    del reference  # and with it the hooks that mask gradients
    train(model, optimizer, 8, 8)
    train(other, plain, 8, 8)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.full_tensor(), q.detach())


CASES = [
    ({}, False),
    ({}, True),
    ({"score": "movement"}, False),
    ({"score": "movement"}, True),
    ({"attached": "AdamW"}, False),
    ({"attached": "AdamW"}, True),
    ({"attached": "SGD", "score": "movement"}, False),
    ({"attached": "SGD", "score": "movement"}, True),
    ({"attached": "RMSprop", "score": "magnitude"}, True),
]


@pytest.mark.parametrize(("settings", "flatten"), CASES)
def test_two_ranks_save_and_one_or_three_load(ranks, tmp_path, settings, flatten):
    ranks(2, save, str(tmp_path), settings, flatten)
    for world in (1, 3):
        ranks(world, load, str(tmp_path), settings, flatten)


def test_plain_adamw_loads_it(ranks, tmp_path):
    ranks(2, save, str(tmp_path), {}, False)
    ranks(3, load_plain, str(tmp_path))


def load_whole(rank, folder, settings):
    """One process that spreads nothing takes the checkpoint of ranks that did."""
    model = mlp()
    optimizer = single(model, settings)
    take_up(model, optimizer, folder, flatten=True)
    other = mlp()
    reference = single(other, settings)
    train(other, reference, 1, 14)
    train(model, optimizer, 8, 14)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("settings", [{}, {"attached": "SGD", "score": "movement"}], ids=["ours", "SGD"])
def test_one_process_without_shards_loads_it(ranks, tmp_path, settings):
    ranks(2, save, str(tmp_path), settings, True)
    ranks(1, load_whole, str(tmp_path), settings)


def whole_and_back(rank, settings):
    """`full_state_dict=True`: tensors are put together for the checkpoint, and spread again from the first rank's."""
    model, optimizer = make(settings)
    train(model, optimizer, 1, 7)
    options = StateDictOptions(full_state_dict=True)
    weights = copy.deepcopy(get_model_state_dict(model, options=options))
    saved = copy.deepcopy(get_optimizer_state_dict(model, optimizer, options=options))
    train(model, optimizer, 8, 14)
    assert optimizer.pruner.at_target
    for broadcast in (False, True):
        options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=broadcast)
        other, resumed = make(settings)
        set_model_state_dict(other, copy.deepcopy(weights), options=options)
        set_optimizer_state_dict(other, resumed, copy.deepcopy(saved), options=options)
        assert resumed.pruner.step == 7
        train(other, resumed, 8, 14)
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(p.full_tensor(), q.full_tensor())


SPAM = {"base": "adamwspam", "spam": ap.Spam(interval=5, min_age=2, warmup=2)}


@pytest.mark.parametrize(
    "settings", [{}, {"optimizer": SPAM}, {"attached": "SGD", "score": "movement"}], ids=["AdamW", "SPAM", "SGD"]
)
def test_whole_state_dicts_go_out_and_back(ranks, settings):
    ranks(2, whole_and_back, settings)


def probe(rank):
    """The step that torch.distributed.checkpoint takes to make state: only one of the ranks has weights to see."""
    model, optimizer = make({"score": "magnitude", "start": 0, "every": 1})
    for _ in range(2):
        get_optimizer_state_dict(model, optimizer)
    assert optimizer.pruner.step == 0
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    if rank == 1:
        next(model.parameters()).grad.to_local().fill_(1.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert optimizer.pruner.step == 1


def test_all_ranks_agree_on_what_a_probe_is(ranks):
    ranks(3, probe)
