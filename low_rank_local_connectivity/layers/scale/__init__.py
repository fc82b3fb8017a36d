"""Layers of scale spaces and pyramids; their names are public in `layers`."""

__all__: list[str] = []
