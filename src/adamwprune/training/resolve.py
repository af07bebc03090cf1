# SPDX-License-Identifier: MIT
"""From what a user gave to what will run: every open field filled from the recipe, everything else checked.

A field that is given and would change nothing is refused: it is a misunderstanding that would otherwise stay silent.
A field that does not apply stays ``None``. Resolving a resolved config changes nothing.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from adamwprune import data, models
from adamwprune.data.splits import held_out
from adamwprune.prune import ALIASES, AUTO_SCORE, SCORES, STATE_FAMILY, Prune, canonical_score
from adamwprune.training import device, ranks
from adamwprune.training.batches import parts_of, steps_per_epoch
from adamwprune.training.checks import AUTO, check_evaluation, check_held_out, check_train_examples, check_values
from adamwprune.training.config import (
    BASES,
    METHODS,
    OPTIMIZERS,
    PARALLEL,
    PRUNE_FIELDS,
    SPAM_FIELDS,
    RunConfig,
    known,
)
from adamwprune.training.errors import ConfigError
from adamwprune.training.optimizer import prune_settings, spam_settings
from adamwprune.training.recipes import PRUNING, RECIPES, SPAM, Recipe

#: Scores of each method, its default first.
METHOD_SCORES = {
    "none": (),
    "magnitude": ("magnitude", "lamp"),
    "movement": ("movement",),
    "state": STATE_FAMILY,
}
#: Fields of which a run has exactly one.
EITHER = (("epochs", "iterations"), ("eval_every", "eval_steps"))
#: Fields that only networks for one kind of input read.
ONLY_FOR = {
    "image": ("augment", "cutout", "channels_last", "train_examples"),
    "tokens": ("context", "dropout", "eval_tokens", "activation_checkpointing"),
}
#: Fields that act only where another field has not this value, and what that value means.
SWITCHED_OFF = (
    ("cutout", "augment", False, "images stay as they are"),
    ("lr_floor", "lr_schedule", "constant", "the learning rate stays at its peak"),
)
#: What a field holds that was not given.
DEFAULTS = {f.name: f.default for f in dataclasses.fields(RunConfig)}


def resolve(config: RunConfig) -> RunConfig:
    """The config that runs, all of it explicit.

    Raises:
        ConfigError: a name is unknown, a value is out of range, a field has no effect, or fields contradict each other.
    """
    try:
        return _resolve(config)
    except ConfigError:
        raise
    except ValueError as error:  # the parts below check their own settings
        raise ConfigError(str(error)) from error


def _resolve(config: RunConfig) -> RunConfig:
    _check_choices(config)
    check_values(config)
    config = config.replace(device=device.find(config.device), threads=device.threads(config.threads))
    model = models.find(config.model)
    config = config.replace(data=config.data or model.default_data)
    data.find(known(config.data))
    recipe = RECIPES.get((model.recipe, known(config.data)))
    if recipe is None:
        raise ConfigError(f"data={config.data!r}: {config.model} trains on {' or '.join(model.data)}")
    _check_input(config, model.input)
    config = _fill(config, _training_fields(config, recipe))
    config = config.replace(context=config.context or model.context)
    check_values(config)
    _check_switches(config, recipe)
    check_evaluation(config)
    _check_examples(config)
    config = _in_parts(config)
    config = _fill_family(config, recipe)
    config = _fill(config, _spam_fields(config)) if config.family == "adamwspam" else config
    config = _fill_pruning(config) if config.pruning_method != "none" else config.replace(target_sparsity=0.0)
    spam_settings(config)  # raises where its steps do not fit together
    return config


def total_steps(config: RunConfig) -> int:
    """Optimizer steps of a run whose training fields are resolved."""
    if config.iterations is not None:
        return config.iterations
    examples = config.train_examples or _not_held_out(config, data.images(known(config.data)))
    return known(config.epochs) * steps_per_epoch(examples, known(config.batch_size))


def _not_held_out(config: RunConfig, info: data.DatasetInfo) -> int:
    """How many training examples the validation split leaves."""
    return info.examples - held_out(info.examples, known(config.val_fraction))


def _check_examples(config: RunConfig) -> None:
    """Refuse more images than there are, and fewer than one. Those of streamed sets are counted when the run begins."""
    info = data.find(known(config.data))
    if isinstance(info, data.DatasetInfo):
        check_held_out(config, held_out(info.examples, known(config.val_fraction)))
        check_train_examples(config, _not_held_out(config, info), info.classes)


def _check_choices(config: RunConfig) -> None:
    for name, value, valid in (
        ("optimizer", config.optimizer, OPTIMIZERS),
        ("pruning_method", config.pruning_method, METHODS),
        ("base", config.base, BASES),
        ("parallel", config.parallel, PARALLEL),
        ("precision", config.precision, (None, *device.PRECISIONS)),
    ):
        if value not in valid:
            raise ConfigError(f"unknown {name} {value!r}: expected one of {', '.join(filter(None, valid))}")
    for one, other in EITHER:
        if getattr(config, one) is not None and getattr(config, other) is not None:
            raise ConfigError(f"{one} and {other} exclude each other: leave one of them out")
    if config.base != "adamw" and config.optimizer != "adamwprune":
        raise ConfigError(
            f"base={config.base!r} has no effect on optimizer {config.optimizer!r}: "
            "it says what adamwprune augments; leave it out or use optimizer='adamwprune'"
        )
    if config.pruning_method == "state" and config.optimizer == "sgd":
        raise ConfigError(
            "pruning_method='state' ranks weights by Adam's smoothed gradients, and sgd keeps none: "
            "use an optimizer of the Adam family, or pruning_method magnitude or movement"
        )
    if config.pruning_method == "none":
        given = [name for name in PRUNE_FIELDS if getattr(config, name) is not None]
        _refuse(config, [name for name in given if (name, getattr(config, name)) != ("target_sparsity", 0.0)])
    if config.family != "adamwspam":
        _refuse(config, [name for name in SPAM_FIELDS if getattr(config, name) is not None])
    if config.parallel == "fsdp":
        _check_spread(config)


def _check_spread(config: RunConfig) -> None:
    """Refuse what does not go with weights that are spread over ranks."""
    if ranks.size() == 1:
        raise ConfigError(
            "parallel='fsdp' has no effect on one process: start several ranks with torchrun, or leave it out"
        )
    if config.micro_batch == AUTO:
        raise ConfigError(
            f"micro_batch={AUTO!r} looks for what a device holds beside the whole network, and parallel='fsdp' spreads "
            "that: give a number"
        )
    if config.precision == "fp16":
        raise ConfigError("precision='fp16' is not tried with parallel='fsdp': use bf16, which needs no loss scaling")


def _check_input(config: RunConfig, kind: str) -> None:
    """Refuse what means nothing for images, or for text."""
    for other, names in ONLY_FOR.items():
        if other != kind:
            _refuse(config, [name for name in names if getattr(config, name) is not DEFAULTS[name]])
    if config.epochs is not None and not isinstance(data.find(known(config.data)), data.DatasetInfo):
        raise ConfigError(
            f"epochs={config.epochs!r}: how many steps a pass over {config.data!r} takes is known only once it is "
            "read; give iterations instead"
        )


def _check_switches(config: RunConfig, recipe: Recipe) -> None:
    """Refuse what another field switches off; what the recipe says may stay, as a resolved config holds it."""
    for name, switch, off, meaning in SWITCHED_OFF:
        value = getattr(config, name)
        if getattr(config, switch) == off and value not in (None, 0, getattr(recipe, name, None)):
            raise ConfigError(f"{name}={value!r} has no effect: with {switch}={off!r} {meaning}; leave one of them out")
    if isinstance(data.find(known(config.data)), data.StreamInfo) and (not config.augment or config.cutout):
        raise ConfigError(
            f"augment={config.augment!r}, cutout={config.cutout!r}: {config.data!r} is trained on random crops alone; "
            "leave out augment and cutout"
        )


def _refuse(config: RunConfig, names: list[str]) -> None:
    """Refuse fields that were given and would change nothing."""
    for name in names:
        if name in SPAM_FIELDS:
            reason = "it belongs to optimizer adamwspam, and to adamwprune with base adamwspam"
        elif name in PRUNE_FIELDS:
            reason = "pruning_method is 'none'"
        elif any(name in names for names in ONLY_FOR.values()):
            reason = f"{config.model} has no such setting"
        else:
            reason = f"{config.family} has no such setting"
        raise ConfigError(f"{name}={getattr(config, name)!r} has no effect: {reason}; leave it out")


def _fill(config: RunConfig, defaults: dict[str, Any]) -> RunConfig:
    return config.replace(**{name: value for name, value in defaults.items() if getattr(config, name) is None})


def _training_fields(config: RunConfig, recipe: Recipe) -> dict[str, Any]:
    """What the recipe says, without what a given field excludes."""
    fields = {f.name: getattr(recipe, f.name) for f in dataclasses.fields(recipe) if f.name != "families"}
    for pair in EITHER:
        if any(getattr(config, name) is not None for name in pair):
            fields = {name: value for name, value in fields.items() if name not in pair}
    return fields


def _in_parts(config: RunConfig) -> RunConfig:
    """``accumulate`` as a given ``micro_batch`` wants it; what ``auto`` comes to is found when the run begins."""
    if config.micro_batch in (None, AUTO):
        return config
    share = ranks.share(known(config.batch_size))
    return config.replace(micro_batch=None, accumulate=parts_of(share, int(known(config.micro_batch))))


def _fill_family(config: RunConfig, recipe: Recipe) -> RunConfig:
    """The optimizer's own fields; what its family has no value for is not its setting."""
    defaults = dataclasses.asdict(recipe.families[config.family])
    foreign = [name for name, value in defaults.items() if value is None and getattr(config, name) is not None]
    _refuse(config, foreign)
    return _fill(config, defaults)


