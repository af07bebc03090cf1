# SPDX-License-Identifier: MIT
"""`adamwprune doctor` says what is there and what is not."""

from __future__ import annotations

import torch
from typer.testing import CliRunner

from adamwprune import kernels
from adamwprune.cli import app
from adamwprune.kernels import native


def doctor(*arguments):
    result = CliRunner().invoke(app, ["doctor", *arguments])
    assert result.exit_code == 0, result.output
    return {line[:21].strip(): line[21:] for line in result.output.splitlines()}


def test_what_is_there(tmp_path):
    found = doctor("--data-dir", str(tmp_path))
    assert found["torch"].startswith(torch.__version__)
    assert found["frameworks"].startswith("transformers ")
    assert found["text"].split(", ")[0].split()[0] == "tokenizers"
    assert found["data digits"] == "built in"
    assert "train-images-idx3-ubyte.gz" in found["data mnist"]
    assert not list(tmp_path.iterdir())


def test_the_kernel_and_why_it_is_not_a_faster_one(monkeypatch):
    if native.library() is not None:
        assert doctor()["kernel"] == f"native, {native.best_instruction_set()}"
        monkeypatch.setenv(kernels.BACKEND_VARIABLE, "reference")
        assert doctor()["kernel"] == "reference, as ADAMWPRUNE_BACKEND says"
        monkeypatch.delenv(kernels.BACKEND_VARIABLE)
    monkeypatch.setattr(native, "library", lambda: None)
    assert doctor()["kernel"].startswith("reference: the native kernel is not built")
