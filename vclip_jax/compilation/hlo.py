"""XLA's text of a compiled program (HLO), as far as counting needs it."""

import functools
import math
import re
from dataclasses import dataclass

from vclip_jax.models.flops import meeting_positions

# `ENTRY %main.6_spmd (param.5: bf16[6,256]) -> f32[] {`
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
# `ROOT %add.1 = f32[8,128]{1,0:T(8,128)} add(%a, %b), metadata={...}`
_INSTRUCTION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)$")
# `bf16[6,256]{1,0:T(8,128)(2,1)S(1)}`; the first tile is that of the whole array.
_ARRAY = re.compile(r"\b(pred|token|bf16|[fsu]\d+\w*|c\d+)\[([\d,]*)\](?:\{([^}]*)\})?")


@dataclass(frozen=True)
class Array:
    """A part of a shape."""

    dims: tuple[int, ...]
    bytes: float
    padded_bytes: float
    """With every axis filled up to its tile."""
    in_hbm: bool
    """In main memory, and not in a TPU core's own."""


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str
    opcode: str
    arguments: str
    """What stands between the parentheses: names of operands, or a constant."""
    operand_shapes: tuple[str, ...]
    attributes: str

    def called(self, attribute: str) -> str:
        """The computation that an attribute such as `body` names; "" without it."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else ""


@dataclass(frozen=True)
class Program:
    """Computations by name, each with its instructions in the order of the text."""

    entry: str
    computations: dict[str, list[Instruction]]

    def inside(self, instruction: Instruction) -> list[Instruction]:
        """What a fusion, or an asynchronous wrapper, consists of."""
        return self.computations.get(instruction.called("calls"), [])


def parse(text: str) -> Program:
    """The program of a text.

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
        elif current and (found := _INSTRUCTION.match(line)):
            name, shape, opcode, rest = found.groups()
            arguments, attributes = _split(rest)
            # Operands stand above what uses them.
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
    """Arguments and attributes: before and after the parenthesis that closes the first."""
    depth = 1
    for position, character in enumerate(rest):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return rest[:position], rest[position + 1 :]
    return rest, ""


@functools.cache
def arrays(shape: str) -> tuple[Array, ...]:
    """The arrays of a shape, which are several for a tuple."""
    return tuple(_array(*found) for found in _ARRAY.findall(shape))


def _array(dtype: str, dims: str, layout: str) -> Array:
    lengths = _integers(dims)
    padded = list(lengths)
    if tile := re.search(r"T\(([\d,]+)\)", layout):
        # Tiles are of the axes that vary fastest, the last of both first.
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
    """Operations of one execution in matrix products and convolutions, fused ones included."""
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
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    contracted = _integers(found[1]) if found else ()
    result = arrays(instruction.shape)[0].dims
    return 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)


def _gemm_flops(instruction: Instruction) -> float:
    """cuBLAS's products, whose dimension numbers stand in the backend's configuration."""
    left = arrays(instruction.operand_shapes[0])[0].dims
    found = re.search(r'"lhs_contracting_dimensions":\[([\d,"]*)\]', instruction.attributes)
    contracted = _integers(found[1].replace('"', "")) if found else ()
    result = arrays(instruction.shape)[0].dims
    return 2 * math.prod(result) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(instruction: Instruction) -> float:
    """2 multiply-adds for each image, input and output channel, and position of window and output
    that meet in the image: what XLA counts (`HloCostAnalysis::GetConvolutionFlops`)."""
    attributes = instruction.attributes
    shapes = instruction.operand_shapes
    image, kernel = arrays(shapes[0])[0].dims, arrays(shapes[1])[0].dims
    result = arrays(instruction.shape)[0].dims
    # cuDNN's gradients keep the labels of the convolution that they belong to.
    if "convBackwardInput" in attributes:
        image, result = result, image
    elif "convBackwardFilter" in attributes:
        kernel, result = result, kernel
    found = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", attributes)
    assert found is not None  # the caller looked
    image_labels, kernel_labels, result_labels = found[1], found[2], found[3]
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
    """(one value an axis, or nothing; the default): stride, low padding, dilation of image and
    of kernel."""
    found = re.search(r"window=\{([^}]*)\}", attributes)
    fields = dict(field.split("=") for field in found[1].split()) if found else {}
    pads = [int(pad.split("_")[0]) for pad in fields["pad"].split("x")] if "pad" in fields else []

    def numbers(name: str) -> list[int]:
        return [int(number) for number in fields[name].split("x")] if name in fields else []

    return [
        (numbers("stride"), 1),
        (pads, 0),
        (numbers("lhs_dilate"), 1),
        (numbers("rhs_dilate"), 1),
    ]
