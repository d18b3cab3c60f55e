"""What report.json holds. Its JSON Schema, and the check of every document before it is written, come from here."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SCHEMA = 1

Verdict = Literal["pass", "fail", "undecided", "not_measured"]
Status = Literal["measured", "not_measured", "failed", "unstable"]


class FloatOp(msgspec.Struct, kw_only=True):
    """An operation that computes in float; those that only convert the model's own inputs and outputs are left out."""

    op: str
    name: str
    subgraph: str | None = None
    """The body of a loop or a branch; absent in the main graph."""


class OpVersion(msgspec.Struct, kw_only=True):
    """An op with the version it needs and the oldest TensorFlow Lite that has it; null where that is not known."""

    op: str
    version: int | None
    count: int
    runtime: str | None


class Conversion(msgspec.Struct, kw_only=True, rename={"source": "from", "target": "to"}):
    """A QUANTIZE or DEQUANTIZE inside the graph, named by its result, with the types it goes between."""

    op: str
    name: str
    source: str
    target: str


class Conversions(msgspec.Struct, kw_only=True):
    """Conversions inside the graph; `pairs` is how many stretches of float ops lie between two of them."""

    pairs: int
    ops: list[Conversion]


class CustomOp(msgspec.Struct, kw_only=True):
    """An op that no runtime has by itself; a `flex` one is TensorFlow's."""

    op: str
    count: int
    flex: bool


class StoredTensor(msgspec.Struct, kw_only=True):
    """A constant in the file, with its share of the file's bytes."""

    name: str
    dtype: str
    bytes: int
    share: float


class Sizes(msgspec.Struct, kw_only=True):
    """Where the file's bytes are: constants, all else, and the largest constants."""

    constant_bytes: int
    other_bytes: int
    largest: list[StoredTensor]


class KeptNode(FloatOp, kw_only=True):
    """An operation kept out of int8 as the manifest asks; `layer` is what its model's author calls it."""

    layer: str


class Artifact(msgspec.Struct, kw_only=True):
    """A variant's .tflite file. `path` is relative to the workspace root, `size_ratio` to the float32 file."""

    path: str
    sha256: str
    size_bytes: int
    size_ratio: float | None
    float_ops: list[FloatOp] | None
    ops: dict[str, int] | None
    kept_float: list[KeptNode]
    kept_int16: list[KeptNode]
    inputs: list[dict[str, Any]] | None
    outputs: list[dict[str, Any]] | None
    minimal_runtime: str | None
    """The oldest TensorFlow Lite that has all its ops; null where `runtime_unknown` names the reason."""
    runtime_unknown: list[str] | None
    noted_runtime: str | None
    """What the file says of itself."""
    op_versions: list[OpVersion] | None
    conversions: Conversions | None
    custom_ops: list[CustomOp] | None
    sizes: Sizes | None
    constant_outputs: list[str] | None
    """Outputs that the probe's two made-up inputs do not move."""


class OutputFigures(msgspec.Struct, kw_only=True):
    """What one output did over the evaluation samples; shares are of all its values, null where it is float."""

    name: str
    elements: int
    constant_elements: int
    stuck_elements: int | None
    """Elements that never changed here and do in float32."""
    at_low: float | None
    at_high: float | None
    clipped: float | None
    """Share of values that lie more than a step beyond the range in float32."""


class Slice(msgspec.Struct, kw_only=True):
    """Figures of one slice of the evaluation set. The intervals of all slices hold together, at the confidence set."""

    name: str
    n: int
    value: float
    baseline: float
    loss: float
    loss_low: float | None
    loss_high: float | None
    verdict: Verdict


class Accuracy(msgspec.Struct, kw_only=True):
    """Figures in the metric's unit on `n` samples; loss is how much worse than float32 on the same ones."""

    value: float | None
    baseline: float | None
    loss: float | None
    loss_low: float | None
    loss_high: float | None
    n: int
    agreement: float | None
    sqnr_db: float | None
    verdict: Verdict
    slices: list[Slice]
    outputs: list[OutputFigures] | None = None


class Search(msgspec.Struct, kw_only=True):
    """What a scheme tried before it chose; what follows `confirmations` is of a search for a limit alone."""

    trials: list[dict[str, Any]]
    chosen: Any
    confirmations: Any
    islands: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    limit: float | None = None
    objective: Literal["size", "latency"] | None = None
    device: str | None = None
    verdict: Verdict | None = None
    best: dict[str, Any] | None = None
    trials_left: int | None = None
    provisional: str | None = None


class OutputNoise(msgspec.Struct, kw_only=True):
    """An output's signal-to-noise ratio on the selection samples; null where it is float32's.

    `before` is the op at the end that it is measured before, SOFTMAX or LOGISTIC, whose saturation would hide noise.
    """

    name: str
    before: str | None
    sqnr_db: float | None


