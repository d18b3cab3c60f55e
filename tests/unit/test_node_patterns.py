"""keep_float and keep_int16: what a pattern means, which names a node goes by, and what is said where nothing fits."""

from __future__ import annotations

import pytest

from quantbuild.errors import StepError
from quantbuild.nodes.names import Scopes, parts
from quantbuild.nodes.node import Node, numbered
from quantbuild.nodes.patterns import check, problem, reference, resolve
from quantbuild.nodes.table import table

# A small net as Keras and the converter name it: a fused conv, a split, two branches, their sum, an output.
FUSED = "net_1/stem_relu_1/Relu;net_1/stem_1/convolution"


def graph() -> tuple[Node, ...]:
    tensors = [
        ("CONV_2D", (FUSED,), (0,), (1,)),
        ("SPLIT", ("net_1/split", "net_1/split1"), (1,), (2, 3)),
        ("CONV_2D", ("net_1/conv_1/convolution",), (2,), (4,)),
        ("CONV_2D", ("net_1/conv_1_1/convolution",), (3,), (5,)),
        ("ADD", ("net_1/block_12_1/sum_1/Add",), (4, 5), (6,)),
        ("RESHAPE", ("net_1/flat_1/Reshape",), (6,), (7,)),
        ("SOFTMAX", ("StatefulPartitionedCall:0",), (7,), (8,)),
    ]
    scopes = Scopes(name for _, names, _, _ in tensors for name in names)
    nodes = []
    for index, (op, names, reads, writes) in enumerate(tensors):
        joined = [part for name in names for part in parts(name)]
        nodes.append(
            Node(
                index=index,
                op=op,
                tensors=names,
                reads=reads,
                writes=writes,
                parts=tuple(joined),
                ports=("probabilities",) if op == "SOFTMAX" else (),
                layers=tuple(layer for part in joined for layer in scopes.layers(part)),
                scopes=tuple(scope for part in joined for scope in scopes.scopes(part)),
            )
        )
    return numbered(nodes)


INPUTS = {"image": 0}


def meant(*patterns: str) -> list[int]:
    return [node.index for node in resolve("keep_float", patterns, graph(), INPUTS)]


@pytest.mark.parametrize(
    ("pattern", "indices"),
    [
        (FUSED, [0]),
        ("net_1/stem_1/convolution", [0]),  # one of the joined names
        ("stem", [0]),
        ("stem_relu", [0]),
        ("stem/convolution", [0]),
        ("net_1/split1", [1]),  # the second output's name means the op
        ("split", [1]),
        ("block_12", [4]),
        ("block_12/sum", [4]),
        ("sum", [4]),
        ("probabilities", [6]),  # the signature's name of an output
        ("StatefulPartitionedCall:0", [6]),
    ],
)
def test_an_exact_name_means_the_node_that_goes_by_it(pattern: str, indices: list[int]) -> None:
    assert meant(pattern) == indices


def test_a_layers_name_is_its_authors_not_the_one_that_tracing_made_of_another() -> None:
    # Keras' layers conv and conv_1 are traced as conv_1 and conv_1_1.
    assert meant("conv") == [2]
    assert meant("conv_1") == [3]
    assert meant("conv_1_1") == [3]  # the traced name itself, where no layer is called that


@pytest.mark.parametrize(
    ("pattern", "indices"),
    [
        ("conv*", [2, 3]),
        ("*", [0, 1, 2, 3, 4, 5, 6]),
        ("net_1/split?", [1]),
        ("block_1[0-9]", [4]),
        ("re:^conv", [2, 3]),
        ("re:block_1[0-9]/.*", [4]),
        ("re:Relu;net", [0]),
        ("op:CONV_2D", [0, 2, 3]),
        ("op:conv_2d", [0, 2, 3]),
        ("node:4", [4]),
    ],
)
def test_globs_regular_expressions_and_types_mean_every_node_that_fits(pattern: str, indices: list[int]) -> None:
    assert meant(pattern) == indices


def test_a_name_with_a_globs_characters_is_taken_exactly_first() -> None:
    nodes = numbered(
        [
            Node(index=0, op="ADD", tensors=("a[0]",), reads=(0,), writes=(1,)),
            Node(index=1, op="ADD", tensors=("a0",), reads=(1,), writes=(2,)),
        ]
    )
    assert [node.index for node in resolve("keep_float", ["a[0]"], nodes)] == [0]


def test_first_and_last_count_the_nodes_that_compute() -> None:
    assert meant("first:2") == [0, 2]  # the split only moves values
    assert meant("last:2") == [4, 6]  # and so does the reshape
    with pytest.raises(StepError, match='keep_float: "first:9": the model has 5 nodes that compute; write a smaller'):
        meant("first:9")


