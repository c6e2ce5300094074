"""A parser of XLA's compiled programs (HLO text), for `cost`."""

import functools
import math
import re
from dataclasses import dataclass

from vclip_jax.models.flops import meeting_positions

# `ENTRY %main.6_spmd (param.5: bf16[6,256]) -> f32[] {`
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
# `ROOT %add.1 = f32[8,128]{1,0:T(8,128)} add(%a, %b), metadata={...}`
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
# `bf16[6,256]{1,0:T(8,128)(2,1)S(1)}`; the first tile divides the whole array.
_ARRAY = re.compile(r"\b(pred|token|bf16|[fsu]\d+\w*|c\d+)\[([\d,]*)\](?:\{([^}]*)\})?")


@dataclass(frozen=True)
class Array:
    """An array in a shape."""

    dims: tuple[int, ...]
    bytes: float
    padded_bytes: float
    """Bytes with every axis padded to its tile."""
    in_hbm: bool
    """True for main memory, False for a TPU core's own memory."""


@dataclass(frozen=True)
class Instruction:
    """An instruction, which is one line of a computation."""

    name: str
    shape: str
    opcode: str
    arguments: str
    """The text between the parentheses: names of operands, or a constant."""
    operand_shapes: tuple[str, ...]
    attributes: str

    def called(self, attribute: str) -> str:
        """Return the computation that an attribute such as `body` names; "" without it."""
        match = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return match[1] if match else ""


@dataclass(frozen=True)
class Program:
    """A program: computations by name, each with its instructions in the order of the text."""

    entry: str
    computations: dict[str, list[Instruction]]

    def inside(self, instruction: Instruction) -> list[Instruction]:
        """Return the instructions inside a fusion or an asynchronous wrapper."""
        return self.computations.get(instruction.called("calls"), [])


def parse(text: str) -> Program:
    """Parse the text of a program.

    Raises:
        ValueError: the text has no entry computation.
    """
    computations: dict[str, list[Instruction]] = {}
    entry = current = ""
    shapes: dict[str, str] = {}
    for line in text.splitlines():
        if header := _COMPUTATION.match(line):
            current, shapes = header[2], {}
            computations[current] = []
            if header[1]:
                entry = current
        elif line.startswith("}"):
            current = ""
        elif current and (match := _INSTRUCTION.match(line)):
            name, shape, opcode, rest = match.groups()
            arguments, attributes = _split(rest)
            # Operands are defined in lines above.
            operands = re.findall(r"%([\w.\-]+)", arguments)
            operand_shapes = tuple(shapes[operand] for operand in operands if operand in shapes)
            shapes[name] = shape
            computations[current].append(
                Instruction(name, shape, opcode, arguments, operand_shapes, attributes)
            )
    if not entry:
        raise ValueError("this is not the text of a compiled program: it has no ENTRY")
    return Program(entry, computations)


def _split(rest: str) -> tuple[str, str]:
    """Split text into arguments and attributes at the parenthesis that closes the arguments."""
    depth = 1
    for position, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return rest[:position], rest[position + 1 :]
    return rest, ""


@functools.cache
def arrays(shape: str) -> tuple[Array, ...]:
    """Return the arrays of a shape; a tuple has several."""
    return tuple(_array(*groups) for groups in _ARRAY.findall(shape))


def _array(dtype: str, dims: str, layout: str) -> Array:
    lengths = _integers(dims)
    padded = list(lengths)
    if tile := re.search(r"T\(([\d,]+)\)", layout):
        # Tiles belong to the axes that vary fastest; both are matched from the last one.
        minor_to_major = _integers(layout.split(":")[0])
        for axis, length in zip(minor_to_major, reversed(_integers(tile[1])), strict=False):
            padded[axis] = -(-padded[axis] // length) * length
    size = _item_bytes(dtype)
    return Array(lengths, size * math.prod(lengths), size * math.prod(padded), "S(1)" not in layout)


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


def _item_bytes(dtype: str) -> float:
    if dtype == "token":
        return 0
    bits = re.search(r"\d+", dtype)
    return int(bits[0]) / 8 if bits else 1


# --- Operations of matrix products.


def matrix_flops(program: Program, instruction: Instruction) -> float:
    """Count operations in matrix products and convolutions, fused ones included, for one run."""
    opcode, attributes = instruction.opcode, instruction.attributes
    if opcode == "dot":
        return _dot_flops(instruction)
    if "dim_labels=" in attributes and opcode in ("convolution", "custom-call"):
        return _convolution_flops(instruction)
    if opcode == "custom-call" and "gemm" in attributes.partition("custom_call_target=")[2][:40]:
        return _gemm_flops(instruction)
    if opcode != "fusion":
        return 0
    return sum(matrix_flops(program, inner) for inner in program.inside(instruction))


def _dot_flops(instruction: Instruction) -> float:
    left = arrays(instruction.operand_shapes[0])[0].dims
    match = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    contracted = _integers(match[1]) if match else ()
    result = arrays(instruction.shape)[0].dims
    return 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)


def _gemm_flops(instruction: Instruction) -> float:
    """Count cuBLAS's products, whose dimension numbers are in the backend's configuration."""
    left = arrays(instruction.operand_shapes[0])[0].dims
    match = re.search(r'"lhs_contracting_dimensions":\[([\d,"]*)\]', instruction.attributes)
    contracted = _integers(match[1].replace('"', "")) if match else ()
    result = arrays(instruction.shape)[0].dims
    return 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(instruction: Instruction) -> float:
    """Count a convolution as XLA does (`HloCostAnalysis::GetConvolutionFlops`).

    That is 2 operations for each image, input channel, output channel, and pair of positions of
    window and output that meet inside the image.
    """
    attributes = instruction.attributes
    shapes = instruction.operand_shapes
    image, kernel = arrays(shapes[0])[0].dims, arrays(shapes[1])[0].dims
    result = arrays(instruction.shape)[0].dims
    # cuDNN's gradients keep the labels of their convolution.
    if "convBackwardInput" in attributes:
        image, result = result, image
    elif "convBackwardFilter" in attributes:
        kernel, result = result, kernel
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    assert labels is not None  # the caller checked
    image_labels, kernel_labels, result_labels = labels[1], labels[2], labels[3]
    window = _window(attributes)
    positions = 1
    for axis, label in enumerate(sorted(filter(str.isdigit, image_labels))):
        positions *= meeting_positions(
            image[image_labels.index(label)],
            kernel[kernel_labels.index(label)],
            result[result_labels.index(label)],
            *(values[axis] if values else default for values, default in window),
        )
    groups = re.search(r"batch_group_count=(\d+)", attributes)
    batch = image[image_labels.index("b")] // (int(groups[1]) if groups else 1)
    # A kernel's input channels are those of one group.
    channels = kernel[kernel_labels.index("i")] * kernel[kernel_labels.index("o")]
    return 2 * batch * channels * positions


def _window(attributes: str) -> list[tuple[list[int], int]]:
    """Return stride, low padding, dilation of the image and dilation of the kernel.

    Each is (a value for each axis or an empty list, the default).
    """
    match = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(field.split("=") for field in match[1].split()) if match else {}
    pads = [int(pad.split("_")[0]) for pad in fields["pad"].split("x")] if "pad" in fields else []

    def numbers(name: str) -> list[int]:
        return [int(number) for number in fields[name].split("x")] if name in fields else []

    return [
        (numbers("stride"), 1),
        (pads, 0),
        (numbers("lhs_dilate"), 1),
        (numbers("rhs_dilate"), 1),
    ]
