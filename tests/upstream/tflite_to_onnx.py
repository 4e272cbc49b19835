"""A small int8 TFLite network as ONNX, tensor by tensor: just enough of both formats for FastDepth.

Every activation is rounded to its 8 bits (QuantizeLinear, DequantizeLinear). TFLite rounds its sums a little otherwise:
on eight images four pixels in five were the same, the others up to three steps off. Needs the packages ``tflite`` (the
schema) and ``onnx``.
"""

from pathlib import Path

import numpy as np


def convert(source: Path, target: Path) -> None:
    """Write ``target``: float input [1, h, w, 3] in [0, 1], float output [1, h, w, 1] in the network's own unit."""
    import onnx
    import tflite
    from onnx import TensorProto, helper, numpy_helper

    model = tflite.Model.GetRootAsModel(source.read_bytes(), 0)
    graph = model.Subgraphs(0)
    tensors = [graph.Tensors(index) for index in range(graph.TensorsLength())]
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(value, name))
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def data(index):
        """A stored tensor, dequantised."""
        tensor = tensors[index]
        raw = model.Buffers(tensor.Buffer()).DataAsNumpy().tobytes()
        kind = {tflite.TensorType.INT8: np.int8, tflite.TensorType.INT32: np.int32}[tensor.Type()]
        values = np.frombuffer(raw, kind).reshape(tensor.ShapeAsNumpy() if tensor.ShapeLength() else ())
        quantisation = tensor.Quantization()
        if quantisation is None or not quantisation.ScaleLength():
            return values
        shape = [1] * values.ndim
        shape[quantisation.QuantizedDimension()] = -1
        scale, zero = quantisation.ScaleAsNumpy(), quantisation.ZeroPointAsNumpy()
        return ((values.astype(np.int64) - zero.reshape(shape)) * scale.reshape(shape).astype(np.float64)).astype(
            np.float32
        )

    def rounded(name, index):
        """The activation on the 8-bit grid of tensor ``index``."""
        quantisation = tensors[index].Quantization()
        kind = np.int8 if tensors[index].Type() == tflite.TensorType.INT8 else np.uint8
        scale = constant(f"scale{index}", np.float32(quantisation.Scale(0)).reshape(()))
        zero = constant(f"zero{index}", np.array(quantisation.ZeroPoint(0), kind))
        code = node("QuantizeLinear", [name, scale, zero], f"code{index}")
        return node("DequantizeLinear", [code, scale, zero], f"t{index}")

    def strides_of(values, options):
        """Strides of a convolution that pads by nothing: this network pads by an operator of its own."""
        assert options.Padding() == tflite.Padding.VALID or max(values.shape[1:3]) == 1
        assert options.FusedActivationFunction() in (
            tflite.ActivationFunctionType.NONE,
            tflite.ActivationFunctionType.RELU,
            tflite.ActivationFunctionType.RELU6,
        )
        return [options.StrideH(), options.StrideW()]

    def options_of(operator, kind):
        options, table = kind(), operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return options

    source_tensor = graph.Inputs(0)
    known = {source_tensor: rounded(node("Transpose", ["image"], "nchw", perm=[0, 3, 1, 2]), source_tensor)}
    kinds = {value: name for name, value in vars(tflite.BuiltinOperator).items() if isinstance(value, int)}
    for position in range(graph.OperatorsLength()):
        operator = graph.Operators(position)
        code = model.OperatorCodes(operator.OpcodeIndex())
        kind = kinds[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        inputs, output = operator.InputsAsNumpy().tolist(), operator.Outputs(0)
        raw = f"raw{output}"
        if kind == "QUANTIZE":
            node("Identity", [known[inputs[0]]], raw)
        elif kind == "PAD":
            pads = data(inputs[1])[[0, 3, 1, 2]].T.ravel().astype(np.int64)  # zero is exact on every grid
            node("Pad", [known[inputs[0]], constant(f"pads{output}", pads)], raw)
        elif kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            depthwise = kind != "CONV_2D"
            weights = data(inputs[1]).transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
            table = tflite.DepthwiseConv2DOptions if depthwise else tflite.Conv2DOptions
            options = options_of(operator, table)
            strides = strides_of(data(inputs[1]), options)
            names = [constant(f"w{output}", weights), constant(f"b{output}", data(inputs[2]).astype(np.float32))]
            group = weights.shape[0] if depthwise else 1
            node("Conv", [known[inputs[0]], *names], f"conv{output}", strides=strides, group=group)
            activation = options.FusedActivationFunction()
            if activation == tflite.ActivationFunctionType.NONE:
                node("Identity", [f"conv{output}"], raw)
            else:
                top = np.float32(6 if activation == tflite.ActivationFunctionType.RELU6 else np.inf)
                limits = [constant(f"low{output}", np.float32(0)), constant(f"high{output}", top)]
                node("Clip", [f"conv{output}", *limits], raw)
        elif kind == "ADD":
            node("Add", [known[index] for index in inputs], raw)
        elif kind == "RESIZE_NEAREST_NEIGHBOR":
            scales = constant(f"scales{output}", np.array([1, 1, 2, 2], np.float32))
            node("Resize", [known[inputs[0]], "", scales], raw, mode="nearest",
                 coordinate_transformation_mode="asymmetric", nearest_mode="floor")  # fmt: skip
        else:
            raise NotImplementedError(kind)
        known[output] = rounded(raw, output)
    last = graph.Outputs(0)
    node("Transpose", [known[last]], "depth", perm=[0, 2, 3, 1])
    shapes = [tensors[index].ShapeAsNumpy().tolist() for index in (source_tensor, last)]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(("image", "depth"), shapes)]
    made = helper.make_graph(nodes, "network", ends[:1], ends[1:], constants)
    content = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(content)
    onnx.save(content, target)
