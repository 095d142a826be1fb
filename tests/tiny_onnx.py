"""Tiny ONNX networks with random weights, as exporters would write them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import tiny

WIDTH = 6
Shape = list[int | str]


def pictures(
    path: Path,
    *,
    shape: Shape | None = None,
    dtype: int = TensorProto.FLOAT,
    classes: int | None = None,
    output: str = "embedding",
    seed: int = 0,
) -> Path:
    """Strided convolution, mean over the places, and with `classes` a dense classifier and a softmax."""
    shape = ["N", 3, 32, 32] if shape is None else shape
    last = shape[3] == 3
    weight = np.random.default_rng(seed).normal(size=(WIDTH, 3, 4, 4)).astype(np.float32)
    nodes = [helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT)]
    inner = "floats"
    if last:
        nodes.append(helper.make_node("Transpose", ["floats"], ["first"], perm=[0, 3, 1, 2]))
        inner = "first"
    nodes += [
        helper.make_node("Conv", [inner, "weight"], ["places"], strides=[4, 4]),
        helper.make_node("Relu", ["places"], ["active"]),
        helper.make_node("GlobalAveragePool", ["active"], ["mean"]),
    ]
    constants = {"weight": weight}
    pooled = output if classes is None else "flat"
    nodes.append(helper.make_node("Flatten", ["mean"], [pooled]))
    if classes is not None:
        constants["dense"] = np.random.default_rng(seed + 1).normal(size=(WIDTH, classes)).astype(np.float32)
        constants["bias"] = np.arange(classes, dtype=np.float32)
        nodes += [
            helper.make_node("MatMul", ["flat", "dense"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["sum"]),
            helper.make_node("Softmax", ["sum"], [output], axis=1),
        ]
    width = WIDTH if classes is None else classes
    return save(path, nodes, {"pixels": (dtype, shape)}, {output: [shape[0], width]}, constants)


def maps(path: Path, output: str = "last_hidden_state", tokens: bool = False) -> Path:
    """(N, WIDTH, 8, 8) places of a convolution, or (N, 65, WIDTH) tokens with a class token in front."""
    constants = {"weight": np.random.default_rng(3).normal(size=(WIDTH, 3, 4, 4)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["pixel_values", "weight"], ["places" if tokens else output], strides=[4, 4])
    ]
    if tokens:
        constants |= {"shape": np.array([1, WIDTH, 64]), "first": np.ones((1, 1, WIDTH), np.float32)}
        nodes += [
            helper.make_node("Reshape", ["places", "shape"], ["row"]),
            helper.make_node("Transpose", ["row"], ["steps"], perm=[0, 2, 1]),
            helper.make_node("Concat", ["first", "steps"], [output], axis=1),
        ]
    shape: Shape = [1, 3, 32, 32] if tokens else ["batch", "channels", "height", "width"]
    return save(path, nodes, {"pixel_values": (TensorProto.FLOAT, shape)}, {output: None}, constants)


def texts(
    folder: Path, *, extra: str | None = None, length: int | str = "T", types: bool = True, **tokenizer: Any
) -> Path:
    """Embedded tokens, summed from the left: a state knows what stands before it. With a tokenizer.json."""
    words = tiny.wordpiece(folder, **tokenizer)
    table = np.random.default_rng(5).normal(size=(words, WIDTH)).astype(np.float32)
    inputs = {
        "input_ids": (TensorProto.INT64, ["N", length]),
        "attention_mask": (TensorProto.INT64, ["N", length]),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("Unsqueeze", ["attention_mask", "minus"], ["column"]),
        helper.make_node("Cast", ["column"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["embedded", "mask"], ["masked"]),
        helper.make_node("CumSum", ["masked", "axis"], ["last_hidden_state"]),
        helper.make_node("ReduceSum", ["last_hidden_state", "one"], ["pooler_output"], keepdims=0),
    ]
    for name in [*(["token_type_ids"] if types else []), *([extra] if extra else [])]:
        inputs[name] = (TensorProto.INT64, ["N", length])
    constants = {"table": table, "minus": np.array([-1]), "one": np.array([1]), "axis": np.array(1)}
    outputs: dict[str, Shape | None] = {"last_hidden_state": None, "pooler_output": None}
    save(folder / "model.onnx", nodes, inputs, outputs, constants)
    return folder


def sounds(path: Path, *, shape: Shape | None = None, output: str = "last_hidden_state") -> Path:
    """A convolution over the samples, one step every 100: (N, steps, WIDTH); (steps, WIDTH) without an N."""
    shape = ["N", "samples"] if shape is None else shape
    constants = {"weight": np.random.default_rng(6).normal(size=(WIDTH, 1, 200)).astype(np.float32)}
    constants["to"] = np.array([1, 1, -1])
    nodes = [
        helper.make_node("Reshape", ["wave", "to"], ["channel"]),
        helper.make_node("Conv", ["channel", "weight"], ["steps"], strides=[100]),
        helper.make_node("Transpose", ["steps"], [output if len(shape) > 1 else "rows"], perm=[0, 2, 1]),
    ]
    if len(shape) == 1:
        constants["bare"] = np.array([-1, WIDTH])
        nodes.append(helper.make_node("Reshape", ["rows", "bare"], [output]))
    return save(path, nodes, {"wave": (TensorProto.FLOAT, shape)}, {output: None}, constants)


def custom(path: Path) -> Path:
    """An operator of a domain that no runtime brings."""
    nodes = [helper.make_node("Magic", ["pixels"], ["embedding"], domain="com.example")]
    model = _model(
        nodes, {"pixels": (TensorProto.FLOAT, ["N", 3, 32, 32])}, {"embedding": ["N", 4]}, {},
        [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)],
    )  # fmt: skip
    path.write_bytes(model.SerializeToString())
    return path


def external(path: Path, location: str = "model.onnx_data") -> Path:
    """The network of `pictures`, its weights in a file beside it."""
    model = onnx.load(pictures(path))
    onnx.save_model(
        model, path, save_as_external_data=True, location=location, size_threshold=0, convert_attribute=False
    )
    return path


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Shape]],
    outputs: Mapping[str, Shape | None],
    constants: Mapping[str, NDArray[Any]],
    opset: int = 17,
    ir: int = 8,
) -> Path:
    model = _model(nodes, inputs, outputs, constants, [helper.make_opsetid("", opset)], ir)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def _model(
    nodes: list[onnx.NodeProto],
    inputs: Mapping[str, tuple[int, Shape]],
    outputs: Mapping[str, Shape | None],
    constants: Mapping[str, NDArray[Any]],
    opsets: list[onnx.OperatorSetIdProto],
    ir: int = 8,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir)
