# SPDX-License-Identifier: MIT
"""Checkpoints: on disk the state is AdamW's own, and masks are marks in it.

A pruned weight's entry of ``exp_avg_sq`` is -0.0. No live entry can be: v starts at +0.0, and ``v*b2 + (1-b2)*g*g`` of
non-negative terms is never -0.0. The sign survives every cast between floating dtypes, ``weights_only`` loading and
resharding, and torch's AdamW trains on from it (its first step turns the marks into +0.0). A plain ``prune`` record in
each parameter group tells how many weights the marks must name, so that lost marks are noticed.

An optimizer that is attached to may keep no ``exp_avg_sq``; its masks travel as ``prune_mask``, a byte a weight, which
can be spread over ranks as the weight is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adamwprune.kernels import formats
from adamwprune.kernels.reference import expand
from adamwprune.optim.forms import Form, spread_units
from adamwprune.optim.groups import parameters
from adamwprune.optim.layout import PER_WEIGHT, decoded
from adamwprune.optim.places import MASK, MOVEMENT, carries_marks
from adamwprune.optim.pruner import Pruner
from adamwprune.optim.record import Loaded
from adamwprune.optim.slots import Slot
from adamwprune.prune.masks import Mask
from adamwprune.prune.shards import like, local, ranks_of

#: Entries of a parameter's state that are ours, and that torch would cast to the weight's dtype on loading.
_OURS = (MASK, MOVEMENT, formats.CORRECTION, *formats.UNITS.values())


def export(state_dict: dict[str, Any], optimizer: torch.optim.Optimizer, pruner: Pruner | None) -> None:
    """Turn a state dict just made by torch into the form on disk, in place; live state is not touched."""
    for number, (group, saved) in enumerate(zip(optimizer.param_groups, state_dict["param_groups"], strict=True)):
        if pruner is not None:
            saved["prune"] = pruner.record(number)
        for p, key in zip(group["params"], saved["params"], strict=True):
            slot = pruner.slots.get(p) if pruner is not None else None
            live = state_dict["state"].get(key, {})
            masked = slot is not None and (slot.mask is not None or slot.movement is not None or MASK in live)
            if masked or formats.Units.of(live) is not None:
                state_dict["state"][key] = _export_entry(dict(live), slot or Slot("", p, number))
    if any(MASK in entry for entry in state_dict["state"].values()):
        # torch.distributed.checkpoint wants an entry for each tensor or for none, and plain SGD has none for biases.
        for key in parameters(state_dict["param_groups"]):
            state_dict["state"].setdefault(key, {})


def _export_entry(entry: dict[str, Any], slot: Slot) -> dict[str, Any]:
    """Dense float moments, whatever layout and form they are in; the units of codes go along, so nothing drifts."""
    mask, weight = slot.mask, slot.weight
    shape = local(weight).shape
    stored = mask if slot.compact else None
    units = formats.Units.of(entry)
    if units is not None:
        for name, unit in formats.UNITS.items():
            moment = decoded(name, local(entry[name]), units, stored)
            entry[name] = moment if stored is not None else like(moment, weight)
            entry[unit] = spread_units(entry[unit], weight)
    if slot.movement is not None:
        movement = slot.movement.view(shape).clone() if stored is None else expand(slot.movement, stored, shape)
        entry[MOVEMENT] = like(movement, weight)
    if mask is None:
        if MASK in entry:
            entry[MASK] = like(torch.ones(shape, dtype=torch.uint8, device=local(weight).device), weight)
        return entry
    if stored is not None:
        for name in PER_WEIGHT:
            if name in entry:
                fill = -0.0 if name == "exp_avg_sq" else 0.0
                entry[name] = like(expand(entry[name], stored, shape, fill), weight)
    elif carries_marks(entry, slot):
        entry["exp_avg_sq"] = like(local(entry["exp_avg_sq"]).masked_fill(~mask.to_bool(shape), -0.0), weight)
    else:
        entry[MASK] = like(mask.to_bool(shape).to(torch.uint8), weight)
    return entry


def read(state_dict: dict[str, Any], optimizer: torch.optim.Optimizer, pruner: Pruner) -> Loaded:
    """Read masks and the schedule's place.

    Raises:
        ValueError: the record and the marks disagree, or do not fit this optimizer's scope or pattern.
    """
    loaded = Loaded()
    ours = [len(group["params"]) for group in optimizer.param_groups]
    theirs = [len(saved["params"]) for saved in state_dict["param_groups"]]
    if ours != theirs:
        raise ValueError(
            f"the checkpoint has parameter groups of {theirs} tensors and this optimizer of {ours}: it is of another "
            "model, or its groups were made another way"
        )
    masks = _read_masks(state_dict, optimizer, pruner)
    for group, saved in zip(optimizer.param_groups, state_dict["param_groups"], strict=True):
        record = saved.get("prune") or {}
        if record:
            _check_target(record, pruner)
            loaded.step, loaded.last_update = record["step"], record["last_update"]
            loaded.waiting |= record.get("waiting", {})  # tools that flatten lose what is empty
        found, buffers = 0, len(loaded.movement)
        names = group.get("param_names", [str(key) for key in saved["params"]])
        for name, p, key in zip(names, group["params"], saved["params"], strict=True):
            entry = state_dict["state"].get(key, {})
            if p in masks:
                _check_scope(name, p, pruner)
                found += masks[p].masked + masks[p].elsewhere
                loaded.masks[p] = masks[p]
            if p in pruner.slots and MOVEMENT in entry and entry[MOVEMENT].numel():
                loaded.movement[p] = _read_movement(name, entry[MOVEMENT], p)
        _check_record(record, found, len(loaded.movement) - buffers, pruner)
    return loaded


def _read_movement(name: str, movement: Tensor, p: Tensor) -> Tensor:
    _check_shape(MOVEMENT, name, movement, p)
    return local(movement).reshape(-1).to(p.device, torch.float32, copy=True)


def _check_scope(name: str, p: Tensor, pruner: Pruner) -> None:
    if p not in pruner.slots:
        raise ValueError(
            f"the checkpoint masks {name}, which this optimizer does not prune "
            f"({pruner.left_out.get(name, 'it is unknown')}): use the same scope (include, exclude)"
        )


def _read_masks(state_dict: dict[str, Any], optimizer: torch.optim.Optimizer, pruner: Pruner) -> dict[Tensor, Mask]:
    """The masks of all tensors that have masked weights, on this rank or another."""
    params, keys = parameters(optimizer.param_groups), parameters(state_dict["param_groups"])
    masks = {p: _read_mask(state_dict["state"].get(key, {}), p) for p, key in zip(params, keys, strict=True)}
    ranks = ranks_of(pruner.slots) if pruner.prune.sparsity else None
    if ranks is not None:
        here = torch.tensor([0 if mask is None else mask.masked for mask in masks.values()])
        for mask, elsewhere in zip(masks.values(), (ranks.sum(here) - here).tolist(), strict=True):
            if mask is not None:
                mask.elsewhere = elsewhere
    return {p: mask for p, mask in masks.items() if mask is not None and mask.masked + mask.elsewhere}


def _read_mask(entry: dict[str, Any], p: Tensor) -> Mask | None:
    marks = entry.get(MASK, entry.get("exp_avg_sq"))
    if not isinstance(marks, Tensor) or marks.is_complex():
        return None
    if MASK in entry and marks.dim() == 1 and marks.numel():  # packed bits, as of the first checkpoints
        return Mask.from_bits(marks, p.numel())
    if marks.shape != p.shape:
        return None
    _check_spread(marks, p)
    marks = local(marks)
    return Mask.from_bool(marks != 0 if MASK in entry else ~((marks == 0) & marks.signbit()))


def _check_record(record: dict[str, Any], found: int, buffers: int, pruner: Pruner) -> None:
    if not record:
        if found:
            raise ValueError(
                f"the checkpoint marks {found} weights as pruned, but the 'prune' record of its param_groups is gone: "
                "a tool dropped it. Restore it, or turn -0.0 in exp_avg_sq into 0.0 to load the file as a dense one"
            )
        return
    if record.get("version") != 1:
        raise ValueError(f"the checkpoint's prune record has version {record.get('version')!r}: this release reads 1")
    if record["masked"] != found:
        raise ValueError(
            f"the checkpoint says that {record['masked']} weights are pruned, but its state marks {found}: the marks "
            "were lost (another optimizer trained on from it) or damaged. Resume from an earlier checkpoint, or delete "
            "the 'prune' entries of its param_groups to start from it as a dense one"
        )
    if record["movement"] > buffers:
        raise ValueError(
            f"the checkpoint's record names {record['movement']} movement buffers, and {buffers} are there for this "
            "optimizer: a tool dropped them, or the scope is another"
        )
    if found and record["pattern"] != pruner.prune.pattern:
        raise ValueError(
            f"the checkpoint was pruned with pattern={record['pattern']!r}, not {pruner.prune.pattern!r}: "
            "use the same pattern"
        )


def _check_target(record: dict[str, Any], pruner: Pruner) -> None:
    """ValueError where more is to be pruned, and the schedule's last mask update lies behind."""
    last, end = record["last_update"], pruner.end
    if last is not None and end is not None and last >= end and record["sparsity"] < pruner.prune.sparsity:
        raise ValueError(
            f"the checkpoint was pruned to sparsity={record['sparsity']!r} at step {last}, and this schedule ends at "
            f"step {end}, so that sparsity={pruner.prune.sparsity!r} would never be reached: make total_steps and end "
            "larger, or load the weights alone and begin anew"
        )


