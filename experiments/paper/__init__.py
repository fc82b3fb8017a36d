"""The paper's experiments: files of flags, the published numbers, and a report beside them."""
