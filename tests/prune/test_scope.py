# SPDX-License-Identifier: MIT
"""Names and globs: the default scope where modules are not known."""

from __future__ import annotations

import pytest

from adamwprune.prune.scope import check_globs, glob_refusal, matches, name_refusal


@pytest.mark.parametrize(
    "name",
    ["fc1.weight", "layer1.0.conv1.weight", "transformer.h.0.attn.c_attn.weight", "h.3.fc.weight", "b.header.weight"],
)  # fmt: skip
def test_ordinary_matrices_are_prunable(name):
    assert name_refusal(name, (4, 4)) is None
    assert name_refusal(name, (4, 4, 3, 3)) is None


@pytest.mark.parametrize(
    ("name", "shape", "reason"),
    [
        ("fc1.bias", (4,), "fewer than two dimensions"),
        ("scale", (), "fewer than two dimensions"),
        ("transformer.wte.weight", (9, 4), "embedding"),
        ("transformer.wpe.weight", (9, 4), "embedding"),
        ("model.embed_tokens.weight", (9, 4), "embedding"),
        ("bert.embeddings.word_embeddings.weight", (9, 4), "embedding"),
        ("lm_head.weight", (9, 4), "head"),
        ("classifier.weight", (9, 4), "head"),
        ("cls_head.weight", (9, 4), "head"),
        ("heads.head.weight", (9, 4), "head"),
        ("fc.weight", (9, 4), "head"),
    ],
)
def test_what_is_left_out_and_why(name, shape, reason):
    assert reason in name_refusal(name, shape)


def test_globs_overrule_by_whole_names():
    assert glob_refusal("a.weight", None, ()) is None
    assert glob_refusal("a.weight", ("a.*",), ()) is None
    assert "include" in glob_refusal("b.weight", ("a.*",), ())
    assert "exclude" in glob_refusal("a.weight", ("a.*",), ("*.weight",))
    assert not matches("xa.weight", ("a.*",))


def test_globs_that_match_nothing_are_refused():
    names = [f"l{i}.weight" for i in range(12)]
    check_globs(names, ("l?.*",), ("l11.*",))
    with pytest.raises(
        ValueError, match=r"include='conv\*' matches no parameter name: the names are l0\.weight.*\.\.\."
    ):
        check_globs(names, ("l0.*", "conv*"), ())
    with pytest.raises(ValueError, match="exclude='bias' matches no parameter name"):
        check_globs(names[:2], None, ("bias",))
