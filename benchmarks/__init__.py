"""Measurements beside peers: alternating runs in one process, whose ratios mean something."""

__all__: list[str] = []
