"""Prune where images crowd: fewer from large clusters or simple ones, so that rare content keeps its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import ibis
import ibis.expr.types as ir
import numpy as np
from pydantic import Field, model_validator

from filters._quotas import balanced, by_density
from filters.contract import PoolFilter, number, text

MILLION = 1_000_000


class Diversity(PoolFilter):
    """Keep `keep_fraction` of the samples that have a cluster, by one of three rules; a sample without one is kept.

    - `balanced`: one cap for all clusters, so that the excess comes from the largest.
    - `density` (Abbas et al. 2024, arXiv:2401.04578): as many of a cluster as its complexity asks for, which is the
      distance of its samples to their centroid times that of the centroid to its 20 nearest ones; the softmax of that
      over `temperature` gives the shares, and a quadratic program the nearest counts that the clusters can give,
      of which each keeps at least `balance` of an equal share.
    - `prototypicality` (Sorscher et al. 2022, arXiv:2206.14486): no counts per cluster, the typical go first.

    Of those that compete, the ones `prefer`red stay: `far` from their centroid (hard and rare, as all three papers
    advise for large pools) or `near` it (typical). Clusters are those of the `clusters` feature, whose number
    `clusters` sets: another fraction fits nothing again.
    """

    keep_fraction: float = Field(0.8, gt=0, le=1)
    mode: Literal["balanced", "density", "prototypicality"] = "balanced"
    prefer: Literal["far", "near"] = "far"
    clusters: int | None = Field(None, ge=1)
    temperature: float = Field(0.1, gt=0)
    balance: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _density_alone(self) -> Self:
        given = self.model_fields_set & {"temperature", "balance"}
        if given and self.mode != "density":
            raise ValueError(f"{' and '.join(sorted(given))} belongs to `mode: density`")
        return self

    @property
    def reads(self) -> tuple[str, ...]:
        return ("cluster", "cluster_similarity", *(("cluster_isolation",) if self.mode == "density" else ()))

    @property
    def sets(self) -> Mapping[str, Mapping[str, Any]]:
        return {"clusters": {"clusters": self.clusters}} if self.clusters else {}

    def drops(self, t: ir.Table) -> ir.Table:
        t = t.filter(t.cluster.notnull())
        # Rounded, so that the last bit of a sum decides nothing.
        t = t.mutate(distance=((1 - t.cluster_similarity.cast("float64")) * MILLION).round().cast("int64"))
        order = [t.distance.desc() if self.prefer == "far" else t.distance.asc(), t.uid, t.row]
        said = f" by distance, {self.prefer} first; "
        if self.mode == "prototypicality":
            ranked = t.mutate(place=ibis.row_number().over(order_by=order), size=t.count().over(ibis.window()))
            ranked = ranked.mutate(quota=(ranked["size"] * self.keep_fraction).round().cast("int64"))
            whose = text("distance ") + number(ranked.distance / MILLION) + " to the centroid: "
        else:
            quota = ibis.literal(",".join(map(str, self._quotas(t)))).split(",")[t.cluster].cast("int64")
            within = ibis.window(group_by=t.cluster)
            ranked = t.mutate(
                place=ibis.row_number().over(group_by=t.cluster, order_by=order),
                size=t.count().over(within),
                quota=quota,
            )
            whose = text("cluster ") + ranked.cluster.cast("string") + ": "
        place, size, quota = ((ranked[n] + one).cast("string") for n, one in (("place", 1), ("size", 0), ("quota", 0)))
        ranked = ranked.mutate(reason=whose + place + " of " + size + said + quota + " kept")
        dropped = ranked.filter(ranked.place >= ranked.quota)
        return dropped.select("row", "reason", duplicate_of=ibis.null("string"))

    def _quotas(self, t: ir.Table) -> list[int]:
        """How many to keep of each cluster, by its number. As text in the expression, no engine has to join them."""
        columns = {"size": t.count(), "distance": t.distance.sum()}
        if self.mode == "density":
            columns["isolation"] = t.cluster_isolation.max()
        found = t.group_by("cluster").agg(**columns).order_by("cluster").to_pyarrow()
        sizes = found["size"].to_numpy().astype(np.int64)
        keep = round(int(sizes.sum()) * self.keep_fraction)
        if self.mode == "density":
            spread = found["distance"].to_numpy() / sizes / MILLION
            complexity = spread * found["isolation"].to_numpy().astype(np.float64)
            quota = by_density(sizes, complexity, keep, self.temperature, self.balance)
        else:
            quota = balanced(sizes, keep)
        clusters = found["cluster"].to_numpy()
        numbered = np.zeros(int(clusters.max()) + 1 if len(clusters) else 1, np.int64)
        numbered[clusters] = quota
        return numbered.tolist()
