"""Rounds one activation of a float graph to 8 bits and leaves the rest as it is: what int8 would do to it alone."""

from __future__ import annotations

import numpy as np

from quantbuild.tflite import graph


def rounded(model: bytes, tensor: int, low: float, high: float) -> bytes:
    """Return the float graph `model` with a QUANTIZE and a DEQUANTIZE behind `tensor`, whose range is low to high.

    Whatever reads the tensor, an output of the graph too, gets the rounded values. Scale and zero point are those of
    the TFLite 8-bit quantization specification: int8, asymmetric, zero exactly representable.
    """
    edited = graph.read(model)
    main = graph.main(edited)
    place = graph.producers(main).get(tensor, -1) + 1
    signatures = [entry for found in edited.signatureDefs or [] for entry in (found.outputs or [])]
    integers = graph.add_cast(edited, tensor, "int8", scale_of(low, high))
    floats = graph.add_cast(edited, integers, "float32")
    casts = [main.operators.pop(), main.operators.pop()][::-1]
    for operator in main.operators:
        operator.inputs = [floats if read == tensor else read for read in graph.indices(operator.inputs)]
    main.operators[place:place] = casts
    main.outputs = [floats if given == tensor else given for given in graph.indices(main.outputs)]
    for entry in signatures:
        if entry.tensorIndex == tensor:
            entry.tensorIndex = floats
    return graph.write(edited)


def scale_of(low: float, high: float) -> tuple[float, int]:
    """Return scale and zero point of an int8 activation of that range, widened to hold zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max(high - low, float(np.finfo(np.float32).tiny)) / 255
    return scale, int(np.clip(round(-128 - low / scale), -128, 127))
