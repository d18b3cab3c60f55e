"""Model source: a float32 .tflite made elsewhere, checked, its free dimensions pinned, its signature named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantbuild.errors import StepError
from quantbuild.step import Job

if TYPE_CHECKING:
    from quantbuild.tflite.graph import ModelT

TOOLS: tuple[str, ...] = ("ai-edge-litert", "flatbuffers", "numpy")
WORKER = "litert"

SIGNATURE = "serving_default"


def files(path: str, inputs: Sequence[str]) -> list[str]:
    """Return the model's path."""
    del inputs
    return [path]


def convert(job: Job) -> bytes:
    """Return the .tflite in ``job.inputs["model"]`` with static shapes and one signature.

    The file's own bytes where nothing had to change. Raises StepError when it is quantized already.
    """
    from quantbuild.tflite import describe, graph

    path = Path(job.inputs["model"])
    if not path.is_file():
        raise StepError('it is no file; a SavedModel folder has source = "saved_model"')
    data = path.read_bytes()
    model = describe.read(data)
    _check_float(model)
    changed = _name_signature(model, job.parameters.get("signature"))
    static = _static_shapes(model, job.parameters.get("input_shapes") or {})
    if static:
        _resize(model, graph.write(model), static)
    return graph.write(model) if changed or static else data


def _check_float(model: ModelT) -> None:
    from quantbuild.tflite import graph

    for tensor in (tensor for part in model.subgraphs for tensor in part.tensors):
        kind = graph.type_name(tensor)
        scaled = (
            tensor.quantization is not None and tensor.quantization.scale is not None and len(tensor.quantization.scale)
        )
        if (kind not in ("FLOAT32", "INT32") and scaled) or kind in ("FLOAT16", "BFLOAT16"):
            raise StepError(
                f'it is quantized already (tensor "{graph.tensor_name(tensor)}" is {kind}); give the float32 .tflite'
            )


def _name_signature(model: ModelT, wanted: str | None) -> bool:
    """Leave one signature, "serving_default" on the main subgraph; return whether that changed the model."""
    from ai_edge_litert import schema_py_generated as schema

    from quantbuild.tflite import graph

    known = graph.signature_keys(model)
    if not known and wanted in (None, SIGNATURE):
        inputs, outputs = graph.signature_maps(model)
        model.signatureDefs = [
            schema.SignatureDefT(inputs=_entries(inputs), outputs=_entries(outputs), signatureKey=SIGNATURE)
        ]
        return True
    key = wanted or (SIGNATURE if SIGNATURE in known else known[0] if len(known) == 1 else None)
    if key not in known:
        raise StepError(f'no signature "{key or SIGNATURE}"; set signature to one of {", ".join(known) or "none"}')
    chosen = model.signatureDefs[known.index(key)]
    if chosen.subgraphIndex != 0:
        raise StepError(f'signature "{key}" is not on the main subgraph; export it alone')
    model.signatureDefs, chosen.signatureKey = [chosen], SIGNATURE
    return known != [SIGNATURE]


def _entries(tensors: Mapping[str, int]) -> list[Any]:
    from ai_edge_litert import schema_py_generated as schema

    return [schema.TensorMapT(name=name, tensorIndex=index) for name, index in tensors.items()]


def _static_shapes(model: ModelT, pinned: Mapping[str, list[int]]) -> dict[int, tuple[int, ...]]:
    """Return tensor index → static shape of every input; empty where the model is static already."""
    from quantbuild.tflite import graph, shapes

    tensors = graph.main(model).tensors
    inputs, _ = graph.signature_maps(model)
    declared = {name: _declared(tensors[index]) for name, index in inputs.items()}
    static = shapes.pin(declared, pinned)
    free = any(size is None for shape in map(_declared, tensors) for size in shape)
    return {inputs[name]: shape for name, shape in static.items()} if free else {}


def _declared(tensor: Any) -> tuple[int | None, ...]:
    from quantbuild.tflite import graph

    signature = tensor.shapeSignature
    if signature is None or not len(signature):
        return graph.shape(tensor)
    return tuple(None if size < 0 else int(size) for size in signature)


def _resize(model: ModelT, data: bytes, static: Mapping[int, tuple[int, ...]]) -> None:
    """Write the shapes that LiteRT computes for `static` inputs into every tensor of the main subgraph."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    from quantbuild.tflite import graph

    try:
        # Without delegates a tensor's index is the file's, and all of them are kept.
        interpreter = Interpreter(
            model_content=data,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            experimental_preserve_all_tensors=True,
        )
        for index, shape in static.items():
            interpreter.resize_tensor_input(index, list(shape), strict=True)
        interpreter.allocate_tensors()
        interpreter.invoke()  # shapes that the model computes are known only then; inputs are zeros
    except (RuntimeError, ValueError) as error:
        wanted = " and ".join(str(list(shape)) for shape in static.values())
        message = " ".join(str(error).split())
        raise StepError(
            f"it does not run at the input shape {wanted}: {message}; export it with static shapes"
        ) from error
    # By number: `get_tensor_details` leaves out the tensors that nothing allocates.
    found = {detail["index"]: detail["shape"] for detail in interpreter.get_tensor_details()}
    for index, tensor in enumerate(graph.main(model).tensors):
        if index in found and tensor.shape is not None:
            tensor.shape = [int(size) for size in found[index]]
        tensor.shapeSignature = None
