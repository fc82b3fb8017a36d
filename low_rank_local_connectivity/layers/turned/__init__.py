"""Layers of rotation-equivariant networks; their names are public in `layers`."""

__all__: list[str] = []
