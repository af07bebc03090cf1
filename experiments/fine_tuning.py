# SPDX-License-Identifier: MIT
"""Pruning a finished network: 300 more steps, and the weights go during the first 60 % of them.

    python experiments/fine_tuning.py --text input.txt --results FILE.jsonl --seeds 0 1 2 --arms fresh/state-global
    python experiments/fine_tuning.py --network resnet20 --data-dir data --results FILE.jsonl --arms fresh/state-global

The networks are the dense ones of `when_state_pays.py` and `when_state_pays_images.py`, at their end. `fresh` begins
with new Adam state, as one who downloads weights does; `kept` goes on with the state of the dense run. The learning
rate warms up to a quarter of the peak and falls by a cosine to a tenth of that. At sparsity 0 an arm is the dense
control.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import branching
import torch
import when_state_pays
import when_state_pays_images

import adamwprune as ap

STEPS, EVERY, WARMUP, PEAK = 300, 10, 30, 0.25
RAMP = (0.0, 0.6)
KEEPS_STATE = {"fresh": False, "kept": True}
ARMS = {
    f"{start}/{name}": branching.Arm(RAMP, score, distribution)
    for start in KEEPS_STATE
    for name, (score, distribution) in branching.SCORES.items()
} | {f"{start}/dense": branching.Arm(RAMP, "magnitude") for start in KEEPS_STATE}


class FineTuning(branching.Training):
    """A training that goes on after its end, on batches that it has not had."""

    def __init__(self, training: branching.Training, end: int) -> None:
        self.training, self.end = training, end
        self.model, self.optimizer, self.lr = training.model, training.optimizer, PEAK * training.lr

    def lr_factor(self, step: int) -> float:
        """Warm-up, then a cosine to a tenth."""
        return branching.cosine_to_a_tenth(step, STEPS, WARMUP)

    def take_step(self, step: int) -> None:
        """One batch more."""
        self.training.take_step(self.end + step)

    def validation(self) -> dict[str, float]:
        """As of the training."""
        return self.training.validation()


def finished(setting: branching.Setting, seed: int, folder: Path) -> Path:
    """The dense run at its end, which goes on from the last of its checkpoints."""
    path = folder / f"dense-{seed}-{setting.steps}.pt"
    if not path.exists():
        states, _ = branching.dense_states(setting, seed, folder)
        run = setting.train(seed, None)
        branching.load(run, states[max(states)])
        run.go(max(states), setting.steps)
        branching.save(run, path)
    return path


def tuning(setting: branching.Setting, start: str) -> branching.Setting:
    """The setting in which a finished network of another is pruned."""

    def train(seed: int, prune: ap.Prune | None) -> FineTuning:
        return FineTuning(setting.train(seed, prune), setting.steps)

    return dataclasses.replace(setting, steps=STEPS, every=EVERY, train=train, keeps_state=KEEPS_STATE[start])


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = branching.options(__doc__, ARMS)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--network", choices=when_state_pays_images.RECIPES)
    parser.add_argument("--data-dir", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.text is not None:
        setting = when_state_pays.setting(when_state_pays.read(options.text))
    else:
        setting = when_state_pays_images.setting(options.network, options.data_dir)
    results = branching.Results(options.results)
    folder = options.results.with_suffix(".states")
    folder.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        states = {0: finished(setting, seed, folder)}
        for name in options.arms:
            ours = tuning(setting, name.split("/")[0])
            sparsities = [0.0] if name.endswith("dense") else options.sparsities
            branching.prune(ours, results, seed, {name: ARMS[name]}, sparsities, states)


if __name__ == "__main__":
    main()
