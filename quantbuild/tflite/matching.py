"""Which tensor and op of a quantized graph stands for which of the float graph it was made of.

Names alone do not tell: a quantizer renames outputs, joins the names of an op's several results, and makes names
unique by a digit that another tensor's name may end in. So an op must be of the same kind and its results of the same
shapes; it is found by the output of the signature that it makes, by its name, or as the only one that reads the same
tensors. What is not found is said to be unmatched, never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from quantbuild.tflite import graph, instrumentation

CASTS = frozenset({"QUANTIZE", "DEQUANTIZE"})
_NUMBERS = frozenset({"FLOAT32", "INT8", "UINT8", "INT16"})


@dataclass(frozen=True, kw_only=True)
class Matching:
    """Tensors and ops by index in the main subgraphs. A tensor that a cast makes stands for the same float tensor."""

    measured: tuple[int, ...]
    """The float tensors that there is something to say of: float32 activations of static shape that are used."""
    tensors: Mapping[int, int]
    """Quantized graph's tensor → float tensor."""
    made: Mapping[int, int]
    """Float tensor → the quantized graph's first tensor for it: what its op makes, or the graph is given."""
    parents: Mapping[int, int]
    """Tensor that a cast makes → the tensor that it reads."""
    operators: Mapping[int, int]
    """Quantized graph's op → float op, casts left out."""
    unmatched: tuple[int, ...]
    """Ops of the quantized graph, casts left out, that stand for no one op of the float graph."""

    @property
    def unmatched_tensors(self) -> tuple[int, ...]:
        """Float tensors that the quantized graph does not have."""
        return tuple(tensor for tensor in self.measured if tensor not in self.made)


def match(exact: graph.ModelT, quantized: graph.ModelT) -> Matching:
    """Match the main subgraph of `quantized` with that of the float model `exact`."""
    return _Matcher(exact, quantized).matching()


