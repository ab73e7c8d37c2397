"""What a process costs: memory in use, and the time an import takes. Measured in fresh processes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.benchmarks.work import Absent, Measured

ROOT = Path(__file__).resolve().parents[2]

_IMPORT = "import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
_MODULES = "import sys, json; {statement}; print(json.dumps(sorted(sys.modules)))"
_CALL = "import json; from {module} import {function}; print(json.dumps({function}(*{arguments!r})))"


def resident_memory() -> int:
    """The bytes of memory that this process occupies now. Raises `Absent` where there is no /proc."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError as error:
        raise Absent("resident memory", "this system has no /proc/self/status") from error
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise Absent("resident memory", "/proc/self/status has no VmRSS")


def import_time(statement: str) -> Measured:
    """The time of one import statement in a fresh process, the start of the interpreter left out."""
    return Measured(float(_fresh(_IMPORT.format(statement=statement))))


def imported(statement: str) -> set[str]:
    """The names of all modules loaded after `statement` in a fresh process."""
    return set(json.loads(_fresh(_MODULES.format(statement=statement))))


def fresh_call(module: str, function: str, *arguments: object) -> Any:
    """What `module.function(*arguments)` returns in a process that did nothing else before; as JSON can say it."""
    return json.loads(_fresh(_CALL.format(module=module, function=function, arguments=arguments)))


def _fresh(code: str) -> str:
    """The last line that `code` prints, run by this Python from the root of the checkout."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"a fresh process failed: {done.stderr.strip()[-2000:]}")
    return done.stdout.splitlines()[-1]
