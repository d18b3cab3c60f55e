"""The models that are hard to quantize compute what the sound one does: else their losses would say nothing."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def models() -> Any:
    """The benchmarks' package of models."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        from models import harm, nets
    finally:
        sys.path.remove(str(BENCHMARKS))
    return harm, nets


@pytest.fixture(scope="module")
def sound(models: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    """A net whose normalizations do something, samples, and what it makes of them."""
    import keras

    keras.utils.set_random_seed(0)
    net = models[1].mobile()
    rng = np.random.default_rng(0)
    for layer in net.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            low = {"gamma": 0.5, "moving_variance": 0.5}
            for weight in layer.weights:
                weight.assign(rng.uniform(low.get(weight.name, -0.3), low.get(weight.name, -0.3) + 1, weight.shape))
    samples = rng.random((40, 28, 28, 1), dtype=np.float32)
    return net, samples, net.predict(samples, verbose=0)


def test_uneven_channels_keep_the_function(models: Any, sound: tuple[Any, np.ndarray, np.ndarray]) -> None:
    harm, nets = models
    net, samples, expected = sound
    uneven = nets.mobile()
    uneven.set_weights(net.get_weights())
    scales = harm.scale_channels(uneven)
    assert scales.max() / np.median(scales) > 10
    np.testing.assert_allclose(uneven.predict(samples, verbose=0), expected, atol=1e-5)


def test_rare_peaks_keep_the_function_and_come_in_a_fifth_of_the_samples(
    models: Any, sound: tuple[Any, np.ndarray, np.ndarray]
) -> None:
    import keras

    harm, nets = models
    net, samples, expected = sound
    peaks = nets.mobile(1, len(harm.PEAKS))
    harm.add_peaks(net, peaks, samples)
    np.testing.assert_allclose(peaks.predict(samples, verbose=0), expected, atol=1e-5)
    late = keras.Model(peaks.input, peaks.get_layer("block_6_add").output).predict(samples, verbose=0)
    driven = np.abs(late[..., -len(harm.PEAKS) :]).max(axis=(1, 2, 3))
    assert (driven > 0).mean() == pytest.approx(harm.SHARE, abs=0.05)
    assert np.median(driven[driven > 0]) > 5 * np.abs(late[..., : -len(harm.PEAKS)]).max(axis=(1, 2, 3)).mean()
