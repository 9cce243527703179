"""OpenVINO files: from ONNX graphs to `see.xml`, `step.xml` and one file of weights.

float16: weights are stored in half precision. int8: the weights of matrix products are stored in
int8 with a scale for each output; OpenVINO decides by the processor whether to quantize the
activations, too.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import numpy as np

from git_model.export.folder import WEIGHTS, ExportDtype
from git_model.export.packages import openvino_core
from git_model.export.shared_weights import SharedWeights


def write_openvino(source: Path, folder: Path, dtype: ExportDtype) -> None:
    """Write each NAME.onnx of one folder as NAME.xml into another; their weights lie in one file.

    Args:
        source: what `write_onnx` wrote in float32.
    """
    import openvino

    with SharedWeights(folder / WEIGHTS) as weights, TemporaryDirectory(dir=folder.parent) as apart:
        for path in sorted(source.glob("*.onnx")):
            model = openvino_core().read_model(path)
            if dtype == "int8":
                _quantize_weights(model)
            xml = Path(apart) / f"{path.stem}.xml"
            openvino.save_model(model, xml, compress_to_fp16=dtype != "float32")
            _share(xml, weights, folder / xml.name)


def _quantize_weights(model: Any) -> None:
    """Store the constant matrix of each product in int8, with a scale for each output."""
    from openvino import opset13 as operators

    for product in model.get_ordered_ops():
        if product.get_type_name() != "MatMul":
            continue
        constant = product.input_value(1).get_node()
        if constant.get_type_name() != "Constant" or len(constant.shape) != 2:
            continue
        outputs = 0 if product.get_attributes()["transpose_b"] else 1
        values, scale = quantized(constant.data, outputs)
        weight = operators.convert(operators.constant(values), "f32")
        scaled = operators.multiply(weight, operators.constant(scale))
        product.input(1).replace_source_output(scaled.output(0))


def quantized(weight: np.ndarray, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as int8 values and float32 scales, one for each row (`outputs` 0) or column (1)."""
    largest = np.abs(weight).max(axis=1 - outputs, keepdims=True)
    scale = np.maximum(largest, np.finfo(np.float32).tiny) / 127
    return np.rint(weight / scale).astype(np.int8), scale.astype(np.float32)


def _share(xml: Path, weights: SharedWeights, target: Path) -> None:
    """Move the constants of a graph into the file of all weights, and write the graph."""
    tree = ElementTree.parse(xml)  # noqa: S314  (OpenVINO has just written it)
    values = memoryview(xml.with_suffix(".bin").read_bytes())
    for layer in tree.iter("layer"):
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None and data.get("size") != "0":
            first, size = int(data.get("offset", 0)), int(data.get("size", 0))
            data.set("offset", str(weights.add(values[first : first + size])))
    tree.write(target)
