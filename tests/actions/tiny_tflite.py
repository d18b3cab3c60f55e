"""Writes tiny .tflite classifiers without TensorFlow, whose outputs a test can compute by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from quantbuild.tflite import graph

OP = schema.BuiltinOperator
TYPE = schema.TensorType

IDENTITY = np.eye(3, 4, dtype=np.float32)
"""Scores are the first three of four features."""


def linear(path: Path, weights: np.ndarray = IDENTITY, *, int8_io: bool = False) -> Path:
    """A model image [1, k] → scores [1, classes], scores = weights · image, with one signature.

    With `int8_io` its input is int8 of scale 1/16 and zero point -3, its output int8 of scale 0.5 and
    zero point 5.
    """
    model = _empty()
    classes, features = weights.shape
    image = source = _tensor(model, "image", [1, features])
    matrix = _tensor(model, "weights", [classes, features], weights)
    scores = result = _tensor(model, "scores", [1, classes])
    if int8_io:
        image = _tensor(model, "image_int8", [1, features], quantized=(1 / 16, -3))
        result = _tensor(model, "scores_int8", [1, classes], quantized=(0.5, 5))
        _operator(model, OP.DEQUANTIZE, [image], [source])
    options = schema.FullyConnectedOptionsT()
    _operator(model, OP.FULLY_CONNECTED, [source, matrix, -1], [scores], (8, options))
    if int8_io:
        _operator(model, OP.QUANTIZE, [scores], [result])
    return _written(model, path, image, result)


def rectified(path: Path, shape: list[int]) -> Path:
    """A model image `shape` → scores, each number or 0 where that is more: without weights, with one signature."""
    model = _empty()
    image, scores = _tensor(model, "image", shape), _tensor(model, "scores", shape)
    _operator(model, OP.RELU, [image], [scores])
    return _written(model, path, image, scores)


def _empty() -> Any:
    model = schema.ModelT()
    model.version = 3
    main = schema.SubGraphT()
    model.subgraphs, model.buffers = [main], [schema.BufferT()]
    main.tensors, main.operators, model.operatorCodes = [], [], []
    return model


def _written(model: Any, path: Path, image: int, result: int) -> Path:
    main = model.subgraphs[0]
    main.inputs, main.outputs = [image], [result]
    signature = schema.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = [_named("image", image)], [_named("scores", result)]
    model.signatureDefs = [signature]
    path.write_bytes(graph.write(model))
    return path


def _tensor(
    model: Any,
    name: str,
    shape: list[int],
    constant: np.ndarray | None = None,
    quantized: tuple[float, int] | None = None,
) -> int:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name, shape, TYPE.FLOAT32, 0
    if quantized is not None:
        tensor.type, tensor.quantization = TYPE.INT8, schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [quantized[0]], [quantized[1]]
    if constant is not None:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(constant.astype(np.float32).tobytes(), np.uint8)
        model.buffers.append(buffer)
        tensor.buffer = len(model.buffers) - 1
    model.subgraphs[0].tensors.append(tensor)
    return len(model.subgraphs[0].tensors) - 1


def _operator(
    model: Any, code: int, inputs: list[int], outputs: list[int], options: tuple[int, Any] | None = None
) -> None:
    entry = schema.OperatorCodeT()
    entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, code, 1
    model.operatorCodes.append(entry)
    operator = schema.OperatorT()
    operator.opcodeIndex = len(model.operatorCodes) - 1
    operator.inputs, operator.outputs = inputs, outputs
    if options is not None:
        operator.builtinOptionsType, operator.builtinOptions = options
    model.subgraphs[0].operators.append(operator)


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
