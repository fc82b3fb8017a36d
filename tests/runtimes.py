"""The runtimes that serve exports, used as their own documentation says and without this project.

Each function returns the types of the inputs by name and a function of inputs to outputs by name.
"""

import numpy as np


def open_saved_model(path):
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]

    def run(inputs, _keep=loaded):
        answer = signature(**{name: tf.constant(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in answer.items()}

    specs = signature.structured_input_signature[1]
    return {name: spec.dtype.name for name, spec in specs.items()}, run


def open_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path))
    names = [output.name for output in session.get_outputs()]
    types = {
        one.name: one.type[len("tensor(") : -1].replace("float", "float32")
        for one in session.get_inputs()
    }
    return types, lambda inputs: dict(zip(names, session.run(None, inputs), strict=True))


def open_litert(path):
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    details = runner.get_input_details()
    types = {name: np.dtype(one["dtype"]).name for name, one in details.items()}
    return types, lambda inputs: runner(**inputs)


OPEN = {"tf_saved_model": open_saved_model, "onnx": open_onnx, "litert": open_litert}
