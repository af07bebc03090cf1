# SPDX-License-Identifier: MIT
"""Creates the virtual environment that `make` runs in, with the build of torch that suits the machine.

TORCH chooses the build:
  auto  a torch that is already there is kept; otherwise cuda, rocm or cpu, whichever the machine has (default)
  keep  the torch that is already there, or an error
  cpu, cuda, rocm
  a requirement, such as TORCH=torch==2.12.1 or TORCH=torch==2.13.0+cu126 with PIP_EXTRA_INDEX_URL set

"Already there" means in this environment from an earlier `make`, or in the Python that runs this script (an
active environment, or the system's). The latter is made visible to the new environment and never changed.
Nothing is done when nothing has changed since the last time.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = (3, 11)
TORCH_RANGE = ((2, 11), (2, 14))
INDEX = "https://download.pytorch.org/whl/"
# Builds of torch on PyTorch's own index; the first entry of each is the suffix of the version.
BUILDS = {"cpu": ("cpu", "cpu"), "cuda": ("cu130", "cu130"), "rocm": ("rocm7.2", "rocm7.2")}
PROBE = """
import importlib.util, json
spec = importlib.util.find_spec("torch")
if spec is None:
    print("null")
else:
    import torch
    build = "rocm" if torch.version.hip else "cuda" if torch.version.cuda else "cpu"
    print(json.dumps({"version": torch.__version__, "build": build, "site": spec.submodule_search_locations[0]}))
"""


class BootstrapError(Exception):
    """Something the user has to fix; the message says what."""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", default=".venv", type=Path)
    parser.add_argument("--torch", default="auto", help="auto, keep, cpu, cuda, rocm or a requirement")
    options = parser.parse_args()
    try:
        environment(Path(os.path.abspath(options.venv)), options.torch)
    except BootstrapError as error:
        sys.exit(f"bootstrap: error: {error}")


def environment(venv, wanted):
    """Brings the environment up to date."""
    if sys.version_info < OLDEST_PYTHON:
        found = ".".join(map(str, sys.version_info[:3]))
        raise BootstrapError(f"Python {found} is too old, 3.11 is the oldest; name another: make PYTHON=python3.12")
    stamp = venv / "adamwprune-stamp.json"
    fingerprint = current_fingerprint(wanted)
    if stamp.is_file() and json.loads(stamp.read_text()) == fingerprint:
        return
    create(venv)
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    constraints = venv / "adamwprune-constraints.txt"
    locked = (ROOT / "constraints.txt").read_text().splitlines()
    others = [line for line in locked if not line.startswith("torch==")]
    constraints.write_text("\n".join(others) + "\n")
    pip = Pip(python, constraints)
    torch = provide_torch(pip, wanted)
    say(f"torch {torch['version']} ({torch['build']}); installing the project and its locked dependencies")
    constraints.write_text("\n".join([*others, f"torch=={torch['version']}"]) + "\n")
    pip.install("--quiet", "--editable", f"{ROOT}[dev]")
    compile_all(python)
    stamp.write_text(json.dumps(fingerprint) + "\n")
    say(f"{venv} is ready")


def current_fingerprint(wanted):
    """What the environment depends on."""
    files = [ROOT / name for name in ("pyproject.toml", "setup.py", "constraints.txt", "scripts/bootstrap.py")]
    sources = sorted((ROOT / "src" / "adamwprune" / "kernels" / "csrc").iterdir())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in [*files, *sources])).hexdigest()
    return {"torch": wanted, "files": digest, "root": str(ROOT), "python": platform.python_version()}


def create(venv):
    """The environment itself, with pip."""
    python = venv / "bin" / "python"
    if python.exists() or (venv / "Scripts").exists():
        if not succeeds(str(python), "-m", "pip", "--version"):
            subprocess.run([str(python), "-m", "ensurepip"], check=True)
        return
    say(f"creating {venv} with Python {platform.python_version()}")
    made = subprocess.run([sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True)
    if made.returncode:
        shutil.rmtree(venv, ignore_errors=True)
        reason = (made.stderr or made.stdout).strip().splitlines()
        raise BootstrapError(f"cannot create {venv}: {reason[-1] if reason else 'venv failed'}; on Debian and Ubuntu "
                             "`apt install python3-venv` helps")  # fmt: skip


def provide_torch(pip, wanted):
    """Makes a torch of the wanted build importable and says what it is."""
    present = probe(pip.python) or (link_outer_torch(pip.python) if wanted in ("auto", "keep") else None)
    if wanted == "keep" and (present is None or not in_range(present["version"])):
        raise BootstrapError("TORCH=keep, but neither this environment nor the outer Python has torch >=2.11,<2.14")
    if present and wanted in ("auto", "keep", present["build"]) and in_range(present["version"]):
        say(f"keeping torch {present['version']} ({present['build']}) from {Path(present['site']).parent}")
        return present
    build = detect() if wanted == "auto" else wanted
    if build in BUILDS:
        install_build(pip, build, insist=wanted != "auto")
    else:
        pip.install("--upgrade", build)
    installed = probe(pip.python)
    if installed is None or not in_range(installed["version"]):
        found = installed["version"] if installed else "none"
        raise BootstrapError(f"torch {found} is installed, this project needs >=2.11,<2.14; choose another TORCH")
    if wanted in BUILDS and installed["build"] != wanted:
        raise BootstrapError(f"asked for TORCH={wanted}, got a {installed['build']} build ({installed['version']})")
    return installed


def install_build(pip, build, insist):
    """Installs one build, without letting pip replace it by another one."""
    version = locked_torch()
    suffix, folder = BUILDS[build]
    if platform.system() != "Linux":  # elsewhere PyPI has one build for each platform
        pip.install("--upgrade", f"torch=={version}")
        return
    exact = f"torch=={version}+{suffix}"
    # What the local pip configuration offers comes first: mirrors and wheel folders need no other network.
    for extra in ([], ["--extra-index-url", INDEX + folder, "--retries", "1", "--timeout", "20"]):
        where = extra[1] if extra else "the configured package index"
        say(f"looking for {exact} on {where}")
        if pip.can_have(*extra, exact):
            pip.install(*extra, "--upgrade", exact)
            return
    if build == "rocm" or (build == "cpu" and insist):
        raise BootstrapError(f"no {exact} can be had; is {INDEX} reachable? TORCH=torch=={version} takes PyPI's build")
    # PyPI's own build for Linux brings CUDA; `===` keeps pip from taking a local build of the same version instead.
    if build == "cpu":
        say("warning: taking PyPI's build, which brings CUDA: several GB that this machine does not need")
    pip.install("--upgrade", f"torch==={version}")


def detect():
    """The build that this machine's hardware asks for."""
    if shutil.which("nvidia-smi") and succeeds("nvidia-smi", "-L"):
        return "cuda"
    if Path("/dev/kfd").exists() and (
        shutil.which("rocminfo") or shutil.which("rocm-smi") or Path("/opt/rocm").exists()
    ):
        return "rocm"
    return "cpu"


