"""Every metric: its name, its kind, what it says, and its labels. docs/metrics.md is about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SERIES = 200
"""A metric has so many combinations of labels at most; further ones are counted together, as `OTHER`."""
OTHER = "other"


@dataclass(frozen=True)
class Metric:
    """A metric by Prometheus' conventions: base units, and `_total` at the end of what only grows."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: tuple[str, ...] = ()


_RUN = ("flow", "deployment")
_ALL = (
    # Runs: of a flow, or of a command, which has no deployment.
    Metric("curate_runs_total", "counter", "Runs that ended, by outcome: success or failure.", (*_RUN, "outcome")),
    Metric("curate_run_seconds", "gauge", "How long the last run took.", _RUN),
    Metric("curate_last_run_success", "gauge", "1 if the last run succeeded, 0 if it failed.", _RUN),
    Metric("curate_last_run_timestamp_seconds", "gauge", "When the last run ended.", _RUN),
    Metric("curate_last_success_timestamp_seconds", "gauge", "When a run last succeeded.", _RUN),
    # Stages: measure, select, write, report, crawl, download, train and so on.
    Metric("curate_stage_seconds_total", "counter", "Time that stages took, by the clock.", ("stage",)),
    Metric("curate_stage_cpu_seconds_total", "counter", "Processor time of stages, ended workers too.", ("stage",)),
    Metric("curate_stage_gpu_seconds_total", "counter", "Time that stages worked on a GPU.", ("stage",)),
    Metric("curate_stage_failures_total", "counter", "Tries of a stage that failed.", ("stage",)),
    Metric("curate_stage_shards", "gauge", "Shards of the stage in the run that reported last.", ("stage",)),
    Metric("curate_stage_shards_done", "gauge", "How many of them are done.", ("stage",)),
    # Measuring.
    Metric("curate_samples_measured_total", "counter", "Samples of which some feature was measured."),
    Metric("curate_images_decoded_total", "counter", "Images that were decoded."),
    Metric("curate_measure_samples_per_second", "gauge", "Speed of the last measuring that was not all cached."),
    # Deciding and writing, by recipe.
    Metric("curate_samples_kept_total", "counter", "Samples that were kept.", ("recipe",)),
    Metric("curate_samples_dropped_total", "counter", "Samples dropped, by filter.", ("recipe", "filter")),
    Metric("curate_keep_ratio", "gauge", "Share of the pool that the last run kept, 0 to 1.", ("recipe",)),
    Metric("curate_filter_keep_ratio", "gauge", "Share of what came in that a filter kept.", ("recipe", "filter")),
    Metric("curate_written_bytes_total", "counter", "Bytes of written shards.", ("recipe",)),
    Metric("curate_drift_alarms_total", "counter", "Quantities that moved beyond their bound.", ("recipe", "kind")),
    Metric("curate_drift_change", "gauge", "How far it moved in the last run.", ("recipe", "kind", "what")),
    Metric("curate_drift_bound", "gauge", "From where on a move is an alarm.", ("recipe", "kind", "what")),
    # Acquiring.
    Metric("curate_crawl_pages_total", "counter", "Pages asked for: read, or why not.", ("outcome",)),
    Metric("curate_crawl_pairs_total", "counter", "Image-text pairs found."),
    Metric("curate_downloads_total", "counter", "Images asked for: downloaded, or why not.", ("outcome",)),
    Metric("curate_downloaded_bytes_total", "counter", "Bytes of the shards that downloads made."),
    # Training.
    Metric("curate_training_samples_total", "counter", "Samples seen by trainings.", ("device",)),
    Metric("curate_training_samples_per_second", "gauge", "Speed of the last training.", ("device",)),
    Metric("curate_training_loss", "gauge", "Mean loss over the last tenth of the last training."),
    Metric("curate_accuracy_ratio", "gauge", "Accuracy of an experiment's arm, 0 to 1.", ("experiment", "arm")),
)
METRICS = {metric.name: metric for metric in _ALL}
