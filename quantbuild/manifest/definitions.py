"""What a manifest may say: every key with its type, bounds, default and meaning, defined once.

The loader validates with these definitions, the JSON Schema is generated from them, and a test holds
`docs/manifest.md` to them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field, structs

from quantbuild.lint.rules import Rule

SCHEMA = 1
"""The manifest version this quantbuild reads."""

GIVEN = frozenset({"name", "options"})
"""Fields that are no keys of the table: its name, and the keys that belong to its plug-in."""

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
RESERVED_NAMES = frozenset(
    {
        "report", "datasets", "float32",
        # Files beside what is named: of build/, of dist/ and of a model's folder.
        "last_run.json", "quantbuild.d", "quantbuild.lock.json",
        "calibration_samples.json", "float32.json", "float32.tflite", "statistics.npz",
    }
)  # fmt: skip

METRICS = ("top1", "top5", "agreement", "sqnr", "mae", "mse")
LABEL_METRICS = frozenset({"top1", "top5", "mae", "mse"})
"""Metrics that compare with a label of the evaluation set."""
METRIC_PATTERN = rf"^({'|'.join(METRICS)}|[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*)$"

SENSITIVITY_SAMPLES = 4
"""Behind `sensitivity = true`: where noise comes from differs between samples by far less than between layers."""

Text = Annotated[str, Meta(min_length=1)]
RelativePath = Annotated[
    Text,
    Meta(
        extra_json_schema={"not": {"pattern": r"^([/\\]|[A-Za-z]:)"}},
        extra={"words": "a path relative to the root"},
    ),
]
Ratio = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Dataset(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A set of samples, for calibration, evaluation or selection. Other keys are its loader's."""

    name: str
    loader: Annotated[Text, Meta(description="How it is read: one module in quantbuild/datasets/.")]
    options: Any
    """The loader's own `Options`, defaults filled in."""
    samples: Annotated[int, Meta(ge=1, description="How many samples, after a seeded, stratified shuffle.")] | None = (
        None
    )
    seed: Annotated[int, Meta(ge=0, description="Seed of the shuffle.")] = 0


class Gate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits an artifact must keep. A variant's gate overrides its model's key by key."""

    max_accuracy_loss: (
        Annotated[
            float,
            Meta(
                ge=0,
                description="Largest loss against float32 on the same samples, absolute, in the metric's unit.",
            ),
        ]
        | None
    ) = None
    max_slice_loss: (
        Annotated[
            float,
            Meta(
                ge=0,
                description="Largest loss of any slice of the evaluation set, in the metric's unit; the worst decides.",
            ),
        ]
        | None
    ) = None
    confidence: Annotated[
        float,
        Meta(
            gt=0,
            lt=1,
            description="Of the two-sided interval of the loss: pass if its upper end keeps the limit.",
        ),
    ] = 0.95
    undecided: Annotated[
        Literal["warn", "fail"], Meta(description="What it is when the limit lies inside the interval.")
    ] = "warn"
    min_agreement: (
        Annotated[Fraction, Meta(description="Smallest fraction of samples with float32's own top prediction.")] | None
    ) = None
    min_sqnr_db: (
        Annotated[float, Meta(ge=0, description="Smallest signal-to-quantization-noise ratio of the outputs, dB.")]
        | None
    ) = None
    max_size_ratio: Annotated[Ratio, Meta(description="Largest size as a ratio to the float32 .tflite.")] | None = None
    max_latency_ratio: Annotated[
        dict[str, Ratio], Meta(description="By device: largest median latency as a ratio to float32 there.")
    ] = {}
    max_peak_memory_ratio: Annotated[
        dict[str, Ratio], Meta(description="By device: largest peak memory as a ratio to float32 there.")
    ] = {}
    fully_integer: Annotated[bool, Meta(description="Whether every operation must be integer.")] = False
    allow_ops: (
        Annotated[
            tuple[Text, ...],
            Meta(
                min_length=1, description="The only ops that may be in it, by TFLite's names; a custom op by its own."
            ),
        ]
        | None
    ) = None
    min_runtime: (
        Annotated[
            str,
            Meta(
                pattern=r"^\d{1,4}(\.\d{1,4}){1,2}$",
                description="TensorFlow Lite that it must run on; needing a newer one is a failure.",
                extra={"words": 'a version such as "2.14"'},
            ),
        ]
        | None
    ) = None


class Variant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way to quantize a model. Other keys are its scheme's."""

    name: str
    scheme: Annotated[Text, Meta(description="How it is quantized: one module in quantbuild/schemes/.")]
    options: Any
    """The scheme's own `Options`, defaults filled in."""
    sensitivity: Annotated[
        bool | Annotated[int, Meta(ge=1)],
        Meta(
            description="Whether the report tells where its noise comes from; a number: on how many selection samples."
        ),
    ] = False
    gate: Annotated[
        Gate, Meta(description="Limits of this variant; key by key over the model's.", extra={"words": "a table"})
    ] = Gate()

    @property
    def sensitivity_samples(self) -> int:
        """On how many samples its noise is taken apart at most; 0 where that is not asked for."""
        return SENSITIVITY_SAMPLES if self.sensitivity is True else int(self.sensitivity)


