# SPDX-License-Identifier: MIT
"""Every example runs, reaches its sparsity, and says the same when its second half is run again from a checkpoint."""

from __future__ import annotations

import os
import re
import runpy
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
TWICE = Path(__file__).parent / "run_twice.py"

#: Example to the packages it needs and the steps that are enough here.
ALONE = {
    "plain_loop": ((), 40),
    "attach_sgd": ((), 40),
    "ema": ((), 40),
    "eight_bit": ((), 40),
    "accelerate_loop": (("accelerate",), 40),
    "fabric_loop": (("lightning",), 40),
    "lightning_trainer": (("lightning",), 40),
    "hf_trainer": (("transformers", "accelerate"), 12),
}
RESULT = re.compile(r"^(?:and its average: )?step \d+: sparsity (\d+\.\d+)%.*$", re.MULTILINE)

pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_example_is_run_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*ALONE, "ddp", "digits"}


def results(text: str, sparsity: float) -> list[str]:
    """The lines that say how it went; their sparsity is what was asked for."""
    assert [float(found) for found in RESULT.findall(text)] == [pytest.approx(sparsity, abs=0.01)] * text.count("step ")
    return [match.group() for match in RESULT.finditer(text)]


@pytest.mark.parametrize("name", ALONE)
def test_the_second_half_runs_again(name, tmp_path, monkeypatch, capsys):
    packages, steps = ALONE[name]
    for package in packages:
        pytest.importorskip(package)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    outputs = []
    for more in ([], ["--resume"]):
        monkeypatch.setattr(
            sys, "argv", [f"{name}.py", "--steps", str(steps), "--sparsity", "0.6", "--folder", str(tmp_path), *more]
        )
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        outputs.append(results(capsys.readouterr().out, 60.0))
        assert outputs[-1]
    assert outputs[0] == outputs[1]


def free_ports(count: int) -> list[str]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [str(listener.getsockname()[1]) for listener in sockets]


def test_two_processes(tmp_path):
    """As ``torchrun`` starts them."""
    arguments = ["--steps", "40", "--sparsity", "0.6", "--folder", str(tmp_path)]
    command = [sys.executable, str(TWICE), str(EXAMPLES / "ddp.py"), *free_ports(2), *arguments]
    everywhere = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**everywhere, **rank})
        for rank in ({"RANK": "0"}, {"RANK": "1"})
    ]
    outputs = [rank.communicate() for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], "".join(errors[-2000:] for _, errors in outputs)
    whole, resumed = results(outputs[0][0], 60.0)
    assert whole == resumed
