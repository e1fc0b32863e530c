"""Filters: one file each. A filter is found by its file's name; nothing registers itself."""
