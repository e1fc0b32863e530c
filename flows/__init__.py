"""Prefect flows: thin, they call `curate` and `trainer` functions and add schedules, retries and artifacts."""
