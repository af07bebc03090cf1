# SPDX-License-Identifier: MIT
"""Bytes between two ranks: a step's gradients with DistributedDataParallel, and a mask update's counts with shards.

    python benchmarks/ddp_bytes.py [--width 1024] [--depth 4]

Two processes on gloo train a stack of linear layers. A row says what one rank hands to the collectives in a step, and
what both send over the loopback interface: the processes run in a network namespace of their own, so that nothing else
is counted (null where the system allows none). The rows go to results/benchmarks/ddp_bytes.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import record
import tables
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

import adamwprune as ap

RANKS = 2
SPARSITIES = (0.0, 0.5, 0.7, 0.9, 0.95)
STEPS = 5


class Counter:
    """What this rank hands to the collectives, and what the loopback interface carries, while it is open."""

    def __enter__(self) -> Counter:
        self.messages, self.handed = 0, 0
        self._plain = {name: getattr(dist, name) for name in ("all_reduce", "all_gather")}
        for name, collective in self._plain.items():
            setattr(dist, name, self._counted(collective, last=name == "all_gather"))
        dist.barrier()
        self._before = loopback()
        return self

    def _counted(self, collective: Callable[..., Any], *, last: bool) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            tensor = arguments[1 if last else 0]
            self.messages += 1
            self.handed += tensor.numel() * tensor.element_size()
            return collective(*arguments, **options)

        return counted

    def __exit__(self, *_: object) -> None:
        dist.barrier()
        self.wire = loopback() - self._before
        for name, collective in self._plain.items():
            setattr(dist, name, collective)


def loopback() -> int:
    """Bytes sent over the loopback interface of this network namespace."""
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


def exchange(width: int, depth: int, sparsity: float, kept_only: bool) -> dict[str, Any]:
    """A training step's gradients, per step."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(depth)))
    wrapped = DistributedDataParallel(model)
    prune = ap.Prune(sparsity=sparsity, total_steps=2 + STEPS, start=0, end=1, every=1)
    optimizer = ap.AdamWPrune(model.named_parameters(), lr=1e-3, prune=prune)
    if kept_only:
        ap.reduce_kept_gradients(wrapped, optimizer)

    def step() -> None:
        optimizer.zero_grad()
        wrapped(torch.randn(4, width)).square().mean().backward()
        optimizer.step()

    step()
    step()
    with Counter() as counter:
        for _ in range(STEPS):
            step()
    assert optimizer.pruner is not None
    weights = sum(p.numel() for p in model.parameters())
    return {
        "what": "gradients, kept" if kept_only else "gradients, plain",
        "sparsity": optimizer.pruner.sparsity,
        "weights": weights,
        "tensors": depth,
        # DDP's own exchange is made in C++, where it is not counted.
        "handed_bytes": counter.handed / STEPS if kept_only else 4 * weights,
        "messages": counter.messages / STEPS if kept_only else None,
        "wire_bytes": counter.wire / STEPS,
    }


def update(width: int, depth: int, distribution: str) -> dict[str, Any]:
    """A mask update of tensors whose rows are spread over the ranks."""
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (RANKS,))
    named = [
        (f"{i}.weight", nn.Parameter(distribute_tensor(torch.randn(width, width), mesh, [Shard(0)])))
        for i in range(depth)
    ]
    prune = ap.Prune(sparsity=0.5, total_steps=4, start=0, end=1, every=1, distribution=distribution)
    optimizer = ap.AdamWPrune(named, lr=1e-3, prune=prune)
    for _, p in named:
        p.grad = distribute_tensor(torch.randn(width, width), mesh, [Shard(0)])
    with Counter() as counter:
        optimizer.step()
    assert optimizer.pruner is not None
    return {
        "what": f"mask update, {distribution}",
        "sparsity": optimizer.pruner.sparsity,
        "weights": width * width * depth,
        "tensors": depth,
        "handed_bytes": counter.handed,
        "messages": counter.messages,
        "wire_bytes": counter.wire,
    }


def rank_main(rank: int, store: str, width: int, depth: int) -> None:
    """All measurements on one rank; rank 0 prints the rows."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    rows = [exchange(width, depth, 0.0, kept_only=False)]
    rows += [exchange(width, depth, sparsity, kept_only=True) for sparsity in SPARSITIES]
    rows += [update(width, depth, distribution) for distribution in ("layer", "global")]
    dist.barrier()
    dist.destroy_process_group()
    if rank == 0:
        print(json.dumps(rows))


def measure(width: int, depth: int) -> list[dict[str, Any]]:
    """The rows, measured in a network namespace of their own where the system allows one."""
    own = [sys.executable, __file__, "--in-namespace", "--width", str(width), "--depth", str(depth)]
    apart = ["unshare", "--map-root-user", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *own]
    isolated = subprocess.run([*apart[: -len(own)], "true"], capture_output=True, check=False).returncode == 0
    done = subprocess.run(apart if isolated else own, stdout=subprocess.PIPE, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows if isolated else [{**row, "wire_bytes": None} for row in rows]


def main() -> None:
    """Measure, print and store."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--in-namespace", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_namespace:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(rank_main, (f"{folder}/store", options.width, options.depth), nprocs=RANKS)
        return
    settings = {"ranks": RANKS, "width": options.width, "depth": options.depth, "steps": STEPS}
    record.write("ddp_bytes", settings, measure(options.width, options.depth))
    print(tables.render("ddp_bytes"))


if __name__ == "__main__":
    main()
