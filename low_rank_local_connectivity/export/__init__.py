"""From a trained model to what a server runs: converted, written, verified.

Importing this loads the table of formats; what needs Keras is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from low_rank_local_connectivity.export.formats import FORMATS as FORMATS

if TYPE_CHECKING:
    from low_rank_local_connectivity.export.exporting import MANIFEST as MANIFEST
    from low_rank_local_connectivity.export.exporting import export_model as export_model
else:

    def __getattr__(name: str) -> Any:
        """Returns a name of `exporting`."""
        if name in ("MANIFEST", "export_model"):
            return getattr(importlib.import_module(f"{__name__}.exporting"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
