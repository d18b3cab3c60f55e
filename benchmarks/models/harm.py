"""Two ways to make a net hard to quantize that keep its float function.

Uneven channels: a depthwise block whose channels are scaled by a log-normal draw, undone in what reads them (what
cross-layer equalization undoes; Nagel et al., 2019). Rare peaks: a late residual tensor with a few channels that a
fifth of the samples drive 15 times harder than the others ever are, as trained MobileNetV2s have; nothing reads them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGMA = 1.5
HARDER = 15.0
SHARE = 0.2
PEAKS = (1.0, 0.8, -0.9, 0.7)
"""What the channels with peaks get of them."""
BLOCK = "block_4"
LATE = "block_5"


def scale_channels(model: Any, seed: int = 4) -> NDArray[np.float32]:
    """Scale the hidden channels of the middle block and undo it where they are read; return the scales [channels].

    ReLU and batch normalization pass a positive scale through: out(s·x) = s·out(x) with mean and offset scaled too.
    """
    expand, depthwise = (model.get_layer(f"{BLOCK}_{part}_norm") for part in ("expand", "depthwise"))
    scales = np.exp(np.random.default_rng(seed).normal(0, SIGMA, expand.gamma.shape[0])).astype(np.float32)
    expand.gamma.assign(expand.gamma * scales)
    expand.beta.assign(expand.beta * scales)
    depthwise.moving_mean.assign(depthwise.moving_mean * scales)
    depthwise.beta.assign(depthwise.beta * scales)
    project = model.get_layer(f"{BLOCK}_project")
    project.kernel.assign(project.kernel / scales[None, None, :, None])
    return scales


def add_peaks(model: Any, widened: Any, samples: NDArray[np.float32]) -> None:
    """Fill `widened`, the same net with a hidden channel and four output channels more in its late stage.

    `samples` [n, 28, 28, 1] tell which threshold a fifth of them pass, and how large values are otherwise.
    """
    import keras

    for layer in model.layers:
        _embed(layer, widened.get_layer(layer.name))
    made = {
        part: keras.Model(model.input, model.get_layer(f"{LATE}_{part}").output)
        for part in ("depthwise_norm", "project_norm")
    }
    # [n, channels]: the largest value of each hidden channel in each sample
    largest = made["depthwise_norm"].predict(samples, verbose=0).max(axis=(1, 2))
    usual = np.abs(made["project_norm"].predict(samples, verbose=0)).max(axis=(1, 2, 3)).mean()
    thresholds = np.quantile(largest, 1 - SHARE, axis=0)
    # the median of what lies above a channel's threshold; 0 for a channel that never changes
    over = largest - thresholds
    typical = np.array([np.median(each[each > 0]) if (each > 0).any() else 0.0 for each in over.T])
    # Of the channels that are driven at all, the one that some samples drive much further than others.
    tails = np.where(typical > typical.max() / 4, over.max(axis=0) / np.maximum(typical, 1e-9), 0)
    source = int(np.argmax(tails))
    for part in ("expand", "expand_norm", "depthwise", "depthwise_norm"):
        _repeat(widened.get_layer(f"{LATE}_{part}"), source)
    norm = widened.get_layer(f"{LATE}_depthwise_norm")
    beta = np.array(norm.beta)
    beta[-1] -= thresholds[source]
    norm.beta.assign(beta)
    project = widened.get_layer(f"{LATE}_project")
    kernel = np.array(project.kernel)
    kernel[..., -1, -len(PEAKS) :] = np.array(PEAKS) * HARDER * usual / typical[source]
    project.kernel.assign(kernel)
    after = widened.get_layer(f"{LATE}_project_norm")
    for name, value in (("gamma", 1.0), ("beta", 0.0), ("moving_mean", 0.0), ("moving_variance", 1 - after.epsilon)):
        values = np.array(getattr(after, name))
        values[-len(PEAKS) :] = value
        getattr(after, name).assign(values)


def _embed(layer: Any, wider: Any) -> None:
    """Copy a layer's weights into the first channels of a wider one; the others get zeros, variances ones."""
    for one, other in zip(layer.weights, wider.weights, strict=True):
        values = (np.ones if one.name == "moving_variance" else np.zeros)(other.shape, np.float32)
        values[tuple(slice(n) for n in one.shape)] = one.numpy()
        other.assign(values)


def _repeat(layer: Any, channel: int) -> None:
    """Make a layer's last channel another copy of `channel`."""
    for weight in layer.weights:
        values = weight.numpy()
        if layer.name.endswith("_depthwise"):
            values[:, :, -1, :] = values[:, :, channel, :]
        else:
            values[..., -1] = values[..., channel]
        weight.assign(values)
