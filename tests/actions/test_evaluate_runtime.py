"""Samples meet a model's inputs by name, as real values, and every mismatch is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_tflite import linear

from quantbuild.errors import StepError
from quantbuild.tflite.feeding import quantize
from quantbuild.tflite.runtime import Binding, dequantize, open_interpreter


@pytest.fixture
def binding(tmp_path: Path) -> Binding:
    return Binding(open_interpreter(str(linear(tmp_path / "model.tflite"))))


@pytest.fixture
def int8_binding(tmp_path: Path) -> Binding:
    return Binding(open_interpreter(linear(tmp_path / "model.tflite", int8_io=True).read_bytes()))


SAMPLE = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32)


def test_a_sample_is_bound_by_signature_name(binding: Binding) -> None:
    outputs = binding.run({"image": SAMPLE})
    assert list(outputs) == ["scores"]
    np.testing.assert_array_equal(outputs["scores"], [[1, 2, 3]])


def test_an_unnamed_array_is_the_only_input(binding: Binding) -> None:
    np.testing.assert_array_equal(binding.run({"": SAMPLE})["scores"], [[1, 2, 3]])


def test_float64_and_integers_are_real_values(binding: Binding) -> None:
    for dtype in (np.float64, np.uint8, np.int64):
        np.testing.assert_array_equal(binding.run({"image": SAMPLE.astype(dtype)})["scores"], [[1, 2, 3]])


def test_integer_inputs_are_quantized_and_outputs_dequantized(int8_binding: Binding) -> None:
    assert int8_binding.inputs[0].dtype == np.int8
    outputs = int8_binding.run({"image": SAMPLE})["scores"]
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, [[1, 2, 3]], atol=0.25)


def test_an_integer_sample_is_the_same_real_values_for_an_int8_model(int8_binding: Binding) -> None:
    as_float = int8_binding.run({"image": SAMPLE})["scores"]
    np.testing.assert_array_equal(int8_binding.run({"image": SAMPLE.astype(np.uint8)})["scores"], as_float)


def test_quantize_rounds_and_saturates() -> None:
    values = np.array([0.0, 0.26, -1.0, 1e6, -1e6], np.float32)
    assert quantize(values, 0.5, 3, np.dtype(np.int8)).tolist() == [3, 4, 1, 127, -128]
    assert dequantize(np.array([4], np.int8), 0.5, 3).tolist() == [0.5]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"image": SAMPLE[0]}, r"sample 7: input 'image' has shape \[4\], the model takes \[1, 4\]; .*batch axis"),
        ({"image": SAMPLE[:, :3]}, r"has shape \[1, 3\], the model takes \[1, 4\]"),
        ({"picture": SAMPLE}, r"no input 'picture'; its inputs are 'image'"),
        ({}, r"no array for input 'image'"),
        ({"image": SAMPLE * np.nan}, r"sample 7: input 'image' \(float32\) holds NaN or infinity"),
        ({"image": SAMPLE.astype(str)}, r"dtype <U"),
        ({"image": SAMPLE * np.float64(1e300)}, r"\(float64\) holds numbers beyond float32"),
    ],
)
def test_what_does_not_fit_is_named(binding: Binding, sample: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(StepError, match=message):
        binding.run(sample, 7)


def test_an_output_that_overflows_is_named(tmp_path: Path) -> None:
    path = linear(tmp_path / "huge.tflite", np.full((2, 4), 3e38, np.float32))
    with pytest.raises(StepError, match="sample 3: output 'scores' holds NaN or infinity"):
        Binding(open_interpreter(str(path))).run({"": SAMPLE}, 3)


def test_an_unknown_signature_is_refused_with_those_there_are(tmp_path: Path) -> None:
    interpreter = open_interpreter(str(linear(tmp_path / "model.tflite")))
    with pytest.raises(StepError, match="no signature 'train'; its signatures are 'serving_default'"):
        Binding(interpreter, "train")


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"nothing")
    with pytest.raises(StepError, match="LiteRT cannot load the model"):
        open_interpreter(str(path))
