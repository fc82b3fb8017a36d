"""The paper's experiments: files of flags, the published numbers, and a report."""

__all__: list[str] = []
