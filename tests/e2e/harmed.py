"""A small network that int8 harms in two places, with its samples: written by a process that may import TensorFlow."""

from __future__ import annotations

SCRIPT = """
import keras, numpy as np
from keras import layers

keras.utils.set_random_seed(5)
image = x = keras.Input((8, 8, 4), name="image")
for number in range(6):
    # ELU is not homogeneous, so that no scaling between layers sets right what is done below.
    x = layers.Conv2D(8, 3, padding="same", activation="elu", name=f"conv_{number}")(x)
model = keras.Model(image, layers.Dense(6, name="scores")(layers.GlobalAveragePooling2D(name="mean")(x)))
for number in (1, 3):  # one channel far louder than the others, and what reads it hears it softly
    for layer, scale, channel in ((number, LOUD, np.s_[..., 0]), (number + 1, 1 / LOUD, np.s_[:, :, 0])):
        weights, bias = model.get_layer(f"conv_{layer}").get_weights()
        weights[channel] *= scale
        model.get_layer(f"conv_{layer}").set_weights([weights, bias])
rng = np.random.default_rng(0)
weights, bias = model.layers[-1].get_weights()  # so that every class is somebody's
scores = model.predict(rng.standard_normal((500, 8, 8, 4)).astype(np.float32), verbose=0)
model.layers[-1].set_weights([weights / scores.std(axis=0), (bias - scores.mean(axis=0)) / scores.std(axis=0)])
model.save("model.keras")
for name, count in (("calibration", 60), ("selection", 120), ("test", 400)):
    drawn = rng.standard_normal((count, 8, 8, 4)).astype(np.float32)
    np.savez(f"{name}.npz", x=drawn, y=model.predict(drawn, verbose=0).argmax(-1))
"""


def script(loudness: float = 100.0) -> str:
    """Return a script that writes model.keras, calibration.npz, selection.npz and test.npz, labelled by the model."""
    return SCRIPT.replace("LOUD", str(loudness))
