"""Convolutions and their companions of no other family; their names are public in `layers`."""

__all__: list[str] = []
