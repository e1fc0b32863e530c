"""Where counts are kept: one Prometheus text file, to which every process adds what it has done since it last wrote.

The file is what node_exporter's textfile collector reads. Since it holds the sums of all runs, a counter only grows,
as Prometheus wants it, although no process of ours lives long. The format and the Pushgateway's protocol are those of
`prometheus_client`.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from curate.errors import RequestError
from curate.metrics.names import METRICS, OTHER, SERIES, Metric

FOLDER = "CURATE_METRICS"
"""The environment variable with the folder of the file; without it nothing is counted."""
GATEWAY = "CURATE_METRICS_PUSH"
"""The environment variable with the address of a Pushgateway, which is sent the file whenever it is written."""
FILE = "curate.prom"
EVERY_SECONDS = 15.0
PUSH_TIMEOUT = 5.0
_LABEL = 120  # characters of a label's value
Series = tuple[str, tuple[str, ...]]
"""A metric's name and the values of its labels, in their order."""
log = logging.getLogger("curate.metrics")


def enabled() -> bool:
    """Whether anything is counted."""
    return bool(os.environ.get(FOLDER, "").strip())


def file() -> Path:
    """The file of `CURATE_METRICS`; ask `enabled` first."""
    return Path(os.environ[FOLDER].strip()) / FILE


def check() -> None:
    """Find what is wrong with the settings before a long run.

    Raises:
        RequestError: the folder cannot be written to, or the gateway's address is none; does not repeat an address.
    """
    if gateway := os.environ.get(GATEWAY, "").strip():
        parts = urlsplit(gateway)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RequestError(f"{GATEWAY}: not an http or https address")
        if not enabled():
            raise RequestError(f"{GATEWAY}: {FOLDER} must name a folder too; it keeps the sums that are sent")
    if enabled():
        try:
            file().parent.mkdir(parents=True, exist_ok=True)
            with _alone(file()):
                pass
        except OSError as error:
            raise RequestError(f"{FOLDER}: {file().parent}: {error.strerror}") from error


class Ledger:
    """What this process has done since it last wrote. Nothing here raises for a disk or a gateway that fails."""

    def __init__(self) -> None:
        self._added: dict[Series, float] = {}
        self._set: dict[Series, float] = {}
        self._lock = threading.Lock()
        self._written = time.monotonic()
        self._push_again = 0.0
        self._said: set[str] = set()

    def add(self, name: str, value: float = 1, **labels: str) -> None:
        """Let a counter grow; by 0 it exists from then on."""
        if enabled():
            with self._lock:
                key = _series(name, "counter", labels)
                self._added[key] = self._added.get(key, 0) + value
            self._now_and_then()

    def set(self, name: str, value: float, **labels: str) -> None:
        """Give a gauge its value."""
        if enabled():
            with self._lock:
                self._set[_series(name, "gauge", labels)] = value
            self._now_and_then()

    def forget(self) -> None:
        """Drop what was not written: a forked process must not write what its parent will."""
        self._lock = threading.Lock()
        self._added, self._set, self._push_again = {}, {}, 0.0

    def flush(self) -> None:
        """Bring what was not written yet into the file, and send the file to the gateway if there is one."""
        with self._lock:
            added, self._added = self._added, {}
            changed, self._set = self._set, {}
            self._written = time.monotonic()
        if not enabled() or not (added or changed):
            return
        try:
            self._merge(added, changed)
        except OSError as error:
            with self._lock:  # for the next time
                self._added = {key: added.get(key, 0) + self._added.get(key, 0) for key in added | self._added}
                self._set = changed | self._set
            self._say(f"{FOLDER}: nothing could be written: {error.strerror or error}")

    def _merge(self, added: Mapping[Series, float], changed: Mapping[Series, float]) -> None:
        from prometheus_client import write_to_textfile

        target = file()
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            series = read(target)
            for key, value in added.items():
                place = _bounded(key, series)
                series[place] = series.get(place, 0) + value
            for key, value in changed.items():
                series[_bounded(key, series)] = value
            registry = registry_of(series)
            write_to_textfile(str(target), registry)
            self._push(registry)  # still alone: an older state sent after a newer one would be a counter that shrinks

    def _push(self, registry: Any) -> None:
        gateway = os.environ.get(GATEWAY, "").strip()
        if not gateway or time.monotonic() < self._push_again:
            return
        from prometheus_client import push_to_gateway

        try:
            address, handler = _handler(gateway)
            names = {"instance": platform.node() or "unknown"}
            push_to_gateway(address, "curate", registry, names, PUSH_TIMEOUT, handler)
        except Exception as error:  # whatever it is: counts are not worth a run, and its words may hold the address
            self._push_again = time.monotonic() + 60
            self._say(f"{GATEWAY}: the gateway did not take the metrics: {type(error).__name__}")

    def _now_and_then(self) -> None:
        if time.monotonic() - self._written >= EVERY_SECONDS:
            self.flush()

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            log.warning(line)


