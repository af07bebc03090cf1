# SPDX-License-Identifier: MIT
"""Small state, corrections and gradient release where rows are spread over ranks, HSDP included."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from lab import prune
from test_sharded_checkpoints import state_dict, whole
from test_shards import SHAPES, as_one_process
from torch import nn
from torch.distributed.checkpoint.state_dict import set_model_state_dict, set_optimizer_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard, distribute_tensor

import adamwprune as ap

BFLOAT16 = torch.bfloat16

#: Weights' type and options.
FORMS = {
    "float32": (BFLOAT16, {"state": "float32"}),
    "bfloat16": (torch.float32, {"state": "bfloat16"}),
    "corrected": (BFLOAT16, {"correction": True}),
    "8bit": (torch.float32, {"state": "8bit"}),
    "8bit corrected": (BFLOAT16, {"state": "8bit", "correction": True}),
}


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_rows_of_whole_groups_train_as_on_one_process(ranks, world, form):
    """Rounding noise and units go by the place in the whole tensor."""
    dtype, options = FORMS[form]
    shapes = (*SHAPES, (21, 256))
    ranks(world, as_one_process, ap.AdamWPrune, {"lr": 0.01, **options}, {}, False, shapes, dtype)


#: The weight of the net of which groups straddle rows and ranks.
STRADDLED = (180, 24)


def net(dtype):
    """Rows of whole groups, rows that groups straddle, and vectors."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(256, 24), nn.ReLU(), nn.Linear(24, 180)).to(dtype)


def sharded(dtype, mesh, **options):
    """The net spread over a mesh, and its optimizer."""
    model = net(dtype)
    for module in model:
        if list(module.parameters()):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model, ap.AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(), **options)


def steps(model, optimizer, first, last):
    dtype = next(model.parameters()).dtype
    for step in range(first, last + 1):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        loss = (model(torch.randn(6, 256, generator=generator).to(dtype)) - 1.0).float().square().mean()
        loss.backward()
        optimizer.step()


def flat_mesh():
    return init_device_mesh("cpu", (dist.get_world_size(),))


def replicated_mesh():
    return init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))


def exported(optimizer):
    return {number: whole(entry) for number, entry in optimizer.state_dict()["state"].items()}


def save(rank, folder, form, mesh):
    dtype, options = FORMS[form]
    model, optimizer = sharded(dtype, mesh(), **options)
    steps(model, optimizer, 1, 7)
    dcp.save(state_dict(model, optimizer, False), checkpoint_id=folder)
    return exported(optimizer)


def load(rank, folder, form, mesh, saved, exact):
    """What is loaded is what was saved: bit for bit, or rounded once where groups are others; and the run goes on."""
    dtype, options = FORMS[form]
    model, optimizer = sharded(dtype, mesh(), **options)
    loaded = state_dict(model, optimizer, False)
    dcp.load(loaded, checkpoint_id=folder)
    set_model_state_dict(model, loaded["model"])
    set_optimizer_state_dict(model, optimizer, loaded["optimizer"])
    found, straddled = exported(optimizer), 0
    assert found.keys() == saved.keys()
    for number, entry in saved.items():
        assert found[number].keys() == entry.keys()
        if not exact and entry["exp_avg"].shape == STRADDLED and "exp_avg_unit" in entry:
            straddled += 1
            assert torch.equal(found[number]["exp_avg_sq"].signbit(), entry["exp_avg_sq"].signbit())
            # Half of the widest step between codes, of a group's largest entry.
            for name, error in (("exp_avg", 0.5 * (127**2 - 126**2) / 127**2), ("exp_avg_sq", 0.5 * 4 / 255)):
                difference = (found[number][name] - entry[name]).abs().max()
                assert 0 < difference < error * entry[name].abs().max()
            continue
        for name, value in entry.items():
            assert torch.equal(found[number][name], value), name
    assert straddled == (not exact and "8bit" in form)
    steps(model, optimizer, 8, 14)
    assert optimizer.pruner.at_target


