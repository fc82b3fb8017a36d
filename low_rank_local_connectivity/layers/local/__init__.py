"""Layers whose filters differ between positions; their names are public in `layers`."""

__all__: list[str] = []