def _series(name: str, kind: str, labels: Mapping[str, str]) -> Series:
    metric = METRICS[name]
    assert metric.kind == kind and set(labels) == set(metric.labels), f"{name} is a {metric.kind} of {metric.labels}"
    return name, tuple(str(labels[label])[:_LABEL] for label in metric.labels)


def _bounded(key: Series, series: Mapping[Series, float]) -> Series:
    """The key itself, or one for all the rest where its metric has too many already: each costs Prometheus memory."""
    name, values = key
    if key in series or sum(other == name for other, _ in series) < SERIES:
        return key
    return name, tuple(OTHER for _ in values)


def read(path: Path) -> dict[Series, float]:
    """The series of a file; none if there is no file. One that is damaged begins anew, with a warning."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[Series, float] = {}
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                if metric := METRICS.get(sample.name):  # of an older version, perhaps
                    found[sample.name, tuple(sample.labels.get(label, "") for label in metric.labels)] = sample.value
    except Exception:  # the parser raises whatever a line makes it stumble over
        log.warning("%s is damaged; counting begins anew", path)
        return {}
    return found


class Shown:
    """What `prometheus_client` calls a collector: the series that `source` gives each time."""

    def __init__(self, source: Callable[[], Mapping[Series, float]]) -> None:
        self._source = source

    def collect(self) -> Iterator[Any]:
        series = self._source()
        for metric in METRICS.values():
            of_it = sorted((values, value) for (name, values), value in series.items() if name == metric.name)
            if of_it:
                yield _family(metric, of_it)

    @classmethod
    def of_file(cls, path: Path) -> Any:
        """A registry that shows a file as it is when it is asked."""
        return _registry(cls(partial(read, path)))


def registry_of(series: Mapping[Series, float]) -> Any:
    """A registry of `prometheus_client` that shows the series."""
    return _registry(Shown(lambda: series))


def _registry(shown: Shown) -> Any:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    registry.register(shown)
    return registry


def _family(metric: Metric, rows: Sequence[tuple[tuple[str, ...], float]]) -> Any:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.help, labels=metric.labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


class _alone:
    """Hold the lock of a file while it is changed."""

    def __init__(self, path: Path) -> None:
        self._path = path.with_name(f".{path.name}.lock")

    def __enter__(self) -> None:
        self._lock = self._path.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._lock.close()


def _handler(gateway: str) -> tuple[str, Any]:
    """The gateway's address without name and password, and what sends them as a header."""
    from prometheus_client.exposition import basic_auth_handler, default_handler

    parts = urlsplit(gateway)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    if parts.username is None:
        return bare, default_handler
    return bare, partial(basic_auth_handler, username=parts.username, password=parts.password or "")


LEDGER = Ledger()
atexit.register(LEDGER.flush)
os.register_at_fork(after_in_child=LEDGER.forget)
