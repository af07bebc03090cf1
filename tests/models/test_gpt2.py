# SPDX-License-Identifier: MIT
"""GPT-2 against a plain restatement, published sizes and transformers' weights."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from adamwprune.models import gpt2
from adamwprune.models.gpt2 import GPT2, SHAPES, Shape
from adamwprune.models.hugging_face import load_hugging_face, to_hugging_face
from adamwprune.optim import param_groups

SMALL = Shape(blocks=2, heads=3, width=24, context=16, vocabulary=50)


def tokens(batch: int = 2, length: int = 16) -> torch.Tensor:
    return torch.randint(0, SMALL.vocabulary, (batch, length), generator=torch.Generator().manual_seed(1))


def model_of(shape: Shape = SMALL, seed: int = 0) -> GPT2:
    torch.manual_seed(seed)
    model = GPT2(shape)
    for p in model.parameters():  # away from the zeros and ones of a new model
        p.data += 0.1 * torch.randn_like(p)
    return model


def restated(model: GPT2, tokens: torch.Tensor) -> torch.Tensor:
    """GPT-2 from its weights, token by token and head by head."""
    w, shape = dict(model.named_parameters()), model.shape
    size = shape.width // shape.heads

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * w[name + ".weight"] + w[name + ".bias"]
        )

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ w[name + ".weight"].t() + w[name + ".bias"]

    def attend(qkv: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(qkv.shape[0], shape.width)
        for head in range(shape.heads):
            q, k, v = (qkv[:, part * shape.width + head * size :][:, :size] for part in range(3))
            for place in range(len(qkv)):
                weights = (k[: place + 1] @ q[place] / math.sqrt(size)).exp()
                out[place, head * size :][:size] = weights @ v[: place + 1] / weights.sum()
        return out

    rows = []
    for sequence in tokens:
        x = w["wte.weight"][sequence] + w["wpe.weight"][: len(sequence)]
        for block in range(shape.blocks):
            here = f"h.{block}."
            x = x + linear(attend(linear(norm(x, here + "ln_1"), here + "attn.c_attn")), here + "attn.c_proj")
            y = linear(norm(x, here + "ln_2"), here + "mlp.c_fc")
            y = 0.5 * y * (1 + (math.sqrt(2 / math.pi) * (y + 0.044715 * y**3)).tanh())
            x = x + linear(y, here + "mlp.c_proj")
        rows.append(norm(x, "ln_f") @ w["wte.weight"].t())
    return torch.stack(rows)


@pytest.mark.parametrize("length", [1, 7, 16])
def test_the_numbers_are_those_of_a_plain_restatement(length: int) -> None:
    model = model_of()
    with torch.no_grad():
        torch.testing.assert_close(model(tokens(length=length)), restated(model, tokens(length=length)))


@pytest.mark.parametrize(
    ("name", "millions"), [("gpt2", 124.4), ("gpt2-medium", 354.8), ("gpt2-large", 774.0), ("gpt2-xl", 1557.6)]
)
def test_parameter_counts(name: str, millions: float) -> None:
    """The sizes that the published checkpoints have, from a model of one block."""
    shape = SHAPES[name]
    one = GPT2(dataclasses.replace(shape, blocks=1, vocabulary=1))
    total = sum(p.numel() for p in one.parameters())
    block = sum(p.numel() for p in one.h.parameters())
    assert (total + (shape.blocks - 1) * block + (shape.vocabulary - 1) * shape.width) / 1e6 == pytest.approx(
        millions, abs=0.05
    )


def test_the_plain_attention_is_torchs() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 8, requires_grad=True) for _ in range(3))
    ours = gpt2.plain_attention(q, k, v, 0.0)
    torchs = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(ours, torchs)
    direction = torch.randn_like(ours)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (q, k, v), direction), torch.autograd.grad(torchs, (q, k, v), direction)
    )


def test_dropout_acts_on_attention_weights_too_and_only_in_training(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k = torch.zeros(2, 8, 64, 4).unbind()
    value = torch.ones(8, 64, 4).expand(1, -1, -1, -1)
    weights = gpt2.plain_attention(q.unsqueeze(0), k.unsqueeze(0), value, 0.5)
    assert not torch.equal(weights, value)
    assert weights[:, :, 32:].mean().item() == pytest.approx(1.0, abs=0.1)
    shape = dataclasses.replace(SMALL, dropout=0.5)
    dropping, without = model_of(shape), model_of()
    torch.testing.assert_close(dropping.eval()(tokens()), without(tokens()))
    assert not torch.equal(dropping.train()(tokens()), dropping(tokens()))
    passed: list[float] = []
    plain = functional.scaled_dot_product_attention

    def spy(*args: torch.Tensor, dropout_p: float, is_causal: bool) -> torch.Tensor:
        passed.append(dropout_p)
        return plain(*args, dropout_p=dropout_p, is_causal=is_causal)

    monkeypatch.setattr(functional, "scaled_dot_product_attention", spy)
    dropping.train()(tokens())
    dropping.eval()(tokens())
    assert passed == [0.5, 0.5, 0.0, 0.0]


def test_bfloat16_on_a_cpu_takes_the_plain_attention_at_short_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    plain = gpt2.plain_attention

    def spy(q: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        calls.append(q.shape[-2])
        return plain(q, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(gpt2, "plain_attention", spy)
    model = model_of()
    expected = model(tokens())
    assert calls == []
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(tokens())
        assert calls == [16, 16]
        monkeypatch.setattr(gpt2, "PLAIN_ATTENTION", 15)
        model(tokens())
    assert calls == [16, 16]
    torch.testing.assert_close(logits.float(), expected, rtol=0.1, atol=0.1)


def test_checkpointing_changes_no_number_and_keeps_less() -> None:
    gradients, kept = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = model_of(dataclasses.replace(SMALL, checkpointing=checkpointing, dropout=0.1))
        size = 0

        def pack(saved: torch.Tensor) -> torch.Tensor:
            nonlocal size
            size += saved.numel()
            return saved

        torch.manual_seed(3)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
            loss = model(tokens()).square().mean()
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
        kept.append(size)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)
    assert kept[1] < 0.6 * kept[0]


def test_initial_weights_are_gpt2s() -> None:
    torch.manual_seed(0)
    model = GPT2(dataclasses.replace(SHAPES["gpt2-mini"], blocks=8))
    deviations = {name: p.std().item() for name, p in model.named_parameters() if p.dim() == 2}
    assert deviations["h.3.mlp.c_fc.weight"] == pytest.approx(0.02, rel=0.02)
    assert deviations["wte.weight"] == pytest.approx(0.02, rel=0.02)
    assert deviations["h.3.mlp.c_proj.weight"] == pytest.approx(0.02 / 4, rel=0.02)
    assert deviations["h.7.attn.c_proj.weight"] == pytest.approx(0.02 / 4, rel=0.02)
    vectors = {name: set(p.tolist()) for name, p in model.named_parameters() if p.dim() == 1}
    assert all(values == ({0.0} if name.endswith("bias") else {1.0}) for name, values in vectors.items())
    uniform = functional.cross_entropy(model(torch.randint(0, 256, (1, 64))).flatten(0, 1), torch.arange(64))
    assert uniform.item() == pytest.approx(math.log(256), abs=0.1)


def test_the_scope_of_pruning_is_the_blocks_matrices() -> None:
    groups = param_groups(model_of(), weight_decay=0.1)
    taken = {name for group in groups if group["prunable"] for name, _ in group["params"]}
    assert taken == {
        f"h.{block}.{name}.weight"
        for block in range(2)
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }


def test_widths_keep_the_number_of_heads() -> None:
    assert SHAPES["gpt2-tiny"].scaled(0.45).width == 44
    assert SHAPES["gpt2"].scaled(1.0) == SHAPES["gpt2"]
    assert SHAPES["gpt2"].scaled(0.001).width == 12


def test_bad_shapes_and_sequences_are_refused() -> None:
    with pytest.raises(ValueError, match="width=10 must be a multiple of heads=4"):
        Shape(blocks=1, heads=4, width=10)
    with pytest.raises(ValueError, match=r"dropout=1\.0"):
        dataclasses.replace(SMALL, dropout=1.0)
    with pytest.raises(ValueError, match="17 tokens, its context holds 16"):
        model_of()(tokens(length=17))


# ---- Hugging Face ------------------------------------------------------------------------------------------------


def test_logits_equal_those_of_transformers_both_ways() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=SMALL.vocabulary, n_positions=SMALL.context, n_embd=SMALL.width, n_layer=SMALL.blocks, n_head=3
    )
    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(config).eval()
    for p in theirs.parameters():
        p.data += 0.1 * torch.randn_like(p)
    ours = GPT2(SMALL).eval()
    load_hugging_face(ours, theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens()), theirs(tokens()).logits)

    ours = model_of(seed=5)
    missing, unexpected = theirs.load_state_dict(to_hugging_face(ours), strict=False)
    assert unexpected == []
    assert [name for name in missing if not name.endswith((".attn.bias", ".attn.masked_bias"))] == []
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens()).logits, ours(tokens()))


def test_the_state_dict_goes_there_and_back() -> None:
    ours, other = model_of(seed=5), model_of(seed=6)
    there = to_hugging_face(ours)
    assert there["transformer.h.0.attn.c_attn.weight"].shape == (24, 72)
    assert there["lm_head.weight"].shape == (50, 24)
    load_hugging_face(other, {**there, "transformer.h.0.attn.bias": torch.ones(1, 1, 16, 16)})
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), other.parameters(), strict=True))


def test_a_filled_up_vocabulary_goes_there_and_back() -> None:
    exact, filled = (model_of(dataclasses.replace(SMALL, vocabulary=n), seed=n) for n in (1050, 1088))
    load_hugging_face(filled, to_hugging_face(exact))
    tokens = torch.arange(16).view(1, 16) + 1030
    with torch.no_grad():
        torch.testing.assert_close(filled(tokens)[..., :1050], exact(tokens))
    torch.testing.assert_close(filled.wte.weight[1050:].std(0), torch.zeros(SMALL.width))
    back = to_hugging_face(filled, vocabulary=1050)
    assert all(torch.equal(value, back[name]) for name, value in to_hugging_face(exact).items())


def test_other_models_weights_are_refused_and_nothing_is_changed() -> None:
    ours = model_of()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    there = to_hugging_face(model_of(seed=5))
    lacking = {name: value for name, value in there.items() if not name.endswith("ln_f.bias")}
    deeper = to_hugging_face(model_of(dataclasses.replace(SMALL, blocks=3)))
    wider = to_hugging_face(model_of(dataclasses.replace(SMALL, context=8)))
    for state, message in (
        (lacking, r"lacks ln_f.bias \(1 weights"),
        (deeper, "this GPT-2 has no h.2.attn.c_attn.bias"),
        (wider, r"wpe.weight has shape \(8, 24\), this model's is \(16, 24\)"),
        ({**there, "lm_head.weight": there["lm_head.weight"] + 1}, "lm_head.weight differs"),
    ):
        with pytest.raises(ValueError, match=message):
            load_hugging_face(ours, state)
    assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())