def test_a_tensor_means_what_makes_it_and_what_reads_it() -> None:
    assert meant("tensor:sum") == [4, 5, 6]  # through the reshape to the softmax
    assert meant("tensor:image") == [0]
    assert meant("tensor:split") == [0, 1, 2, 3]
    assert meant("tensor:op:SOFTMAX") == [6]


def test_several_patterns_give_each_node_once_in_execution_order() -> None:
    assert meant("probabilities", "stem", "op:CONV_2D") == [0, 2, 3, 6]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("stme", 'keep_float: "stme" means no node of the model; the nearest names are "stem"'),
        ("softmax", '"op:SOFTMAX"'),
        ("op:RELU", 'it has names such as|nearest names are "op:'),
        ("re:block_2[0-9]/", "means no node of the model"),
        ("node:17", "means no node of the model"),
        ("tensor:imag", '"image"'),
        ("zzzz*", "it has names such as .*`quantbuild nodes MODEL` lists all"),
    ],
)
def test_a_pattern_that_means_nothing_is_an_error_with_the_nearest_names(pattern: str, message: str) -> None:
    with pytest.raises(StepError, match=message):
        meant("stem", pattern)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("", "names nothing"),
        ("tensor:", "names nothing"),
        ("re:[", "is no regular expression"),
        ("first:0", "is no count; write a whole number of at least 1"),
        ("last:two", "is no count"),
        ("tensor:first:-1", "is no count"),
        ("first:²", "is no count"),
        ("op:", "names no type"),
        ("node:x", "is no place"),
    ],
)
def test_a_badly_written_pattern_is_told_before_any_model_is_read(pattern: str, said: str) -> None:
    found = problem(pattern)
    assert found is not None
    assert said in found
    with pytest.raises(ValueError, match=r"^keep_int16: "):
        check("keep_int16", ["fine", pattern])


def test_a_reference_means_its_node_alone() -> None:
    nodes = list(graph())
    nodes.append(Node(index=7, op="ADD", tensors=("twice",), reads=(8,), writes=(9,)))
    nodes.append(Node(index=8, op="ADD", tensors=("twice",), reads=(8,), writes=(10,)))
    nodes.append(Node(index=9, op="ADD", tensors=("",), reads=(8,), writes=(11,)))
    nodes.append(Node(index=10, op="ADD", tensors=("re:x",), reads=(8,), writes=(12,)))
    for node in nodes:
        text = reference(node, nodes)
        assert [found.index for found in resolve("keep_float", [text], nodes)] == [node.index]
    assert reference(nodes[0], nodes) == FUSED


def test_names_without_a_models_scope_or_traced_numbers_are_left_as_they_are() -> None:
    scopes = Scopes(["MobilenetV1/Conv2d_0/Relu6", "MobilenetV1/Logits/Conv2d_1c_1x1/BiasAdd"])
    assert scopes.layers("MobilenetV1/Conv2d_0/Relu6") == ("Conv2d_0", "Conv2d_0/Relu6")
    mixed = Scopes(["conv1/Relu", "conv2/Relu"])
    assert mixed.layers("conv1/Relu") == ("conv1", "conv1/Relu")
    assert Scopes(["a", "b"]).layers("a") == ()


def test_a_layer_in_a_model_in_a_model_goes_by_every_run_of_its_path() -> None:
    scopes = Scopes(["outer_1/inner_1/conv_1/Relu"])
    assert set(scopes.layers("outer_1/inner_1/conv_1/Relu")) == {"inner/conv", "inner/conv/Relu", "inner", "conv"}


def test_the_table_of_nodes_has_a_line_each_with_the_number_that_first_counts() -> None:
    node = {"number": 1, "op": "CONV_2D", "layer": "stem", "shape": [1, 8, 8, 32], "dtype": "float32"}
    lines = table(
        [
            {**node, "weight_bytes": 1280, "name": FUSED},
            {**node, "number": None, "op": "RESHAPE", "shape": [], "weight_bytes": 0, "name": "flat"},
        ]
    )
    assert lines[0].split() == ["#", "op", "layer", "shape", "type", "weights", "name"]
    assert lines[1].split() == [
        *("1", "CONV_2D", "stem", "1×8×8×32", "float32", "1.3", "kB"),
        *("net_1/stem_relu_1/Relu", "(+1)"),
    ]
    assert lines[2].split() == ["RESHAPE", "stem", "scalar", "float32", "flat"]
