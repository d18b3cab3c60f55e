"""The ops and tensors of a quantized model whose noise can be measured beside the float model's."""

from __future__ import annotations

from typing import NamedTuple

from quantbuild.errors import StepError
from quantbuild.tflite import graph
from quantbuild.tflite.forcing import Versions
from quantbuild.tflite.matching import Matching, match

INTEGERS = frozenset({"INT4", "INT8", "UINT8", "INT16"})
"""Types that a real value is rounded to; shapes and axes have others."""

SQUASHING = frozenset({"SOFTMAX", "LOGISTIC"})
"""Ops with results from 0 to 1, in fixed steps of 1/256 in int8. Where they saturate, as those of a trained classifier
do, the steps are all the noise there is, whatever happened before: so an output is measured before them. The class
they give is decided there."""


class Point(NamedTuple):
    """An op of the artifact (None: an input), and the versions that it makes."""

    operator: int | None
    versions: tuple[int, ...]


class Place(NamedTuple):
    """Where the noise of an output is measured: there, or before the op that squashes it."""

    name: str
    """The output's."""
    before: str | None
    """``SOFTMAX``, ``LOGISTIC``; None for the output itself."""
    tensor: int
    """Of the float graph."""
    version: int | None
    held: int
    """The artifact's tensor with its values."""


class Measured:
    """What there is to measure, in order."""

    def __init__(self, exact: graph.ModelT, quantized: graph.ModelT) -> None:
        self.exact, self.quantized = exact, quantized
        self.matching: Matching = match(exact, quantized)
        self.versions = Versions(exact, quantized, self.matching)
        self.tensors = self.versions.all()
        self.points = _points(quantized, self.versions, self.tensors)
        ports, given = graph.signature_maps(exact)[1], graph.signature_maps(quantized)[1]
        if not set(ports.values()) & set(self.matching.measured):
            raise StepError("no output of the model holds floats of a fixed shape to measure; remove sensitivity")
        self.places = [
            self._place(name, ports[name], given[name])
            for name in given
            if ports.get(name) in set(self.matching.measured)
            and graph.shape(graph.main(exact).tensors[ports[name]])
            == graph.shape(graph.main(quantized).tensors[given[name]])
        ]
        if not self.places:
            raise StepError("no output of the variant is one of float32's; compare models of one source")

    def _place(self, name: str, tensor: int, held: int) -> Place:
        main, producers = graph.main(self.exact), graph.producers(graph.main(self.exact))
        kind = graph.op_name(self.exact, main.operators[producers[tensor]]) if tensor in producers else None
        if kind in SQUASHING:
            before = graph.indices(main.operators[producers[tensor]].inputs)[0]
            version = self.versions.read(producers[tensor], 0)
            if version is not None and before in set(self.matching.measured):
                return Place(name, kind, before, version, version)
        version = self.versions.given(name, tensor)
        return Place(name, None, tensor, version, held if version is None else version)


def _points(quantized: graph.ModelT, versions: Versions, found: list[int]) -> list[Point]:
    """Return the ops and inputs that may round: all but the ops that touch no integers."""
    main, made = graph.main(quantized), graph.producers(graph.main(quantized))
    by_op: dict[int, list[int]] = {}
    points = []
    for version in found:
        if version in made:
            by_op.setdefault(made[version], []).append(version)
        elif graph.type_name(main.tensors[version]) in INTEGERS:
            points.append(Point(None, (version,)))
    return points + [
        Point(operator, tuple(made_here))
        for operator, made_here in sorted(by_op.items())
        if _touches_integers(quantized, main.operators[operator])
    ]


def _touches_integers(model: graph.ModelT, operator: graph.OperatorT) -> bool:
    """Whether an op has 4-, 8- or 16-bit activations or weights; shapes and axes are 32-bit integers."""
    touched = graph.indices(operator.inputs) + graph.indices(operator.outputs)
    tensors = graph.main(model).tensors
    return any(graph.type_name(tensors[tensor]) in INTEGERS for tensor in touched if tensor >= 0)


def scale_of(tensor: graph.TensorT) -> tuple[float, int] | None:
    """Return scale and zero point of an activation, None where it holds real values."""
    how = tensor.quantization
    if graph.type_name(tensor) not in INTEGERS or how is None or how.scale is None or len(how.scale) != 1:
        return None
    return float(how.scale[0]), int(how.zeroPoint[0]) if how.zeroPoint is not None and len(how.zeroPoint) else 0
