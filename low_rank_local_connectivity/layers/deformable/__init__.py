"""Layers that read where their input tells them; their names are public in `layers`."""

__all__: list[str] = []