def _spam_fields(config: RunConfig) -> dict[str, Any]:
    """SPAM's settings, with its steps in proportion to the run's length."""
    interval = config.spam_interval
    if interval is None:
        interval = min(SPAM.interval, max(SPAM.shortest_interval, total_steps(config) // SPAM.resets))
    if interval == 0 and config.spam_warmup:
        raise ConfigError(f"spam_warmup={config.spam_warmup} has no effect: spam_interval=0 never resets; leave it out")
    youngest = min(SPAM.youngest, interval // 2) if interval else SPAM.youngest
    return {
        "spam_theta": SPAM.spam_theta,
        "spam_zscore": SPAM.spam_zscore,
        "spam_interval": interval,
        "spam_warmup": round(SPAM.warmup * interval / SPAM.interval),
        "spam_min_age": max(youngest, SPAM.min_age * interval // SPAM.interval),
    }


def _choose_score(config: RunConfig) -> RunConfig:
    """What ``auto`` stands for in this run, by name, so that reports and run names tell it.

    It goes by where the window begins; but a run that begins with trained weights is near a minimum at once.
    """
    if config.init is not None:
        return config.replace(score="state")
    start = PRUNING.prune_start if config.prune_start is None else config.prune_start
    score = Prune(sparsity=0.0, start=float(start), end=1.0, score=AUTO_SCORE).ranking().name
    return config.replace(pruning_method="magnitude" if score == "magnitude" else "state", score=score)


def _fill_pruning(config: RunConfig) -> RunConfig:
    method = config.pruning_method
    if config.target_sparsity is None:
        raise ConfigError(f"pruning_method={method!r} needs target_sparsity, the fraction removed, in [0, 1): e.g. 0.7")
    if (method, config.score) == ("state", AUTO_SCORE):
        config = _choose_score(config)
        method = config.pruning_method
    score = METHOD_SCORES[method][0] if config.score is None else canonical_score(config.score)
    if score not in METHOD_SCORES[method]:
        owners = [name for name, scores in METHOD_SCORES.items() if score in scores]
        hint = f"; it belongs to pruning_method {owners[0]!r}" if owners else ""
        raise ConfigError(
            f"score={config.score!r} is not for pruning_method {method!r}: "
            f"expected one of {', '.join(METHOD_SCORES[method])}{hint}"
        )
    config = _fill(config.replace(score=score), dataclasses.asdict(PRUNING))
    check_values(config)
    distribution = known(config.distribution)
    config = config.replace(distribution=ALIASES.get(distribution, distribution))
    budget = SCORES.get(known(config.distribution))
    if budget is not None and budget.needs_moments and config.optimizer == "sgd":
        raise ConfigError(
            f"distribution={config.distribution!r} sets budgets by Adam's smoothed gradients, and sgd keeps none: "
            "use layer, global, erk, magnitude or movement"
        )
    return config.replace(prune_every=known(prune_settings(config, total_steps(config))).ramp().every)
