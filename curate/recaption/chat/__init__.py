"""Asking a server that speaks OpenAI's chat completions: one client for every backend that writes through one."""
