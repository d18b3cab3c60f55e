"""Islands: the fewest nodes that must leave int8 together, so that an activation stays exact."""

from __future__ import annotations

from quantbuild.nodes.islands import island
from quantbuild.nodes.node import Node, numbered


def graph(*ops: tuple[str, tuple[int, ...], tuple[int, ...]]) -> tuple[Node, ...]:
    """Return nodes of (op, tensors it reads, tensors it writes), numbered as they come."""
    return numbered(
        [
            Node(index=index, op=op, tensors=(f"n{index}",), reads=reads, writes=writes)
            for index, (op, reads, writes) in enumerate(ops)
        ]
    )


RESIDUAL = graph(
    ("CONV_2D", (0,), (1,)),
    ("CONV_2D", (1,), (2,)),
    ("ADD", (1, 2), (3,)),
    ("CONV_2D", (3,), (4,)),
    ("SOFTMAX", (4,), (5,)),
)


def test_an_island_is_the_producer_and_every_consumer() -> None:
    assert island(RESIDUAL, {1}) == [0, 1, 2]
    assert island(RESIDUAL, {3}) == [2, 3]


def test_a_models_input_has_consumers_and_its_output_a_producer() -> None:
    assert island(RESIDUAL, {0}) == [0]
    assert island(RESIDUAL, {5}) == [4]


def test_a_tensor_that_nothing_touches_has_no_island() -> None:
    assert island(RESIDUAL, {99}) == []
    assert island(RESIDUAL, set()) == []


def test_islands_of_several_tensors_are_their_union() -> None:
    assert island(RESIDUAL, {3, 5}) == [2, 3, 4]


def test_an_island_reaches_through_ops_that_only_move_values() -> None:
    nodes = graph(
        ("CONV_2D", (0,), (1,)),
        ("RESHAPE", (1,), (2,)),
        ("MAX_POOL_2D", (2,), (3,)),
        ("CONV_2D", (3,), (4,)),
    )
    for tensor in (1, 2, 3):
        assert island(nodes, {tensor}) == [0, 1, 2, 3]


def test_of_a_split_all_that_reads_its_parts_belongs_to_what_is_split() -> None:
    nodes = graph(
        ("CONV_2D", (0,), (1,)),
        ("SPLIT", (1,), (2, 3)),
        ("CONV_2D", (2,), (4,)),
        ("ABS", (3,), (5,)),
    )
    assert island(nodes, {1}) == [0, 1, 2, 3]
    assert island(nodes, {2}) == [0, 1, 2]  # the other part may stay int8


def test_what_is_joined_needs_its_parts_exact_but_not_their_other_readers() -> None:
    nodes = graph(
        ("CONV_2D", (0,), (1,)),
        ("CONV_2D", (0,), (2,)),
        ("CONCATENATION", (1, 2), (3,)),
        ("CONV_2D", (3,), (4,)),
        ("ABS", (1,), (5,)),
    )
    assert island(nodes, {3}) == [0, 1, 2, 3]
    assert island(nodes, {1}) == [0, 2, 3, 4]  # its other part may come from int8


def test_islands_with_nothing_but_moved_values_between_them_become_one() -> None:
    nodes = graph(
        ("CONV_2D", (0,), (1,)),
        ("CONV_2D", (1,), (2,)),
        ("RESHAPE", (2,), (3,)),
        ("TRANSPOSE", (3,), (4,)),
        ("CONV_2D", (4,), (5,)),
        ("CONV_2D", (5,), (6,)),
    )
    assert island(nodes, {1, 5}) == [0, 1, 2, 3, 4, 5]
    assert island(nodes, {1}) == [0, 1]


def test_moved_values_that_int8_ops_read_too_do_not_join_islands() -> None:
    nodes = graph(
        ("CONV_2D", (0,), (1,)),
        ("CONV_2D", (1,), (2,)),
        ("RESHAPE", (2,), (3,)),
        ("CONV_2D", (3,), (4,)),
        ("CONV_2D", (4,), (5,)),
        ("ABS", (3,), (6,)),
    )
    assert island(nodes, {1, 4}) == [0, 1, 3, 4]