def link_outer_torch(python):
    """A usable torch of the Python that runs this script, made visible to the environment; None without one."""
    outer = probe(sys.executable)
    if outer is None or not in_range(outer["version"]):
        return None
    link = Path(site_packages(python)) / "adamwprune-outer-torch.pth"
    link.write_text(str(Path(outer["site"]).parent) + "\n")
    found = probe(python)
    if found is None:
        link.unlink()
    return found


def probe(python):
    """Version, build and place of the torch that an interpreter sees; None without a working one."""
    asked = subprocess.run([str(python), "-c", PROBE], capture_output=True, text=True, cwd="/")
    return json.loads(asked.stdout) if asked.returncode == 0 else None


def in_range(version):
    """Whether the project works with this version of torch."""
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    return TORCH_RANGE[0] <= numbers < TORCH_RANGE[1]


def locked_torch():
    """The version in constraints.txt."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.startswith("torch=="):
            return line[len("torch==") :].strip()
    raise BootstrapError("constraints.txt pins no torch")


class Pip:
    """pip of one environment, held to the locked versions."""

    def __init__(self, python, constraints):
        self.python = python
        self.options = ["--no-compile", "--disable-pip-version-check", "--constraint", str(constraints)]

    def install(self, *arguments):
        """Installs, or stops with pip's message, which is on the screen."""
        if subprocess.run(self.command(*arguments)).returncode:
            raise BootstrapError("pip could not install " + arguments[-1])

    def can_have(self, *arguments):
        """Whether a requirement can be had, its dependencies apart."""
        return succeeds(*self.command("--dry-run", "--no-deps", *arguments))

    def command(self, *arguments):
        return [str(self.python), "-m", "pip", "install", *self.options, *arguments]


def compile_all(python):
    """Bytecode for what was installed, on all cores; without it every worker would compile torch's sources again.

    pip would do it on one core, and where PYTHONDONTWRITEBYTECODE is set nobody would do it later.
    """
    command = [str(python), "-m", "compileall", "-q", "-j", "0", site_packages(python)]
    subprocess.run(command, capture_output=True)


def site_packages(python):
    """Where an environment's packages are."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    asked = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True)
    return asked.stdout.strip()


def succeeds(*command):
    return subprocess.run(command, capture_output=True).returncode == 0


def say(text):
    print(f"bootstrap: {text}", flush=True)


if __name__ == "__main__":
    main()
