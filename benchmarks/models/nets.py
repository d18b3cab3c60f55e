"""The nets: MobileNetV2-like with ReLU, a small residual one for angles, and a keyword spotter."""

from __future__ import annotations

from typing import Any

import keras

BLOCKS = ((24, 1), (24, 1), (32, 2), (32, 1), (48, 1), (48, 1))
"""Channels and stride of each inverted residual block of `mobile`."""
EXPANSION = 4


def mobile(extra_hidden: int = 0, extra_channels: int = 0) -> Any:
    """Return MobileNetV2's blocks (Sandler et al., 2018) with ReLU for ReLU6, for pictures of 28×28, ten classes.

    The last residual stage (blocks 5 and 6) may have more channels, and its first block more hidden ones.
    """
    inputs = keras.Input((28, 28, 1), name="image")
    x = _normed(keras.layers.Conv2D(16, 3, 2, "same", use_bias=False, name="stem")(inputs), "stem")
    for number, (channels, stride) in enumerate(BLOCKS, 1):
        late = number > len(BLOCKS) - 2
        first_late = number == len(BLOCKS) - 1
        width = EXPANSION * (BLOCKS[number - 2][0] if number > 1 else 16)
        x = inverted_residual(
            x,
            f"block_{number}",
            hidden=width + (extra_hidden if first_late else 0),
            channels=channels + (extra_channels if late else 0),
            stride=stride,
        )
    x = _normed(keras.layers.Conv2D(128, 1, use_bias=False, name="head")(x), "head")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(10, "softmax", name="classes")(x))


def inverted_residual(x: Any, name: str, *, hidden: int, channels: int, stride: int) -> Any:
    """Widen, filter each channel by itself, narrow without activation; add the input where shapes agree."""
    shortcut = x
    x = _normed(keras.layers.Conv2D(hidden, 1, use_bias=False, name=f"{name}_expand")(x), f"{name}_expand")
    filtered = keras.layers.DepthwiseConv2D(3, stride, "same", use_bias=False, name=f"{name}_depthwise")(x)
    x = _normed(filtered, f"{name}_depthwise")
    x = keras.layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project")(x)
    x = keras.layers.BatchNormalization(name=f"{name}_project_norm")(x)
    if stride == 1 and shortcut.shape[-1] == channels:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def angle() -> Any:
    """Return a residual net (He et al., 2015) for pictures of 28×28 with one number as its output."""
    inputs = keras.Input((28, 28, 1), name="image")
    x = _normed(keras.layers.Conv2D(16, 3, 2, "same", use_bias=False, name="stem")(inputs), "stem")
    for number, channels in enumerate((16, 32, 32), 1):
        name, stride = f"block_{number}", 1 if channels == x.shape[-1] else 2
        shortcut = x
        x = _normed(keras.layers.Conv2D(channels, 3, stride, "same", use_bias=False, name=f"{name}_a")(x), f"{name}_a")
        x = keras.layers.Conv2D(channels, 3, 1, "same", use_bias=False, name=f"{name}_b")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_b_norm")(x)
        if stride == 2:
            shortcut = keras.layers.Conv2D(channels, 1, 2, name=f"{name}_shortcut")(shortcut)
        x = keras.layers.ReLU(name=f"{name}_relu")(keras.layers.Add(name=f"{name}_add")([shortcut, x]))
    x = keras.layers.Flatten(name="flat")(x)
    x = keras.layers.Dense(32, "relu", name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(1, name="turned")(x))


def words() -> Any:
    """Return a depthwise separable net for keyword spotting (DS-CNN; Zhang et al., Hello Edge, 2017)."""
    inputs = keras.Input((85, 40, 1), name="spectrogram")
    x = _normed(keras.layers.Conv2D(48, (10, 4), 2, "same", use_bias=False, name="stem")(inputs), "stem")
    for number in range(1, 5):
        name = f"block_{number}"
        x = keras.layers.DepthwiseConv2D(3, 1, "same", use_bias=False, name=f"{name}_depthwise")(x)
        x = _normed(x, f"{name}_depthwise")
        x = _normed(keras.layers.Conv2D(48, 1, use_bias=False, name=f"{name}_point")(x), f"{name}_point")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(10, "softmax", name="word")(x))


def _normed(x: Any, name: str) -> Any:
    x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)