class Model(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model, how it is judged, and the variants made of it."""

    name: str
    source: Annotated[Text, Meta(description="How it is converted: one module in quantbuild/sources/.")]
    path: Annotated[RelativePath, Meta(description="Its file or folder, relative to the workspace root.")]
    signature: Annotated[Text, Meta(description="Which signature is converted.")] | None = None
    input_shapes: Annotated[
        dict[str, Annotated[tuple[Annotated[int, Meta(ge=1)], ...], Meta(min_length=1)]],
        Meta(description="Shapes by input name, batch axis first; needed for a free dimension other than the batch."),
    ] = {}
    inputs: Annotated[
        tuple[Text, ...],
        Meta(description='Files that a `source = "python"` function reads: paths, folders or globs under the root.'),
    ] = ()
    labels: Annotated[RelativePath, Meta(description="Text file with one class name a line.")] | None = None
    calibration: Annotated[Text, Meta(description="Dataset that ranges are taken from.")] | None = None
    evaluation: Annotated[Text, Meta(description="Dataset that gates judge on; nothing is chosen on it.")] | None = None
    selection: (
        Annotated[
            Text,
            Meta(description="Dataset that ranges and mixed precision are chosen on."),
        ]
        | None
    ) = None
    metric: Annotated[
        str,
        Meta(
            pattern=METRIC_PATTERN,
            description="What accuracy is: " + ", ".join(METRICS) + ', or "package.module:function".',
            extra={"words": ", ".join(METRICS) + ' or "package.module:function"', "known": METRICS},
        ),
    ] = "agreement"
    lint_ignore: Annotated[
        tuple[Rule, ...],
        Meta(description="Rules of the lint that say nothing about this model.", extra={"words": "a list of rules"}),
    ] = ()
    devices: Annotated[
        tuple[Text, ...],
        Meta(description="Devices it is measured on; absent: every device.", extra={"default": "every device"}),
    ] = ()
    """Every device's name where the manifest has no such key."""
    ship: (
        Annotated[
            str | Annotated[dict[str, str], Meta(extra_json_schema={"required": ["default"]})],
            Meta(description="The variant that model.tflite is; or a table of variants by purpose, with `default`."),
        ]
        | None
    ) = None
    gate: Annotated[Gate, Meta(description="Limits of every variant.", extra={"words": "a table"})] = Gate()
    variants: Annotated[
        dict[str, Variant], Meta(description="The variants, by name.", extra={"words": "tables by name"})
    ] = field(name="variant", default_factory=dict)

    def shipped(self) -> dict[str, str]:
        """Purpose to variant; `default` is dist/MODEL/model.tflite. Empty where nothing is shipped."""
        if self.ship is None:
            return {}
        return {"default": self.ship} if isinstance(self.ship, str) else self.ship


class Device(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A place where artifacts are measured. Other keys are its runner's."""

    name: str
    runner: Annotated[Text, Meta(description="How it is reached: one module in quantbuild/runners/.")]
    options: Any
    """The runner's own `Options`, defaults filled in."""
    required: Annotated[
        bool, Meta(description="Whether it is a failure that it cannot be reached; else it is not measured.")
    ] = True


class Cache(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where results are kept for other builds. The token of the remote is only ever in the environment."""

    directory: Annotated[Text, Meta(description="Local cache folder, relative to the root or absolute.")] | None = None
    remote: (
        Annotated[
            str,
            Meta(
                pattern="^https?://[^/]+",
                description="Address of the shared HTTP cache.",
                extra={"words": "an address such as http://cache.example:8080"},
            ),
        ]
        | None
    ) = None
    upload: Annotated[bool, Meta(description="Whether results are sent to the remote.")] = False


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for the whole workspace."""

    cache: Annotated[Cache, Meta(description="The local and the shared cache.", extra={"words": "a table"})] = Cache()


class Workspace(Struct, frozen=True, kw_only=True):
    """Every manifest under one root, merged, validated, defaults filled in. Tables are in manifest order."""

    root: Path
    datasets: dict[str, Dataset]
    models: dict[str, Model]
    devices: dict[str, Device]
    cache: Cache
    files: tuple[str, ...]
    """The manifest files, relative to the root, sorted."""


def written_keys(definition: type[Struct]) -> frozenset[str]:
    """Keys that a table of this definition has in TOML, without its plug-in's."""
    return frozenset(key.encode_name for key in structs.fields(definition) if key.name not in GIVEN)
