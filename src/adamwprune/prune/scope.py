# SPDX-License-Identifier: MIT
"""Which tensors are prunable when only names and shapes are known, and the globs that overrule it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

#: Parts of a name, between dots, that mean an embedding (prefixes and suffixes too) or a head.
_EMBEDDINGS = ("emb", "embed", "embedding", "embeddings", "wte", "wpe", "tok_embeddings", "embed_tokens", "pos_embed")
_HEADS = ("head", "heads", "lm_head", "classifier", "classification_head", "out_head")


def name_refusal(name: str, shape: Sequence[int]) -> str | None:
    """Why the default rule leaves a tensor out; None where it is prunable."""
    parts = name.split(".")
    if len(shape) < 2:
        return "fewer than two dimensions"
    if any(part in _EMBEDDINGS or "embed" in part for part in parts):
        return "an embedding, by its name"
    # torchvision's ResNets call their classifier `fc`, at the top level; deeper `fc`s are ordinary layers.
    if any(part in _HEADS or part.endswith("_head") for part in parts) or parts[:-1] == ["fc"]:
        return "a head, by its name"
    return None


def glob_refusal(name: str, include: Sequence[str] | None, exclude: Sequence[str]) -> str | None:
    """Why globs leave a name out; None where they do not."""
    if include is not None and not matches(name, include):
        return f"not matched by include={tuple(include)!r}"
    if matches(name, exclude):
        return f"matched by exclude={tuple(exclude)!r}"
    return None


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether any glob matches the whole name."""
    return any(fnmatchcase(name, glob) for glob in globs)


def check_globs(names: Sequence[str], include: Sequence[str] | None, exclude: Sequence[str]) -> None:
    """ValueError where a glob matches no parameter: it is a typing error, and would be silent."""
    for field, globs in (("include", include or ()), ("exclude", exclude)):
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in names):
                shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
                raise ValueError(f"{field}={glob!r} matches no parameter name: the names are {shown}")
