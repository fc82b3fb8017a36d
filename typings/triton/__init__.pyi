# Triton as the type checker sees it, so that lint finds the same with it and without it.
from typing import Any

__file__: str

def __getattr__(name: str) -> Any: ...
