"""Train the digits example: writes digits.npz, model.keras and labels.txt beside this file.

Run `python examples/digits/train.py` (needs tensorflow and scikit-learn; about two minutes on two CPU cores). Every
seed is fixed and TensorFlow runs its deterministic kernels, so one machine trains the same weights again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
SEED = 2026
CALIBRATION_SAMPLES = 300
TEST_SAMPLES = 600  # the gate's interval narrows with the square root of this, so training gets only what it needs
EPOCHS = 120
BATCH = 64
LEARNING_RATE = 3e-3
INK_LEVELS = 16.0  # the data set counts the black pixels of each 4x4 block: 0 to 16

Arrays = dict[str, np.ndarray[Any, Any]]


def load_splits() -> Arrays:
    """The three disjoint, stratified splits: x float32 [N, 8, 8, 1] in 0..1, y int64 [N]."""
    digits = load_digits()
    images = (digits.images[..., np.newaxis] / INK_LEVELS).astype(np.float32)
    labels = digits.target.astype(np.int64)
    x_rest, x_test, y_rest, y_test = train_test_split(
        images, labels, test_size=TEST_SAMPLES, stratify=labels, random_state=SEED
    )
    x_train, x_calibration, y_train, y_calibration = train_test_split(
        x_rest, y_rest, test_size=CALIBRATION_SAMPLES, stratify=y_rest, random_state=SEED
    )
    return {
        "x_train": x_train, "y_train": y_train,
        "x_calibration": x_calibration, "y_calibration": y_calibration,
        "x_test": x_test, "y_test": y_test,
    }  # fmt: skip


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
    """Input `image` [batch, 8, 8, 1]; output `probabilities` [batch, 10]."""
    image = keras.Input((8, 8, 1), name="image")
    x = keras.layers.Conv2D(32, 3, padding="same", use_bias=False, name="stem")(image)
    x = keras.layers.BatchNormalization(name="stem_norm")(x)
    x = keras.layers.ReLU(6.0, name="stem_relu")(x)
    x = separable_block(x, "block_1", 64)
    x = separable_block(x, "block_2", 128, stride=2)
    x = separable_block(x, "block_3", 128)
    x = separable_block(x, "block_4", 256, stride=2)
    x = separable_block(x, "block_5", 256)
    x = separable_block(x, "block_6", 256)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dropout(0.3, seed=SEED, name="dropout")(x)
    x = keras.layers.Dense(10, name="logits")(x)
    probabilities = keras.layers.Softmax(name="probabilities")(x)
    return keras.Model(image, probabilities, name="digits")


def shifted(images: np.ndarray[Any, Any], generator: np.random.Generator) -> np.ndarray[Any, Any]:
    """Each picture moved by at most one pixel each way, and its ink made up to a fifth lighter."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    offsets = generator.integers(0, 3, size=(len(images), 2))
    moved = np.stack([padded[i, top : top + 8, left : left + 8] for i, (top, left) in enumerate(offsets)])
    ink = generator.uniform(0.8, 1.0, size=(len(images), 1, 1, 1)).astype(np.float32)
    return moved * ink


class AugmentedDigits(keras.utils.PyDataset):  # type: ignore[misc]
    """Shuffled, augmented batches, drawn from one seeded generator in a single thread."""

    def __init__(self, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> None:
        super().__init__(workers=1, use_multiprocessing=False)
        self.images, self.labels = images, labels
        self.generator = np.random.default_rng(SEED)
        self.order = np.arange(len(labels))
        self.on_epoch_end()

    def __len__(self) -> int:
        return len(self.labels) // BATCH  # a last batch of a few samples would upset batch normalization

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        chosen = self.order[index * BATCH : (index + 1) * BATCH]
        return shifted(self.images[chosen], self.generator), self.labels[chosen]

    def on_epoch_end(self) -> None:
        self.generator.shuffle(self.order)


def train(splits: Arrays) -> Any:
    """The trained model. No split but `train` is looked at: nothing is chosen on calibration or test."""
    model = build_model()
    batches = AugmentedDigits(splits["x_train"], splits["y_train"])
    schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, EPOCHS * len(batches))
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=False,
    )
    model.fit(batches, epochs=EPOCHS, verbose=2, shuffle=False)
    return model


def main() -> None:
    """Train, write the three files, print the float accuracy."""
    keras.utils.set_random_seed(SEED)
    tf.config.experimental.enable_op_determinism()
    splits = load_splits()
    model = train(splits)
    for split in ("calibration", "test"):
        predicted = np.argmax(model.predict(splits[f"x_{split}"], verbose=0), axis=1)
        correct = int(np.sum(predicted == splits[f"y_{split}"]))
        print(f"{split}: {correct} of {len(predicted)} right, {correct / len(predicted):.4f}")
    print(f"{model.count_params()} parameters")
    np.savez_compressed(HERE / "digits.npz", **{name: value for name, value in splits.items() if "train" not in name})
    inference = build_model()  # a model that was never compiled: no optimizer state, a third of the bytes
    inference.set_weights(model.get_weights())
    inference.save(HERE / "model.keras")
    (HERE / "labels.txt").write_text("".join(f"{digit}\n" for digit in range(10)))


if __name__ == "__main__":
    main()
