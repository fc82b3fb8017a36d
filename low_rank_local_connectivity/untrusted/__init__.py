"""Files from elsewhere: what must hold before anything that they declare is believed."""

__all__: list[str] = []
