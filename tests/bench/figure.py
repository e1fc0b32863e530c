"""What a benchmark reports: a ratio that was measured in one run, and what it has to reach."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """One line of the table. `value` is compared with the bound that is given: at least, or at most."""

    measure: str
    value: float
    unit: str  # "x" for a ratio, "s", "GiB", "recall"
    at_least: float | None = None
    at_most: float | None = None
    detail: str = ""  # both sides with their units: "1,900/s against 1,700/s"

    @property
    def reached(self) -> bool | None:
        """Whether the bound holds; None for a figure that is only reported."""
        if self.at_least is None and self.at_most is None:
            return None
        low, high = self.at_least, self.at_most
        return (low is None or self.value >= low) and (high is None or self.value <= high)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"reached": self.reached}


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Seconds that some work took, and its result."""
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


def best_of(rounds: int, *works: Callable[[], object]) -> list[float]:
    """The least seconds of each work over some rounds, taken in turn so that both sides meet the same noise."""
    least = [float("inf")] * len(works)
    for _ in range(rounds):
        for place, work in enumerate(works):
            least[place] = min(least[place], timed(work)[0])
    return least


def peak_memory(code: str, *arguments: str, python: str = sys.executable) -> tuple[float, float, str]:
    """Run Python code in a process of its own: seconds, peak GiB of its largest process, what it printed.

    Its own peak is the kernel's for this program; `ru_maxrss` would start from what the benchmark itself held.
    """
    report = (
        "\nimport re, resource\n"
        "own = int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "print('peak', max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))"
    )
    seconds, done = timed(
        lambda: subprocess.run(
            [python, "-c", code + report, *arguments], check=True, text=True, stdout=subprocess.PIPE, env=os.environ
        )
    )
    *lines, last = done.stdout.rstrip().split("\n")
    return seconds, int(last.split()[1]) / 2**20, "\n".join(lines)
