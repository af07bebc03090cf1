# SPDX-License-Identifier: MIT
"""A network whose weights are spread over the ranks (FSDP2), and its whole state in files.

Checkpoints are those of one process: they are put together on rank 0, and every rank takes its rows from them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adamwprune.models import BLOCKS
from adamwprune.optim.groups import parameters
from adamwprune.prune.shards import everywhere, local
from adamwprune.training import ranks


def spread(model: nn.Module, device: str) -> None:
    """Keep a share of every weight's rows on this rank; a block's weights are gathered while it computes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device, (ranks.size(),))
    for module in [block for block in model.modules() if isinstance(block, BLOCKS)] + [model]:
        # The outermost too, which torch would keep gathered after a forward pass: averages are masked then.
        fully_shard(module, mesh=mesh, reshard_after_forward=True)


def whole(state: Any) -> Any:
    """A state dict with whole tensors, on rank 0; called on all ranks. Of a network that is not spread, itself."""
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    if isinstance(state, list):
        return [whole(value) for value in state]
    if not isinstance(state, Tensor) or local(state) is state:
        return state
    full = everywhere(state)
    return full.cpu() if ranks.rank() == 0 else None


def load(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a network the weights of a whole state dict."""
    model.load_state_dict({name: rows(state[name], p) for name, p in model.state_dict().items()})


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer the state of a whole state dict."""
    keys = parameters(state["param_groups"])
    entries = {
        key: {name: rows(value, p) for name, value in state["state"][key].items()}
        for key, p in zip(keys, parameters(optimizer.param_groups), strict=True)
        if key in state["state"]
    }
    optimizer.load_state_dict({**state, "state": entries})


def rows(value: Any, p: Tensor) -> Any:
    """A whole tensor of ``p``'s shape, spread as ``p`` is; anything else as it is."""
    if local(p) is p or not isinstance(value, Tensor) or value.shape != p.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    # Every rank has read the same file: nothing needs to be sent.
    return distribute_tensor(value.to(p.device), p.device_mesh, p.placements, src_data_rank=None)  # type: ignore[attr-defined]
