"""Small graphs written op by op, each with an oddity that quantizers stumble over, and what tests do with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from tiny_models import job
from wide_models import Builder

from quantbuild.actions import quantize
from quantbuild.tflite import calibration, feeding, graph, runtime, statistics_file

SAMPLES = 24
SEEDS = {"calibration": 0, "test": 1}


class Net(Builder):
    """A builder with seeded weights and a signature."""

    def __init__(self) -> None:
        super().__init__()
        self.random = np.random.default_rng(0)

    def weights(self, *shape: int) -> np.ndarray:
        return (self.random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)

    def conv(self, given: int, name: str, weights: np.ndarray, bias: np.ndarray) -> int:
        """A convolution that keeps height and width."""
        size = graph.shape(self.graph.tensors[given])
        options = schema.Conv2DOptionsT(strideH=1, strideW=1, padding=schema.Padding.SAME)
        inputs = [given, self.constant(weights), self.constant(bias)]
        return self.op("CONV_2D", inputs, [self.tensor(name, *size[:-1], len(weights))], options)

    def dense(self, given: int, name: str, units: int) -> int:
        size = graph.shape(self.graph.tensors[given])
        weights, bias = self.constant(self.weights(units, size[-1])), self.constant(self.weights(units, 8)[:, 0].copy())
        options = schema.FullyConnectedOptionsT()
        return self.op("FULLY_CONNECTED", [given, weights, bias], [self.tensor(name, *size[:-1], units)], options)

    def signed(self, **outputs: int) -> bytes:
        """The model with a signature: inputs by their tensors' names, outputs by these."""
        main = self.model.subgraphs[0]

        def entries(tensors: dict[str, int]) -> list[Any]:
            return [schema.TensorMapT(name=name, tensorIndex=tensor) for name, tensor in tensors.items()]

        inputs = {graph.tensor_name(main.tensors[tensor]): tensor for tensor in main.inputs}
        self.model.signatureDefs = [
            schema.SignatureDefT(
                signatureKey="serving_default", subgraphIndex=0, inputs=entries(inputs), outputs=entries(outputs)
            )
        ]
        return self.finish(*outputs.values())


def samples(data: bytes, kind: str, *, low: float = -1.0, high: float = 1.0) -> list[dict[str, np.ndarray]]:
    """Uniform float samples for every input of a model."""
    model, random = graph.read(data), np.random.default_rng(SEEDS[kind])
    sizes = {name: graph.shape(graph.main(model).tensors[t]) for name, t in graph.signature_maps(model)[0].items()}
    return [
        {name: random.uniform(low, high, size).astype(np.float32) for name, size in sizes.items()}
        for _ in range(SAMPLES)
    ]


class Direct:
    """A float model in a folder, with its statistics."""

    def __init__(self, data: bytes, folder: Path, **bounds: float) -> None:
        self.data, self.folder, self.bounds = data, folder, bounds
        (folder / "float32.tflite").write_bytes(data)
        feed = feeding.feeder(graph.read(data))
        fed = ((number, feed(number, sample)) for number, sample in enumerate(samples(data, "calibration", **bounds)))
        self.statistics = calibration.calibrate(data, fed, interpreters=1).statistics
        statistics_file.write(folder / "statistics.npz", self.statistics)

    def quantize(self, scheme: str, **options: Any) -> tuple[bytes, dict[str, Any]]:
        """Return the artifact and the step's values."""
        inputs = {"model": self.folder / "float32.tflite"}
        if scheme in ("int8", "int16x8"):
            inputs["statistics"] = self.folder / "statistics.npz"
        if scheme == "int8":
            options.setdefault("ranges", "minmax")
        parameters = {"scheme": scheme, "options": options}
        step = job("quantize", self.folder, inputs, {"model": "model.tflite"}, parameters)
        values = quantize.run(step)
        msgspec.json.encode(values)
        return Path(step.outputs["model"]).read_bytes(), values

    def sqnr(self, data: bytes, kind: str = "calibration") -> dict[str, float]:
        """Return the SQNR of each output in dB; equal outputs have 300."""
        exact = runtime.Binding(runtime.open_interpreter(self.data))
        found = runtime.Binding(runtime.open_interpreter(data))
        signal: dict[str, float] = {}
        noise: dict[str, float] = {}
        for sample in samples(self.data, kind, **self.bounds):
            values, others = exact.run(sample), found.run(sample)
            for port, value in values.items():
                difference = value.astype(np.float64) - others[port]
                signal[port] = signal.get(port, 0.0) + float(np.square(value, dtype=np.float64).sum())
                noise[port] = noise.get(port, 0.0) + float(np.square(difference).sum())
        return {port: 10 * float(np.log10(signal[port] / max(noise[port], signal[port] * 1e-30))) for port in signal}
