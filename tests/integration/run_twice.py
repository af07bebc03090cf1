# SPDX-License-Identifier: MIT
"""One rank of an example, run whole and then again from its checkpoint, in one process: starting one takes seconds.

Arguments: the example, a port for each run, and the example's own arguments.
"""

import os
import runpy
import sys
from pathlib import Path

example, ports, arguments = sys.argv[1], sys.argv[2:4], sys.argv[4:]
sys.path.insert(0, str(Path(example).parent))
for port, more in zip(ports, ([], ["--resume"]), strict=True):
    os.environ["MASTER_PORT"] = port
    sys.argv = [example, *arguments, *more]
    runpy.run_path(example, run_name="__main__")
