# SPDX-License-Identifier: MIT
"""The Triton kernels on the card: against torch's fused AdamW, the reference, and the tests.

    python3 setup.py -q build_ext --inplace; PYTHONPATH=src python3 benchmarks/gpu/kernels_correct.py [--out FOLDER]

The tests compare bit for bit with the native CPU kernel where that was built. Exits with 1 where something is wrong.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from functools import partial
from typing import Any

import torch
from gpu_rows import ROOT, Rows, options
from tensors import named, pruned
from torch.optim.adam import adam

import adamwprune as ap
from adamwprune import kernels
from adamwprune.kernels import reference
from adamwprune.prune import SCORES
from adamwprune.prune.slices import View

#: Units of the last place that a fused step may differ by: it computes the first moment in another order.
FUSED_ULPS = 4

#: Share of entries that may differ from the reference's; it rounds every operation to bfloat16 where all is bfloat16.
DIFFERENT = {"bfloat16": 0.2}

#: Seconds that tests may take beyond the time in which rows are begun.
GRACE = 60.0

FORMS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {}),
    "bfloat16": (torch.bfloat16, {}),
    "bfloat16 weights, float32 moments": (torch.bfloat16, {"state": "float32"}),
    "bfloat16 exp_avg": (torch.float32, {"state": "bfloat16"}),
    "8bit": (torch.float32, {"state": "8bit"}),
    "8bit, correction": (torch.bfloat16, {"state": "8bit", "correction": True}),
}


def main() -> None:
    """Check every row that is not there yet."""
    rows = Rows("kernels_correct", options(__doc__))
    device, small = rows.device, rows.dry_run
    rows.measure("fused", lambda: against_fused(device, small))
    for name, (dtype, extra) in FORMS.items():
        for sparsity in (0.2, 0.5, 0.95):
            key = f"reference, {name}, {sparsity:.0%}"
            limit = DIFFERENT.get(name, 0.01)
            rows.measure(key, partial(against_reference, device, dtype, sparsity, extra, limit, small))
    for score in ("magnitude", "state", "hybrid"):
        rows.measure(f"selection, {score}", partial(selection, device, score, small))
    if not rows.dry_run:
        rows.measure("tests marked gpu", partial(tests, rows, "-m", "gpu", "tests/kernels", "tests/optim"))
        for path in sorted((ROOT / "tests" / "kernels").glob("test_triton_*.py")):
            rows.measure(f"tests, {path.stem}", partial(tests, rows, str(path)))
    sys.exit(1 if rows.failed else 0)


def against_fused(device: torch.device, small: bool) -> dict[str, Any]:
    """A step on compact state at 50 % beside torch's fused step on dense masked state."""
    tensors = named(device, torch.float32, small)
    optimizer = pruned(tensors, 0.5)
    worst = 0.0
    before = [_dense(optimizer, p) for _, p in tensors]
    optimizer.step()
    for (name, p), (weight, state, step) in zip(tensors, before, strict=True):
        keep = optimizer.pruner.named_masks()[name]
        moments = [state["exp_avg"]], [state["exp_avg_sq"]]
        settings = {"beta1": 0.9, "beta2": 0.999, "lr": 1e-4, "weight_decay": 1e-2, "eps": 1e-8}
        adam([weight], [p.grad * keep], *moments, [], [step], fused=device.type == "cuda", amsgrad=False,
             maximize=False, decoupled_weight_decay=True, **settings)  # fmt: skip
        # Where weight and update nearly cancel, their last places say nothing: distances are in those of the update.
        scale = torch.maximum(weight.abs(), p.detach().abs()).clamp_(min=1e-4)
        worst = max(worst, float(((weight - p.detach()).abs() / (scale * torch.finfo(torch.float32).eps)).max()))
    return {"ok": worst <= FUSED_ULPS, "ulps": worst}


def _dense(optimizer: ap.AdamWPrune, p: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor], torch.Tensor]:
    """Copies of a tensor's weights, dense moments and step count."""
    slot, state = optimizer.pruner.slots[p], optimizer.state[p]
    dense = {name: reference.expand(state[name], slot.mask, p.shape) for name in ("exp_avg", "exp_avg_sq")}
    return p.detach().clone(), dense, state["step"].to(p.device, copy=True)


def against_reference(
    device: torch.device, dtype: torch.dtype, sparsity: float, extra: dict[str, Any], limit: float, small: bool
) -> dict[str, Any]:
    """One step of the same tensors by both backends: how much of what they leave differs."""
    left = []
    for backend in ("reference", kernels.backend(device.type)):
        torch.manual_seed(0)
        tensors = named(device, dtype, small)
        optimizer = pruned(tensors, sparsity, **extra)
        with kernels.use(backend):
            optimizer.step()
        left.append([x for _, p in tensors for x in (p.detach(), *_moments(optimizer.state[p]))])
    entries = sum(x.numel() for x in left[0])
    different = sum(int((a != b).sum()) for a, b in zip(*left, strict=True))
    worst = max(_distance(a, b) for a, b in zip(*left, strict=True))
    return {"ok": different <= limit * entries and worst <= 1e-2, "different": different / entries, "distance": worst}


def _moments(state: dict[str, Any]) -> list[torch.Tensor]:
    return [x for name, x in state.items() if name != "step"]


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Norm of the difference over the norm."""
    a, b = a.double(), b.double()
    return float((a - b).norm() / b.norm().clamp_(min=1e-30))


def selection(device: torch.device, score: str, small: bool) -> dict[str, Any]:
    """The largest tensor's mask at the next sparsity: the reference's for the same scores, and an exact count."""
    tensors = named(device, torch.float32, small)
    optimizer = pruned(tensors, 0.4)
    slot = optimizer.pruner.slots[max((p for _, p in tensors), key=torch.Tensor.numel)]
    state = optimizer.state[slot.weight]
    moments = {name: state[name] for name in ("exp_avg", "exp_avg_sq")}
    known = {"mask": slot.mask, "compact": slot.compact, **moments, "age": 2}
    ours = kernels.view_type(slot.weight)("layer", slot.weight, **known)
    theirs = View("layer", slot.weight, **known)
    count = slot.mask.kept // 3
    mask, expected = (view.keep_above(view.cut(SCORES[score], count), SCORES[score]) for view in (ours, theirs))
    different = int((mask.to_bool() != expected.to_bool()).sum())
    exact = mask.kept == slot.mask.kept - count == int(mask.to_bool().sum())
    return {"ok": exact and different <= 1e-5 * slot.weight.numel(), "exact": exact, "different": different}


def tests(rows: Rows, *arguments: str) -> dict[str, Any]:
    """Tests on the card, on several processes where pytest can: compiling takes most of the time."""
    workers = ["-n", "8"] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, *arguments]
    limit = max(rows.seconds_left, 0) + GRACE
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=limit)
    print(done.stdout[-3000:], flush=True)
    # Without the native kernel, tests that compare with it bit for bit are skipped.
    compared = kernels.native.library() is not None
    summary = done.stdout.strip().splitlines()[-1]
    return {"ok": done.returncode == 0 and compared, "native": compared, "exit": done.returncode, "summary": summary}


if __name__ == "__main__":
    main()
