"""Measure once, decide cheaply, write once, prove by training."""

__version__ = "0.1.0"
