"""TensorFlow's own functions about op versions, out of its library: what the tables in versions.json are held to.

They are no part of its Python API; both take a pointer to a flatbuffer and change it in place.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert import schema_py_generated as schema

from quantbuild.tflite import graph

UPDATE_VERSIONS = "_ZN6tflite15UpdateOpVersionEPh"
UPDATE_RUNTIME = "_ZN6tflite35UpdateMinimumRuntimeVersionForModelEPh"


class Oracle:
    """What TensorFlow itself would write into a model."""

    def __init__(self) -> None:
        spec = importlib.util.find_spec("tensorflow")
        assert spec is not None and spec.submodule_search_locations
        folder = Path(spec.submodule_search_locations[0])
        try:
            ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"), mode=ctypes.RTLD_GLOBAL)
            library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"))
            self._update_versions, self._update_runtime = library[UPDATE_VERSIONS], library[UPDATE_RUNTIME]
        except (OSError, AttributeError) as error:
            pytest.fail(
                f"tests/actions/tensorflow_versioning.py: this TensorFlow does not export its versioning ({error}); "
                "name its libraries and functions as they are called there",
                pytrace=False,
            )

    def versions(self, data: bytes) -> dict[str, int]:
        """Op name → the highest version that TensorFlow finds needed."""
        model = graph.read(self._changed(data, self._update_versions))
        codes = [(code, _name(code)) for code in model.operatorCodes]
        return {name: max(code.version for code, other in codes if other == name) for _, name in codes}

    def runtime(self, op: str, version: int) -> str | None:
        """The oldest runtime of one op's version."""
        model = schema.ModelT(version=3)
        number = int(getattr(schema.BuiltinOperator, op))
        code = schema.OperatorCodeT(builtinCode=number, deprecatedBuiltinCode=min(number, 127), version=version)
        model.operatorCodes, model.buffers = [code], [schema.BufferT()]
        part = schema.SubGraphT(tensors=[], inputs=[], outputs=[])
        part.operators = [schema.OperatorT(opcodeIndex=0, inputs=[], outputs=[])]
        model.subgraphs = [part]
        import numpy as np

        graph.add_metadata(model, "min_runtime_version", np.zeros(16, np.uint8))
        changed = graph.read(self._changed(_packed(model), self._update_runtime))
        found = bytes(changed.buffers[1].data).split(b"\0")[0].decode()
        return found or None

    def _changed(self, data: bytes, function: Any) -> bytes:
        # The whole buffer is written anew with every default in it: what is left out cannot be changed in place.
        packed = _packed(graph.read(data))
        buffer = ctypes.create_string_buffer(packed, len(packed))
        function.restype, function.argtypes = None, [ctypes.c_void_p]
        function(buffer)
        return buffer.raw


def _packed(model: graph.ModelT) -> bytes:
    builder = graph._AlignedBuilder(4096)
    builder.ForceDefaults(True)
    builder.Finish(model.Pack(builder), file_identifier=graph.IDENTIFIER)
    return bytes(builder.Output())


def _name(code: Any) -> str:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return next(name for name, known in vars(schema.BuiltinOperator).items() if known == number)