@pytest.mark.parametrize("form", ["bfloat16", "8bit corrected"])
def test_checkpoints_go_to_other_numbers_of_ranks(ranks, tmp_path, form):
    saved = ranks(2, save, str(tmp_path), form, flat_mesh)[0]
    for world in (1, 2, 3):
        ranks(world, load, str(tmp_path), form, flat_mesh, saved, world == 2)


def of_one_process(dtype, options):
    model = net(dtype)
    return model, ap.AdamWPrune(model.named_parameters(), lr=0.01, prune=prune(), **options)


def from_one_process(rank, folder, form):
    """Shards take what one process saved, the codes of whole groups as they are."""
    dtype, options = FORMS[form]
    other, single = of_one_process(dtype, options)
    steps(other, single, 1, 7)
    if rank == 0:
        dcp.save(state_dict(other, single, False), checkpoint_id=folder, no_dist=True)
    dist.barrier()
    load(rank, folder, form, flat_mesh, exported(single), False)


def test_a_checkpoint_of_one_process_goes_to_ranks(ranks, tmp_path):
    ranks(2, from_one_process, str(tmp_path), "8bit")


def hybrid(rank, form):
    """Shards with replicas are the run of one process, where every sum over ranks is exact, and agree everywhere."""
    dtype, options = FORMS[form]
    model, optimizer = sharded(dtype, replicated_mesh(), **options)
    other, single = of_one_process(dtype, options)
    for step in range(1, 15):
        steps(model, optimizer, step, step)
        steps(other, single, step, step)
        masks = whole(optimizer.pruner.named_masks())
        assert masks.keys() == single.pruner.named_masks().keys()
        for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
            if "8bit" in form and p.shape == STRADDLED:
                q.data.copy_(p.full_tensor())
                continue
            assert torch.equal(p.full_tensor(), q), name
            assert name not in masks or torch.equal(masks[name], single.pruner.named_masks()[name])
    assert optimizer.pruner.at_target
    for entry in exported(optimizer).values():
        for value in entry.values():
            twins = [torch.empty_like(value) for _ in range(dist.get_world_size())]
            dist.all_gather(twins, value.contiguous())
            assert all(torch.equal(value, twin) for twin in twins)


@pytest.mark.parametrize("form", ["bfloat16", "8bit"])
def test_shards_with_replicas(ranks, form):
    ranks(4, hybrid, form)


def test_checkpoints_of_shards_with_replicas(ranks, tmp_path):
    saved = ranks(4, save, str(tmp_path), "8bit", replicated_mesh)[0]
    ranks(3, load, str(tmp_path), "8bit", flat_mesh, saved, False)
    ranks(4, load, str(tmp_path), "8bit", replicated_mesh, saved, True)


def released(rank, mesh):
    """Stepping during backward gives the run of stepping after it."""
    runs = [sharded(torch.float32, mesh(), state="8bit", release_gradients=release) for release in (True, False)]
    for model, optimizer in runs:
        steps(model, optimizer, 1, 14)
        assert optimizer.pruner.step == 14
        assert optimizer.pruner.at_target
    (model, _), (other, _) = runs
    assert all(p.grad is None for p in model.parameters())
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p.to_local(), q.to_local()), name


@pytest.mark.parametrize(("world", "mesh"), [(3, flat_mesh), (4, replicated_mesh)], ids=["shards", "replicas"])
def test_released_gradients(ranks, world, mesh):
    ranks(world, released, mesh)


def refused(rank):
    """Columns that are split, and state of whole tensors."""
    mesh = flat_mesh()
    columns = [("a.weight", nn.Parameter(distribute_tensor(torch.ones(64, 64), mesh, [Shard(1)])))]
    with pytest.raises(ValueError, match="sharded over one dimension"):
        ap.AdamWPrune(columns, state="8bit")
    ap.AdamWPrune(columns)
    other, single = of_one_process(torch.float32, {"state": "8bit"})
    steps(other, single, 1, 1)
    _, optimizer = sharded(torch.float32, mesh, state="8bit")
    with pytest.raises(ValueError, match="spread over ranks in another way"):
        optimizer.load_state_dict(single.state_dict())
    assert not optimizer.state


def test_what_cannot_be_taken_is_refused(ranks):
    ranks(2, refused)