def check_shapes(state_dict: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """ValueError where a moment or correction is not of its weight's shape; torch would load it all the same."""
    for group, saved in zip(optimizer.param_groups, state_dict["param_groups"], strict=False):
        names = group.get("param_names", saved["params"])
        for name, p, key in zip(names, group["params"], saved["params"], strict=False):
            for what in PER_WEIGHT:
                value = state_dict["state"].get(key, {}).get(what)
                if isinstance(value, Tensor):
                    _check_shape(what, name, value, p)


def _check_shape(what: str, name: str, value: Tensor, p: Tensor) -> None:
    if value.shape != p.shape:
        raise ValueError(
            f"the checkpoint's {what} of {name} has shape {list(value.shape)}, and the weight {list(p.shape)}: it is "
            "of another model, or its parameters were in another order"
        )
    _check_spread(value, p)


def _check_spread(value: Tensor, p: Tensor) -> None:
    if local(value).shape != local(p).shape:
        raise ValueError(
            f"a tensor of shape {list(p.shape)} is spread over ranks in another way than in the checkpoint: "
            "load with torch.distributed.checkpoint.state_dict.set_optimizer_state_dict, which spreads them"
        )


def without_ours(state_dict: dict[str, Any]) -> dict[str, Any]:
    """A shallow copy that torch can load: our own entries are left out, as torch would cast their bits to floats."""
    state = {
        key: {name: value for name, value in entry.items() if name not in _OURS} if isinstance(entry, dict) else entry
        for key, entry in state_dict["state"].items()
    }
    # An entry that held nothing but ours belongs to an optimizer that keeps no state of its own.
    return {**state_dict, "state": {key: entry for key, entry in state.items() if entry}}


def restore_forms(state_dict: dict[str, Any], optimizer: torch.optim.Optimizer, form: Form) -> None:
    """Undo torch's casts, which narrow what was saved wider than its weight: state takes the form that was asked for.

    Where none was, state saved wider than the weight (float32 under bfloat16) keeps its type.
    """
    for p, key in zip(parameters(optimizer.param_groups), parameters(state_dict["param_groups"]), strict=True):
        saved = state_dict["state"].get(key, {})
        if "exp_avg" in saved and form.covers(p):
            optimizer.state[p].update(form.load(saved, p))
            continue
        for name, value in saved.items():
            if name == "step" or name in _OURS or not isinstance(value, Tensor) or not value.is_floating_point():
                continue
            if value.element_size() > p.element_size():
                optimizer.state[p][name] = value.to(p.device, copy=True).contiguous()
