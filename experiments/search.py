# SPDX-License-Identifier: MIT
"""What might prune better than `state` as it is: a longer memory, averages, LAMP's normalisation, a teacher.

    python experiments/search.py --text input.txt --results FILE.jsonl --ways distilled --arms 75-90/state-global

Arms of `when_state_pays.py` in the late window, with one thing changed; a row's arm is called `75-90-WAY/SCORE`.

`distilled`: the loss is cross-entropy plus the divergence from an average of the dense run's weights.
`long`: v remembers 1,000 steps for the score (beta 0.999), and 50 for the step, as everywhere here.
`averaged`: scores are means over the mask updates so far.
`lamp`: a weight's score is the share of its square among the squares that are not smaller in its tensor.

A score of the last three is not a function of single weights, w and v. It is computed for whole tensors and stands in
the place of v while masks are updated.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import branching
import torch
import when_state_pays
from torch import Tensor
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from when_state_pays import Characters

import adamwprune as ap
from adamwprune.prune.scores import find_score, lamp

#: How much of the weights' and of the squared gradients' averages a step keeps.
WEIGHTS_DECAY, SQUARES_DECAY = 0.99, 0.999


class Distilled(Characters):
    """Learns from the text and from a teacher."""

    def __init__(self, text: Tensor, seed: int, prune: ap.Prune | None = None, *, folder: Path) -> None:
        super().__init__(text, seed, prune=prune)
        self.teacher = Characters(text, seed).model
        self.teacher.load_state_dict(averages(text, seed, folder)["weights"])

    def loss(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Nats per byte, and those that the teacher's distribution has more than its own."""
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            aim = self.teacher(rows[:, :-1]).float().flatten(0, 1).log_softmax(-1)
        own = logits.log_softmax(-1)
        return super().loss(logits, rows) + functional.kl_div(own, aim, reduction="batchmean", log_target=True)


class OwnScore(Characters):
    """Pruned by a score of whole tensors."""

    def __init__(self, text: Tensor, seed: int, prune: ap.Prune) -> None:
        super().__init__(text, seed)
        self.score = find_score(prune.score)
        self.lent: dict[Tensor, Tensor] = {}
        # Hooks run in this order: the pruner's own comes between.
        self.optimizer.register_step_post_hook(lambda *_: self.lend())
        self.pruner = ap.attach(self.optimizer, dataclasses.replace(prune, score=lambda v: v))
        self.optimizer.register_step_post_hook(lambda *_: self.give_back())

    def lend(self) -> None:
        """Put the score in the second moment's place if masks will be updated after this step."""
        if self.pruner.due(self.pruner.step + 1):
            for p in self.pruner.slots:
                self.lent[p] = self.optimizer.state[p]["exp_avg_sq"]
                self.optimizer.state[p]["exp_avg_sq"] = self.scores(p, self.lent[p])

    def give_back(self) -> None:
        """Give Adam its second moment back."""
        for p, second_moment in self.lent.items():
            self.optimizer.state[p]["exp_avg_sq"] = second_moment
        self.lent.clear()

    def scores(self, p: Tensor, v: Tensor) -> Tensor:
        """Scores of a tensor, in its shape."""
        return self.score(w=p.detach(), v=v)


class Long(OwnScore):
    """Squared gradients are remembered for longer than the step wants."""

    def __init__(self, text: Tensor, seed: int, prune: ap.Prune, *, folder: Path) -> None:
        super().__init__(text, seed, prune)
        self.squares = averages(text, seed, folder)["squares"]
        self.names: dict[Tensor, str] = {p: name for name, p in self.model.named_parameters()}

    def lend(self) -> None:
        """Take notice of this step's gradients first."""
        remember(self.squares, self.model)
        super().lend()

    def scores(self, p: Tensor, v: Tensor) -> Tensor:
        """With the long mean."""
        return super().scores(p, self.squares[self.names[p]])


class Averaged(OwnScore):
    """Scores are means over updates."""

    def __init__(self, text: Tensor, seed: int, prune: ap.Prune) -> None:
        super().__init__(text, seed, prune)
        self.sums: dict[Tensor, Tensor] = {}

    def scores(self, p: Tensor, v: Tensor) -> Tensor:
        """Sums: they rank as means do, as all tensors are updated as often."""
        self.sums[p] = self.sums.get(p, torch.zeros_like(v)) + super().scores(p, v)
        return self.sums[p].clone()


class Normalized(OwnScore):
    """LAMP, of a score instead of the weights."""

    def scores(self, p: Tensor, v: Tensor) -> Tensor:
        """Squares, over the sum of those not smaller."""
        return lamp(super().scores(p, v).flatten()).view_as(p)


def remember(squares: dict[str, Tensor], model: torch.nn.Module) -> None:
    """Go on with the running means of squared gradients."""
    for name, p in model.named_parameters():
        if name in squares and p.grad is not None:
            squares[name].lerp_(p.grad.square(), 1 - SQUARES_DECAY)


@torch.no_grad()
def _updated(average: AveragedModel, squares: dict[str, Tensor], model: torch.nn.Module) -> None:
    average.update_parameters(model)
    remember(squares, model)


def averages(text: Tensor, seed: int, folder: Path) -> dict[str, dict[str, Tensor]]:
    """Averages over the dense run where the late window begins: its weights, and its squared gradients by name.

    Both begin at the checkpoint before, 500 steps earlier.
    """
    path = folder / f"averages-{seed}.pt"
    if not path.exists():
        setting = when_state_pays.setting(text)
        states, _ = branching.dense_states(setting, seed, folder)
        first, last = sorted(states)[-2:]
        run = setting.train(seed, None)
        branching.load(run, states[first])
        average = AveragedModel(run.model, multi_avg_fn=get_ema_multi_avg_fn(WEIGHTS_DECAY))
        squares = {name: torch.zeros_like(p) for name, p in run.model.named_parameters()}
        run.optimizer.register_step_post_hook(lambda *_: _updated(average, squares, run.model))
        run.go(first, last)
        for square in squares.values():
            square /= 1 - SQUARES_DECAY ** (last - first)
        torch.save({"weights": average.module.state_dict(), "squares": squares}, path)
    averages: dict[str, dict[str, Tensor]] = torch.load(path, weights_only=True)
    return averages


def ways(folder: Path) -> dict[str, Callable[..., Characters]]:
    """What may be changed, by name."""
    return {
        "distilled": partial(Distilled, folder=folder),
        "long": partial(Long, folder=folder),
        "averaged": Averaged,
        "lamp": Normalized,
    }


def main() -> None:
    """Run what is asked for and not there yet."""
    parser = branching.options(__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--ways", nargs="+", required=True, choices=ways(Path()))
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = when_state_pays.read(options.text)
    results = branching.Results(options.results)
    folder = options.results.with_suffix(".states")
    for seed in options.seeds:
        states, _ = branching.dense_states(when_state_pays.setting(text), seed, folder)
        for way in options.ways:
            arms = {arm.replace("/", f"-{way}/"): branching.ARMS[arm] for arm in options.arms}
            setting = when_state_pays.setting(text, ways(folder)[way])
            branching.prune(setting, results, seed, arms, options.sparsities, states)


if __name__ == "__main__":
    main()
