"""ONNX files: from programs of torch.export to `see.onnx`, `step.onnx` and one file of weights.

float16: weights are stored in half precision and used in float32. int8: matrix products take int8
weights (a scale for each output) and 8-bit activations (a scale for each product, at run time);
embeddings and the patch convolution are stored in half precision.
"""

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch.export import ExportedProgram

from git_model.export.folder import WEIGHTS, ExportDtype
from git_model.export.graphs import Signature
from git_model.export.shared_weights import SharedWeights

MIN_SHARED = 1024  # bytes: smaller tensors stay inside the graph's own file
MIN_HALVED = 512  # values: biases and norms stay as they are
MIN_OPSET = 20  # the first with GELU as one operator


def write_onnx(
    programs: Iterable[tuple[str, ExportedProgram]],
    signatures: Mapping[str, Signature],
    folder: Path,
) -> None:
    """Write each program as NAME.onnx in float32; their weights lie in one file.

    Args:
        signatures: of each program, by its name.
    """
    import onnx_ir as ir

    with SharedWeights(folder / WEIGHTS) as weights:
        for name, program in programs:
            model = _as_onnx(program, signatures[name])
            _share(model, weights)
            ir.save(model, folder / f"{name}.onnx")


def reduce_onnx(source: Path, folder: Path, dtype: ExportDtype) -> None:
    """The graphs of one folder in float16 or int8, written to another.

    Args:
        source: what `write_onnx` wrote.
    """
    import onnx_ir as ir

    with SharedWeights(folder / WEIGHTS) as weights:
        for path in sorted(source.glob("*.onnx")):
            model = _quantized(path) if dtype == "int8" else ir.load(path)
            _halve(model)
            _share(model, weights)
            ir.save(model, folder / path.name)


def _as_onnx(program: ExportedProgram, signature: Signature) -> Any:
    """A program as a model of `onnx_ir`, its free sizes under the names of the signature."""
    import torch
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        converted = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=MIN_OPSET,
            input_names=list(signature.inputs),
            output_names=list(signature.outputs),
            verbose=False,
        )
    model = converted.model  # type: ignore[union-attr]
    _rename_sizes(model, signature)
    ClearMetadataAndDocStringPass()(model)  # they hold the paths of this machine's source files
    return model


def _rename_sizes(model: Any, signature: Signature) -> None:
    """Give the free sizes the names of the signature, in place of torch's s27."""
    import onnx_ir as ir

    names: dict[str, str] = {}
    for value in model.graph.inputs:
        for name, size in zip(signature.inputs[value.name], value.shape, strict=True):
            if isinstance(size, ir.SymbolicDim) and re.fullmatch(r"\w+", str(size.value)):
                names[str(size.value)] = str(name)
    nodes = (value for node in model.graph for value in node.outputs)
    for value in {*model.graph.inputs, *model.graph.outputs, *nodes}:
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, names) for dim in value.shape])


def _renamed(dim: Any, names: Mapping[str, str]) -> int | str | None:
    if isinstance(dim, int):
        return dim
    text = re.sub(r"s\d+", lambda match: names.get(match[0], match[0]), str(dim.value))
    return None if dim.value is None else text


def _quantized(path: Path) -> Any:
    """The model in a file with int8 matrix products, by ONNX Runtime's own tool."""
    import onnx_ir as ir
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with TemporaryDirectory(dir=path.parent) as folder, _silent_logging():
        result = Path(folder) / path.name
        quantize_dynamic(
            path,
            result,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            reduce_range=True,  # 7 bits: processors without VNNI add pairs in 16 bits
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True},
        )
        model = ir.load(result)
        for value in model.graph.initializers.values():  # read now: the file goes away
            value.const_value = ir.tensor(np.array(value.const_value.numpy()), name=value.name)
        return model


@contextlib.contextmanager
def _silent_logging() -> Iterator[None]:
    """The tool advises preprocessing on the root logger; torch has done that already."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)


def _halve(model: Any) -> None:
    """Store float32 tensors in half precision, and convert them where they are used. An embedding
    is converted after the look-up, so that its table stays small in memory, too."""
    import onnx_ir as ir

    graph = model.graph
    for value in list(graph.initializers.values()):
        tensor = value.const_value
        if tensor.dtype != ir.DataType.FLOAT or tensor.size < MIN_HALVED:
            continue
        name = value.name
        graph.initializers.pop(name)
        half = ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT16), shape=value.shape)
        half.const_value = ir.tensor(tensor.numpy().astype(np.float16), name=name)
        uses = list(value.uses())
        for node, index in uses:
            if node.op_type == "Gather" and index == 0:
                _convert_after(graph, node, half)
        if any(node.op_type != "Gather" or index != 0 for node, index in uses):
            cast = ir.node("Cast", [half], {"to": ir.DataType.FLOAT})
            _as_float(cast.outputs[0], f"{name}.as_float32", value.shape)
            value.replace_all_uses_with(cast.outputs[0])
            graph.insert_before(graph[0], cast)
        graph.register_initializer(half)


def _convert_after(graph: Any, gather: Any, half: Any) -> None:
    """Let this node look up in the halved table, and convert the rows."""
    import onnx_ir as ir

    rows = gather.outputs[0]
    cast = ir.node("Cast", [rows], {"to": ir.DataType.FLOAT})
    _as_float(cast.outputs[0], f"{rows.name}.as_float32", rows.shape)
    rows.replace_all_uses_with(cast.outputs[0])
    cast.replace_input_with(0, rows)
    rows.type = ir.TensorType(ir.DataType.FLOAT16)
    gather.replace_input_with(0, half)
    graph.insert_after(gather, cast)


def _as_float(value: Any, name: str, shape: Any) -> None:
    import onnx_ir as ir

    value.name, value.shape, value.type = name, shape, ir.TensorType(ir.DataType.FLOAT)


def _share(model: Any, weights: SharedWeights) -> None:
    """Move the large tensors of a model into the file of all weights."""
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor.nbytes < MIN_SHARED:
            continue
        values = tensor.tobytes()
        value.const_value = ir.ExternalTensor(
            WEIGHTS,
            weights.add(values),
            len(values),
            tensor.dtype,
            shape=ir.Shape(tensor.shape),
            name=value.name,
            base_dir=weights.folder,
        )
