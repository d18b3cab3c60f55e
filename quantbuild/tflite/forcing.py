"""Two edits of the float graph that take a quantized graph's error apart: what each op adds, and what becomes of it.

*Forced*: every op reads what the quantized graph's op read, dequantized, and not what the float graph computed. So the
difference between the two results is what the quantized op added itself. TensorFlow's Quantization Debugger compares
layers in this way, one by one (``tensorflow/lite/tools/optimize/debugging``); here one run of one graph gives all.

*Disturbed*: each op's result goes through an ADD whose other operand is given from outside, zero unless an op's own
error is to be put there alone.

A *version* of a float tensor is a tensor of the quantized graph that holds it in numbers of its own: what an op makes
or the graph is given, or what a QUANTIZE makes of that. A DEQUANTIZE rounds nothing and makes none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ai_edge_litert import schema_py_generated as schema

from quantbuild.tflite import graph
from quantbuild.tflite.matching import Matching


@dataclass(frozen=True, kw_only=True)
class Forced:
    """The float graph with further inputs; tensors that it had keep their indices."""

    model: bytes
    inputs: Mapping[int, int]
    """Version → the input that its real values are given to."""


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    """The float graph with a disturbance for each of some versions, all of them inputs."""

    model: bytes
    inputs: Mapping[int, int]
    """Version → the input that is added to it."""
    places: tuple[int, ...]
    """The tensor that stands at each of the places asked for."""


class Versions:
    """What each op of the float graph reads and each output gives, as the quantized graph has it."""

    def __init__(self, exact: graph.ModelT, quantized: graph.ModelT, matching: Matching) -> None:
        self.matching = matching
        self._exact, self._quantized = graph.main(exact), graph.main(quantized)
        self._types = {tensor: graph.type_name(found) for tensor, found in enumerate(self._quantized.tensors)}
        self._by_float = {found: index for index, found in matching.operators.items()}
        self._ports = graph.signature_maps(quantized)[1]

    def of(self, tensor: int) -> int:
        """Return the version that a tensor of the quantized graph holds: itself, or what it was dequantized from."""
        parents = self.matching.parents
        while tensor in parents and self._types[tensor] == "FLOAT32":
            tensor = parents[tensor]
        return tensor

    def all(self) -> list[int]:
        """Return every version in execution order: of inputs first, each before what is made of it."""
        found = [tensor for tensor in self.matching.tensors if self.of(tensor) == tensor]
        made = graph.producers(self._quantized)
        return sorted(found, key=lambda tensor: (made.get(tensor, -1), tensor))

    def parent(self, version: int) -> int | None:
        """Return the version that a QUANTIZE made this one of; None where an op made it, or it is given."""
        source = self.matching.parents.get(version)
        return None if source is None else self.of(source)

    def read(self, operator: int, place: int) -> int | None:
        """Return the version that a float op's input is in the quantized graph; None where it has none."""
        tensor = graph.indices(self._exact.operators[operator].inputs)[place]
        index = self._by_float.get(operator)
        inputs = graph.indices(self._quantized.operators[index].inputs) if index is not None else []
        if place < len(inputs) and self.matching.tensors.get(inputs[place]) == tensor:
            return self.of(inputs[place])
        return self._first(tensor)

    def given(self, port: str, tensor: int) -> int | None:
        """Return the version behind signature output `port`, which is `tensor` in the float graph."""
        found = self._ports.get(port)
        if found is not None and self.matching.tensors.get(found) == tensor:
            return self.of(found)
        return self._first(tensor)

    def _first(self, tensor: int) -> int | None:
        made = self.matching.made.get(tensor)
        return None if made is None else self.of(made)


def exposed(data: bytes, tensors: Iterable[int]) -> bytes:
    """Return the graph with each of `tensors` that an op makes as an output, and no other outputs.

    So it runs on the kernels that an app has: `preserve_all_tensors` keeps XNNPACK out, and LiteRT's own kernels
    refuse some int8 models that XNNPACK runs.
    """
    model = graph.read(data)
    main = graph.main(model)
    made = graph.producers(main)
    main.outputs = [tensor for tensor in dict.fromkeys(tensors) if tensor in made]
    model.signatureDefs = None
    return graph.write(model)


