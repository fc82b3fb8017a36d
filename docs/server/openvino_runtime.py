"""Answers requests to MLServer from an exported model, by OpenVINO.

It needs `mlserver` and `openvino`, neither Keras nor this package: copy it beside the two settings.
"""

import asyncio
import concurrent.futures
from typing import Any

import numpy as np
import openvino
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.errors import InferenceError
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput
from mlserver.utils import get_model_uri

# On processors that have bfloat16 OpenVINO computes in it otherwise, 3e-3 off.
PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}


class OpenVINORuntime(MLModel):
    """A model in any of the formats that OpenVINO reads: SavedModel, ONNX, LiteRT."""

    async def load(self) -> bool:
        """Compiles the model that the settings name."""
        path = await get_model_uri(self.settings)
        self.compiled = openvino.Core().compile_model(path, "CPU", PRECISION)
        self.ports = {port.get_any_name(): port for port in self.compiled.inputs}
        # Requests are computed one after another, each on all cores, and the server reads others
        # meanwhile. Computed at the same time they have crashed the server.
        self.worker = concurrent.futures.ThreadPoolExecutor(1)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answers one request, which holds any number of examples."""
        names = [one.name for one in payload.inputs]
        if sorted(names) != sorted(self.ports):
            raise InferenceError(f"The inputs must be {[*self.ports]}. Received: {names}.")
        given = {one.name: self._array(one) for one in payload.inputs}
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self.worker, self.compiled, given)
        outputs = [
            NumpyCodec.encode_output(port.get_any_name(), values) for port, values in found.items()
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)

    def _array(self, given: RequestInput) -> np.ndarray:
        """Returns an input's values, if they are what the model takes."""
        port: Any = self.ports[given.name]
        try:
            values = NumpyCodec.decode_input(given)
            shape = openvino.PartialShape(list(values.shape))
        except (TypeError, ValueError) as error:
            raise InferenceError(f"Input {given.name!r} is no array: {error}.") from error
        expected = port.get_partial_shape()
        if not expected.compatible(shape) or values.dtype != port.get_element_type().to_dtype():
            raise InferenceError(
                f"Input {given.name!r} must be {port.get_element_type().type_name} of shape "
                f"{expected}. Received: {values.dtype} of shape {shape}."
            )
        if not np.isfinite(values).all():
            raise InferenceError(f"Input {given.name!r} must be finite. Received: NaN or infinity.")
        return values