@dataclass
class _Matcher:
    exact: graph.ModelT
    quantized: graph.ModelT
    tensors: dict[int, int] = field(default_factory=dict)
    made: dict[int, int] = field(default_factory=dict)
    parents: dict[int, int] = field(default_factory=dict)
    operators: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        main = graph.main(self.exact)
        layout = instrumentation.layout(self.exact)
        used = _used(main)
        self._measured = [t for t in layout.tensors if t in used and not instrumentation.is_dynamic(main.tensors[t])]
        self._used = _used(graph.main(self.quantized))
        self._floats = frozenset(self._measured)
        self._kinds = graph.op_names(self.exact)
        self._taken: set[int] = set()
        self._by_name = self._named_ops()
        self._by_port = self._ports()

    def matching(self) -> Matching:
        self._match_inputs()
        main, unmatched = graph.main(self.quantized), []
        for index, (operator, kind) in enumerate(zip(main.operators, graph.op_names(self.quantized), strict=True)):
            if kind in CASTS:
                self._follow(operator)
            elif not self._match(index, operator, kind) and self._touches_activations(operator):
                unmatched.append(index)
        return Matching(
            measured=tuple(self._measured),
            tensors=self.tensors,
            made=self.made,
            parents=self.parents,
            operators=self.operators,
            unmatched=tuple(unmatched),
        )

    def _match_inputs(self) -> None:
        exact, quantized = graph.signature_maps(self.exact)[0], graph.signature_maps(self.quantized)[0]
        for name, tensor in exact.items():
            if name in quantized and tensor in self._floats:
                self._stands_for(quantized[name], tensor)

    def _follow(self, operator: graph.OperatorT) -> None:
        """A cast of an activation makes another copy of what its input stands for."""
        source, result = graph.indices(operator.inputs)[0], graph.indices(operator.outputs)[0]
        if source in self.tensors:
            self.tensors[result] = self.tensors[source]
            self.parents[result] = source

    def _match(self, index: int, operator: graph.OperatorT, kind: str) -> bool:
        found = self._find(operator, kind)
        if found is None:
            return False
        self._taken.add(found)
        self.operators[index] = found
        outputs = graph.indices(graph.main(self.exact).operators[found].outputs)
        for tensor, stands_for in zip(graph.indices(operator.outputs), outputs, strict=True):
            if stands_for in self._floats:
                self._stands_for(tensor, stands_for)
        return True

    def _stands_for(self, tensor: int, exact: int) -> None:
        if tensor not in self._used:
            return
        self.tensors[tensor] = exact
        self.made.setdefault(exact, tensor)

    def _find(self, operator: graph.OperatorT, kind: str) -> int | None:
        outputs = graph.indices(operator.outputs)
        if not outputs:
            return None
        name = graph.tensor_name(graph.main(self.quantized).tensors[outputs[0]])
        likely = (self._by_port.get(outputs[0]), self._by_name.get(name))
        for candidate in likely:
            if candidate is not None and self._is_like(candidate, operator, kind):
                return candidate
        reads = [self.tensors.get(tensor) for tensor in self._activations(operator)]
        if not reads or None in reads:
            return None
        alike = [
            candidate
            for candidate in range(len(self._kinds))
            if self._kinds[candidate] == kind
            and self._is_like(candidate, operator, kind)
            and self._float_reads(candidate) == reads
        ]
        return alike[0] if len(alike) == 1 else None

    def _is_like(self, candidate: int, operator: graph.OperatorT, kind: str) -> bool:
        if candidate in self._taken or self._kinds[candidate] != kind:
            return False
        exact, quantized = graph.main(self.exact), graph.main(self.quantized)
        wanted = [graph.shape(quantized.tensors[t]) for t in graph.indices(operator.outputs)]
        return [graph.shape(exact.tensors[t]) for t in graph.indices(exact.operators[candidate].outputs)] == wanted

    def _float_reads(self, candidate: int) -> list[int]:
        inputs = graph.indices(graph.main(self.exact).operators[candidate].inputs)
        return [tensor for tensor in inputs if tensor in self._floats]

    def _activations(self, operator: graph.OperatorT) -> list[int]:
        tensors = graph.main(self.quantized).tensors
        return [
            tensor
            for tensor in graph.indices(operator.inputs)
            if tensor >= 0
            and graph.type_name(tensors[tensor]) in _NUMBERS
            and not graph.is_constant(self.quantized, tensors[tensor])
            and not tensors[tensor].isVariable
        ]

    def _touches_activations(self, operator: graph.OperatorT) -> bool:
        return bool(self._activations(operator))

    def _named_ops(self) -> dict[str, int]:
        """Return the name of an op's first result → the op, where that is the name of no other's."""
        main = graph.main(self.exact)
        firsts = {index: graph.indices(operator.outputs)[:1] for index, operator in enumerate(main.operators)}
        names = {index: graph.tensor_name(main.tensors[found[0]]) for index, found in firsts.items() if found}
        counted = Counter(names.values())
        return {name: index for index, name in names.items() if name and counted[name] == 1}

    def _ports(self) -> dict[int, int]:
        """Return the quantized graph's tensor that a signature output is, or is cast from → the float op behind it."""
        producers, casts = graph.producers(graph.main(self.exact)), graph.producers(graph.main(self.quantized))
        exact, quantized = graph.signature_maps(self.exact)[1], graph.signature_maps(self.quantized)[1]
        main, found = graph.main(self.quantized), {}
        for name, tensor in quantized.items():
            while tensor in casts and graph.op_name(self.quantized, main.operators[casts[tensor]]) in CASTS:
                tensor = graph.indices(main.operators[casts[tensor]].inputs)[0]  # noqa: PLW2901
            if name in exact and exact[name] in producers:
                operator = graph.main(self.exact).operators[producers[exact[name]]]
                if graph.indices(operator.outputs)[0] == exact[name]:
                    found[tensor] = producers[exact[name]]
        return found


def _used(main: graph.SubGraphT) -> set[int]:
    """Return the tensors that some op reads or the graph gives: the runtime has no memory for others."""
    return set(graph.consumers(main)) | set(graph.indices(main.outputs))