def forced(exact: bytes, versions: Versions) -> Forced:
    """Return the float graph whose ops read versions where there are some, and each other's results elsewhere."""
    model = graph.read(exact)
    main = graph.main(model)
    inputs: dict[int, int] = {}

    def given(version: int, tensor: int) -> int:
        if version not in inputs:
            inputs[version] = _add_like(main, tensor, f"quantbuild/forced/{version}")
        return inputs[version]

    for index, operator in enumerate(main.operators):
        reads = graph.indices(operator.inputs)
        for place, tensor in enumerate(reads):
            version = versions.read(index, place)
            if version is not None:
                reads[place] = given(version, tensor)
        operator.inputs = reads
    main.inputs = [*graph.indices(main.inputs), *inputs.values()]
    # What nothing reads any more has no memory unless it is an output.
    main.outputs = [tensor for tensor in graph.producers(main) if tensor in versions.matching.made]
    model.signatureDefs = None
    return Forced(model=graph.write(model), inputs=inputs)


def disturbed(
    exact: bytes, versions: Versions, points: Collection[int], places: Sequence[tuple[int | None, int]]
) -> Disturbed:
    """Return the float graph in which each of the versions `points` can be disturbed, and `places` be looked at.

    A place is a float tensor as an op or an output reads it, in the version given (None: the only one there is).
    """
    model = graph.read(exact)
    main, edit = graph.main(model), _Disturb(model, versions, frozenset(points))
    operators = main.operators
    main.operators = []
    for tensor in graph.indices(main.inputs):
        edit.add(tensor)
    for index, operator in enumerate(operators):
        operator.inputs = [
            edit.value(versions.read(index, place), tensor)
            for place, tensor in enumerate(graph.indices(operator.inputs))
        ]
        main.operators.append(operator)
        for tensor in graph.indices(operator.outputs):
            edit.add(tensor)
    found = tuple(edit.value(version, tensor) for version, tensor in places)
    main.inputs = [*graph.indices(main.inputs), *edit.inputs.values()]
    main.outputs = list(dict.fromkeys(found))
    model.signatureDefs = None
    return Disturbed(model=graph.write(model), inputs=edit.inputs, places=found)


class _Disturb:
    """The ADD behind each version that is a point, and the tensor that holds each version then."""

    def __init__(self, model: graph.ModelT, versions: Versions, points: frozenset[int]) -> None:
        self.inputs: dict[int, int] = {}
        self._model, self._main = model, graph.main(model)
        self._versions, self._points = versions, points
        self._values: dict[int, int] = {}
        self._of: dict[int, list[int]] = {}
        for version in versions.all():
            self._of.setdefault(versions.matching.tensors[version], []).append(version)

    def value(self, version: int | None, tensor: int) -> int:
        return tensor if version is None else self._values.get(version, tensor)

    def add(self, tensor: int) -> None:
        """Add the versions of a float tensor, right behind what makes it."""
        for version in self._of.get(tensor, ()):
            before = self.value(self._versions.parent(version), tensor)
            self._values[version] = self._plus(before, version) if version in self._points else before

    def _plus(self, tensor: int, version: int) -> int:
        given = self.inputs[version] = _add_like(self._main, tensor, f"quantbuild/disturbance/{version}")
        result = _add_like(self._main, tensor, f"quantbuild/disturbed/{version}")
        self._main.operators.append(
            schema.OperatorT(
                opcodeIndex=graph.add_opcode(self._model, "ADD"),
                inputs=[tensor, given],
                outputs=[result],
                builtinOptionsType=schema.BuiltinOptions.AddOptions,
                builtinOptions=schema.AddOptionsT(),
            )
        )
        return result


def _add_like(main: graph.SubGraphT, tensor: int, name: str) -> int:
    return graph.add_tensor(main, name, graph.shape(main.tensors[tensor]))
