"""The paper's experiments: files of flags, the published numbers, and a report beside them."""

__all__: list[str] = []
