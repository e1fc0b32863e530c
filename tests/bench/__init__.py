"""Benchmarks: `make bench` runs them all. One file holds one measure, always beside a peer or a physical floor."""
