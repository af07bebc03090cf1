# SPDX-License-Identifier: MIT
"""Processes that run a function on 1 to 4 gloo ranks and say what it returned."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

#: Seconds until ranks that wait for each other are given up.
PATIENCE = 100

_HANGS = "did not end"


class Workers:
    """Up to four ranks. Called with a module-level function: ``ranks(2, function, *arguments)``."""

    def __init__(self) -> None:
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []

    def __call__(self, world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What ``function(rank, *arguments)`` returned on each rank.

        Raises:
            AssertionError: it raised on a rank, or did not end; with the ranks' tracebacks.
        """
        self._start(world)
        with tempfile.TemporaryDirectory() as folder:
            for rank in range(world):
                self._pipes[rank].send((rank, world, str(Path(folder) / "store"), function, arguments))
            answers = [pipe.recv() if pipe.poll(PATIENCE) else (_HANGS, None) for pipe in self._pipes[:world]]
        failed = {rank: error for rank, (error, _) in enumerate(answers) if error}
        if failed:
            if any(error == _HANGS for error in failed.values()):
                self.stop()
            raise AssertionError("\n".join(f"rank {rank}: {error}" for rank, error in failed.items()))
        return [result for _, result in answers]

    def _start(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        while len(self._processes) < count:
            mine, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, sys.path), daemon=True)
            process.start()
            self._pipes.append(mine)
            self._processes.append(process)
        for pipe in self._pipes[:count]:
            pipe.send("ready?")
        for pipe in self._pipes[:count]:
            assert pipe.recv() == "ready"

    def stop(self) -> None:
        """End the processes; the next call starts new ones."""
        for process in self._processes:
            process.kill()
            process.join()
        self._pipes, self._processes = [], []


def _serve(pipe: Connection, path: list[str]) -> None:
    sys.path[:] = path
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    import torch.distributed.tensor
    import torch.nn.parallel

    while True:
        assert pipe.recv() == "ready?"
        pipe.send("ready")
        rank, world, store, function, arguments = pipe.recv()
        try:
            dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
            result = function(rank, *arguments)
            dist.barrier()
            answer = (None, result)
        except Exception:
            answer = (traceback.format_exc(), None)
        # Ranks that wait for one that failed are told by their connection.
        dist.destroy_process_group()
        pipe.send(answer)
