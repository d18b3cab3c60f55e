"""Train the fashion example: writes fashion.npz, model.keras and labels.txt beside this file.

Run `python examples/fashion/train.py` (needs tensorflow, and the data: `apt-get install dataset-fashion-mnist`; about
eleven minutes on two CPU cores). Every seed is fixed and TensorFlow runs its deterministic kernels, so one machine
trains the same weights again.
"""

from __future__ import annotations

import gzip
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

HERE = Path(__file__).resolve().parent
DATA = Path(sys.argv[1] if len(sys.argv) > 1 else "/usr/share/datasets/fashion-mnist")
SEED = 2026
CALIBRATION_SAMPLES = 500  # of the 60,000 training pictures; the network never sees them
EPOCHS = 9
BATCH = 128
LEARNING_RATE = 3e-3
LARGEST_PIXEL = 255.0
LARGEST_SHIFT = 2  # pixels, each way

CLASSES = {
    "T-shirt/top": "tops", "Trouser": "bottoms", "Pullover": "tops", "Dress": "dresses", "Coat": "tops",
    "Sandal": "footwear", "Shirt": "tops", "Sneaker": "footwear", "Bag": "bags", "Ankle boot": "footwear",
}  # fmt: skip
"""Class name, in the data set's order, to the shop's department: the slice its pictures belong to."""

Array = np.ndarray[Any, Any]


def read_idx(name: str) -> Array:
    """One file of the data set: uint8, its shape in the header (http://yann.lecun.com/exdb/mnist/, "IDX")."""
    with gzip.open(DATA / name) as file:
        content = file.read()
    axes = content[3]  # the fourth byte counts the axes; each axis is a big-endian uint32
    shape = np.frombuffer(content, ">u4", axes, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def load_part(part: str) -> tuple[Array, Array]:
    """Pictures uint8 [N, 28, 28, 1] and labels uint8 [N] of "train" (60,000) or "t10k" (10,000)."""
    return read_idx(f"{part}-images-idx3-ubyte.gz")[..., np.newaxis], read_idx(f"{part}-labels-idx1-ubyte.gz")


def split_off(labels: Array, count: int) -> tuple[Array, Array]:
    """Row numbers of `count` pictures, the same number from every class, and of all the others."""
    generator = np.random.default_rng(SEED)
    share = count // len(CLASSES)
    chosen = [generator.permutation(np.flatnonzero(labels == label))[:share] for label in range(len(CLASSES))]
    apart = np.sort(np.concatenate(chosen))
    return apart, np.setdiff1d(np.arange(len(labels)), apart)


def scaled(images: Array) -> Array:
    """What the network takes: float32, 0 to 1. The manifest declares the same (mean 0, std 255)."""
    return images.astype(np.float32) / np.float32(LARGEST_PIXEL)


def separable_block(x: Any, name: str, filters: int, stride: int = 1) -> Any:
    """Depthwise 3x3, pointwise 1x1, each with batch normalization and ReLU6; a residual where shapes agree."""
    shortcut = x
    x = keras.layers.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
    x = keras.layers.BatchNormalization(name=f"{name}_depthwise_norm")(x)
    x = keras.layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
    x = keras.layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_pointwise")(x)
    x = keras.layers.BatchNormalization(name=f"{name}_pointwise_norm")(x)
    x = keras.layers.ReLU(6.0, name=f"{name}_pointwise_relu")(x)
    if stride == 1 and shortcut.shape[-1] == filters:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def build_model() -> Any:
    """Input `image` [batch, 28, 28, 1]; output `probabilities` [batch, 10]."""
    image = keras.Input((28, 28, 1), name="image")
    x = keras.layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False, name="stem")(image)
    x = keras.layers.BatchNormalization(name="stem_norm")(x)
    x = keras.layers.ReLU(6.0, name="stem_relu")(x)
    x = separable_block(x, "block_1", 64)
    x = separable_block(x, "block_2", 64)
    x = separable_block(x, "block_3", 128, stride=2)
    x = separable_block(x, "block_4", 128)
    x = separable_block(x, "block_5", 128)
    x = separable_block(x, "block_6", 256, stride=2)
    x = separable_block(x, "block_7", 256)
    x = separable_block(x, "block_8", 256)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.2, seed=SEED, name="dropout")(x)
    x = keras.layers.Dense(len(CLASSES), name="logits")(x)
    probabilities = keras.layers.Softmax(name="probabilities")(x)
    return keras.Model(image, probabilities, name="fashion")


def moved(images: Array, generator: np.random.Generator) -> Array:
    """Each picture shifted by at most two pixels each way, and half of them mirrored."""
    width = 2 * LARGEST_SHIFT + 1
    padding = (LARGEST_SHIFT, LARGEST_SHIFT)
    padded = np.pad(images, ((0, 0), padding, padding, (0, 0)))
    offsets = generator.integers(0, width, size=(len(images), 2))
    shifted = np.stack([padded[i, top : top + 28, left : left + 28] for i, (top, left) in enumerate(offsets)])
    mirrored = generator.random(len(images)) < 0.5
    shifted[mirrored] = shifted[mirrored, :, ::-1]
    return shifted


class AugmentedPictures(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled, augmented batches, drawn from one seeded generator in a single thread."""

    def __init__(self, images: Array, labels: Array) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.images, self.labels = images, labels
        self.generator = np.random.default_rng(SEED)
        self.order = np.arange(len(labels))
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.labels) // BATCH  # a last batch of a few samples would upset batch normalization

    def __getitem__(self, index: int) -> tuple[Array, Array]:
        chosen = self.order[index * BATCH : (index + 1) * BATCH]
        return scaled(moved(self.images[chosen], self.generator)), self.labels[chosen]

    def on_epoch_end(self) -> None:
        self.generator.shuffle(self.order)


def train(images: Array, labels: Array) -> Any:
    """The trained model. Nothing is chosen on the calibration or test pictures: neither is looked at here."""
    model = build_model()
    batches = AugmentedPictures(images, labels)
    model.compile(
        optimizer=keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(LEARNING_RATE, EPOCHS * len(batches)), weight_decay=1e-3
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(batches, epochs=EPOCHS, verbose=2, shuffle=False)
    return model


def report(model: Any, part: str, images: Array, labels: Array) -> None:
    """Print the float accuracy on pictures that trained nothing."""
    predicted = np.argmax(model.predict(scaled(images), verbose=0), axis=1)
    correct = int(np.sum(predicted == labels))
    print(f"{part}: {correct} of {len(labels)} right, {correct / len(labels):.4f}")


def main() -> None:
    """Train, write the three files, print the float accuracy."""
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    images, labels = load_part("train")
    test_images, test_labels = load_part("t10k")
    apart, rest = split_off(labels, CALIBRATION_SAMPLES)
    departments = np.array(list(CLASSES.values()))
    np.savez_compressed(
        HERE / "fashion.npz",
        x_train=images[apart], y_train=labels[apart], group_train=departments[labels[apart]],
        x_test=test_images, y_test=test_labels, group_test=departments[test_labels],
    )  # fmt: skip
    (HERE / "labels.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    model = train(images[rest], labels[rest])
    report(model, "calibration", images[apart], labels[apart])
    report(model, "test", test_images, test_labels)
    print(f"{model.count_params()} parameters")
    inference = build_model()  # a model that was never compiled: no optimizer state, a third of the bytes
    inference.set_weights(model.get_weights())
    inference.save(HERE / "model.keras")


if __name__ == "__main__":
    main()