class TensorNoise(msgspec.Struct, kw_only=True):
    """The noise that has gathered in a tensor. `name` is float32's, `tensor` the artifact's, `step` null for floats."""

    name: str
    tensor: str
    dtype: str
    step: float | None
    rms: float
    error_rms: float
    sqnr_db: float | None


class OpNoise(msgspec.Struct, kw_only=True):
    """What one op of the artifact (its place there is `index`) adds itself, and what that alone does to the outputs.

    `own_rms` and `own_sqnr_db` are of its result; `noise` is relative to the outputs' power, `share` of what all ops
    cause. All are null for an op that computes on floats; decibels also where nothing is added.
    """

    op: str
    name: str
    layer: str
    index: int | None
    dtype: str
    own_rms: float | None
    own_sqnr_db: float | None
    noise: float | None
    share: float | None


class UnmatchedOp(msgspec.Struct, kw_only=True):
    """An op of the artifact that stands for no one op of float32; what it adds is counted with the next that does."""

    op: str
    name: str


class NodeData(msgspec.Struct, kw_only=True):
    """Files for Model Explorer, relative to the workspace root: each tensor's SQNR, each op's share."""

    sqnr_db: str
    noise: str


class Sensitivity(msgspec.Struct, kw_only=True):
    """Where a variant's noise comes from. `noise` is of its outputs, `noise_sum` what the ops cause one by one.

    Both are powers relative to float32's, at the output where they are most. `tensors` begin with the lowest SQNR,
    `ops` with the highest noise.
    """

    samples: int
    noise: float
    noise_sum: float
    outputs: list[OutputNoise]
    tensors: list[TensorNoise]
    ops: list[OpNoise]
    unmatched_tensors: list[str]
    unmatched_ops: list[UnmatchedOp]
    node_data: NodeData


class Latency(msgspec.Struct, kw_only=True):
    """Of one inference, in milliseconds; null where a tool does not give it."""

    min: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    n: int | None


class Device(msgspec.Struct, kw_only=True):
    """A variant on one device; ratios are to float32 on the same one."""

    status: Status
    latency_ms: Latency | None
    latency_ratio: float | None
    peak_memory_bytes: float | None
    memory_ratio: float | None
    runtime: dict[str, Any]
    provenance: dict[str, Any]
    message: str | None


class Gate(msgspec.Struct, kw_only=True):
    """One limit and what was found against it."""

    name: str
    limit: float | bool | str | list[str]
    value: float | bool | str | list[str] | None
    verdict: Verdict


class Variant(msgspec.Struct, kw_only=True):
    """One row of the report. `verdict` sums up its gates; `error` is why it could not be made or measured."""

    name: str
    scheme: str
    options: dict[str, Any]
    artifact: Artifact | None
    accuracy: Accuracy | None
    search: Search | None
    sensitivity: Sensitivity | None
    """Null unless the manifest asks for it."""
    devices: dict[str, Device]
    gates: list[Gate]
    verdict: Verdict
    error: str | None


class ReportedDevice(msgspec.Struct, kw_only=True):
    """A device of the manifest."""

    name: str
    runner: str
    required: bool


class Calibration(msgspec.Struct, kw_only=True):
    """How a model's ranges were measured; `route_reason` says why not inside the graph."""

    samples: int
    held_back: int
    tensors: int
    route: str
    route_reason: str | None


class Finding(msgspec.Struct, kw_only=True):
    """What the lint found about samples, tensors or outputs; an error fails a step or the gate ``lint``."""

    rule: str
    severity: Literal["info", "warning", "error"]
    subject: str
    message: str
    figures: dict[str, Any]


class Model(msgspec.Struct, kw_only=True):
    """A model with float32 as its first variant; `ship` has the variants that ship by purpose; `calibration` is null
    where it has none, or it failed.
    """

    name: str
    metric: str
    source: str
    ship: dict[str, str]
    devices: list[ReportedDevice]
    calibration: Calibration | None
    lint: list[Finding]
    variants: list[Variant]


class ReportedStep(msgspec.Struct, kw_only=True):
    """What became of a step, and why it last ran."""

    id: str
    outcome: Literal["done", "failed", "blocked", "not_measured"]
    reason: str | None
    message: str | None


class Report(msgspec.Struct, kw_only=True):
    """report.json. Keys may be added within one schema number, none renamed or removed."""

    schema: Literal[1]
    models: list[Model]
    failed: list[Any]
    steps: list[ReportedStep]
    tools: dict[str, str]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of report.json."""
    generated = msgspec.json.schema(Report)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "quantbuild report", **generated}


def validate(document: dict[str, Any]) -> None:
    """Raise msgspec.ValidationError, which names the place, unless `document` is a report."""
    msgspec.convert(document, Report)
