"""Names of a step's own files."""

from quantbuild.step import file_name


def test_no_two_steps_share_a_file_name() -> None:
    steps = ("quantize:x.y/z", "quantize:x/y.z", "quantize:x/y", "benchmark:x/y@z", "benchmark:x/y.z@w", "check")
    assert len({file_name(step) for step in steps}) == len(steps)


def test_a_file_name_has_no_separator() -> None:
    assert file_name("benchmark:digits/int8@host") == "benchmark.digits+int8@host"
