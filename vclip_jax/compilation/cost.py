"""How long a compiled program takes, where its bytes go and what it sends: read from its HLO text.

XLA's own cost analysis counts the body of a loop once and knows nothing of the time of a step. Here
loops count by their trips, and an instruction takes

    max(cycles of the matrix units / clock, bytes between it and main memory / bandwidth).

Cycles are the compiler's estimate and count for matrix products and convolutions only, as those of
other instructions are far above what their bytes allow; on GPUs, whose compiler has no such
estimate, operations over the peak take their place, which is a lower bound. Bytes are those of
operands and results as they lie in memory, padded to the tiles of their layout, without what lies
on the chip. Nothing overlaps, but what is asynchronous is free: a prediction to compare programs
by, never measured. Its figures are those of the method that the goals of `docs/performance.md` are
stated in, including its simplifications:

- In a loop of n trips an array whose first axis is n long counts 1/n: each trip reads a slice.
- Where the text does not tell the trips, they are the bound of the loop's counter: too many where
  it steps by two, as loops do that XLA makes of a product with a gathered matrix ("windowed").
- A buffer that is only reserved (`AllocateBuffer`) counts as written.
- Collectives count as their bytes in main memory, without the network.
- On TPUs, branches and calls are not followed; `Cost.notes` names them.
"""

import functools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vclip_jax.compilation.hlo import Array, Instruction, Program, arrays, matrix_flops, parse
from vclip_jax.devices.chips import Chip

COLLECTIVES = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "send",
)
UNNAMED = "(unnamed)"

# They move nothing: names for parts of other values, or the end of what started before.
_FREE = frozenset(
    (
        "parameter",
        "tuple",
        "get-tuple-element",
        "bitcast",
        "constant",
        "after-all",
        "partition-id",
        "iota",
    )
)


@dataclass(frozen=True)
class Kernel:
    """One instruction of the program, all its executions together."""

    name: str
    opcode: str
    op_name: str
    """Where it comes from: the path of scopes and the primitive, as XLA has it."""
    runs: int
    """How often it is executed."""
    ms: float
    hbm_bytes: float
    cycles: float
    """The compiler's estimate; 0 if it has none."""
    flops: float
    """Of its matrix products and convolutions."""


@dataclass(frozen=True)
class Traffic:
    """All collectives of one kind."""

    count: int
    bytes: int
    """Of their results on one device, without padding."""


@dataclass(frozen=True)
class Cost:
    """A step of one device. Loops count by their trips."""

    predicted_ms: float
    flops: float
    """Of matrix products and convolutions; positions in the padding do not count."""
    hbm_bytes: float
    """Between chip and main memory, with the padding of layouts."""
    estimated_cycles: float
    """The compiler's estimate for all instructions that it has one for."""
    kernels: tuple[Kernel, ...]
    """The longest first."""
    collectives: dict[str, Traffic]
    notes: tuple[str, ...]
    """What could not be counted."""


def cost_of(text: str, chip: Chip) -> Cost:
    """What a program costs on a chip.

    Args:
        text: of the compiled program, from `jax.stages.Compiled.as_text()`.
        chip: what it was compiled for.
    """
    program = parse(text)
    kernels: list[Kernel] = []
    traffic: dict[str, Traffic] = {}
    notes: list[str] = []
    chains: set[tuple[str, ...]] = set()
    for instruction, runs, trips in _executed(program, program.entry, 1, 1, chip, notes):
        kernels.append(_kernel(program, instruction, runs, trips, chip))
        for kind, size in _collectives(program, instruction, chains):
            old = traffic.get(kind, Traffic(0, 0))
            traffic[kind] = Traffic(old.count + runs, old.bytes + runs * size)
    return Cost(
        predicted_ms=math.fsum(kernel.ms for kernel in kernels),
        flops=math.fsum(kernel.flops for kernel in kernels),
        hbm_bytes=math.fsum(kernel.hbm_bytes for kernel in kernels),
        estimated_cycles=math.fsum(kernel.cycles for kernel in kernels),
        kernels=tuple(sorted(kernels, key=lambda kernel: -kernel.ms)),
        collectives=traffic,
        notes=tuple(notes),
    )


def ms_by_scope(cost: Cost, depth: int = 2) -> dict[str, float]:
    """Predicted milliseconds of each scope, cut to its first `depth` names; the longest first."""
    total: dict[str, float] = {}
    for kernel in cost.kernels:
        scope = "/".join(scope_of(kernel.op_name).split("/")[:depth])
        total[scope] = total.get(scope, 0.0) + kernel.ms
    return dict(sorted(total.items(), key=lambda item: -item[1]))


# What JAX adds to the path of `jax.named_scope`s: control flow, calls, einsum's formulas.
_MACHINERY = re.compile(
    r"(p?jit\(.*\)|while|body|cond|closed_call|core_call|checkpoint|remat\d?|rematted_computation"
    r"|shard_map|custom_[jv]\w+|branch_\d+_fun|\w+\.__call__|.*->.*|.*<locals>.*|)$"
)


@functools.cache
def scope_of(op_name: str) -> str:
    """The named scopes in an instruction's `op_name`, forward and backward alike.

    >>> from vclip_jax.compilation.cost import scope_of
    >>> scope_of("jit(step)/transpose(jvp(visual))/layer1/while/body/dot_general")
    'visual/layer1'
    """
    before: list[str] = []
    names: list[str] = []
    # Of operations that the compiler has merged, the first.
    for part in op_name.partition(";")[0].split("/")[:-1]:
        if (inside := _untransformed(part)) != part and names:
            # What is rematerialised has the path from the start once more.
            before, names = _continued(before, names), []
        if not _MACHINERY.match(inside):
            names.append(inside)
    return "/".join(_continued(before, names)) or UNNAMED


def _untransformed(part: str) -> str:
    """A transformation puts itself around the first scope inside: transpose(jvp(visual))."""
    while wrapped := re.fullmatch(r"(?:transpose|jvp|vmap|vjp|linearize)\((.*)\)", part):
        part = wrapped[1]
    return part


def _continued(before: list[str], names: list[str]) -> list[str]:
    return names if names[: len(before)] == before else before + names


def _executed(
    program: Program, computation: str, runs: int, trips: int, chip: Chip, notes: list[str]
) -> Iterator[tuple[Instruction, int, int]]:
    """Each instruction that does something, how often it runs, the trips of its innermost loop."""
    for instruction in program.computations[computation]:
        opcode = instruction.opcode
        if opcode == "while":
            count = _trip_count(program, instruction)
            if count is None:
                notes.append(f"{instruction.name}: unknown number of trips, counted once")
            body = instruction.called("body")
            if "windowed" in body:
                notes.append(f"{instruction.name}: counted {count} times, but may step by two")
            count = count or 1
            yield from _executed(program, body, runs * count, count, chip, notes)
        elif opcode == "call" and chip.platform == "cuda":
            # GPUs launch many kernels at once by calls of command buffers.
            body = instruction.called("to_apply")
            yield from _executed(program, body, runs, trips, chip, notes)
        elif opcode in ("call", "conditional"):
            notes.append(f"{instruction.name}: a {opcode}, not counted")
        elif opcode not in _FREE and not opcode.endswith("-done"):
            yield instruction, runs, trips


def _trip_count(program: Program, loop: Instruction) -> int | None:
    """From the compiler's note, else the largest integer that the condition holds."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known[1])
    found, todo = [], [loop.called("condition")]
    for name in todo:
        for instruction in program.computations.get(name, []):
            if instruction.opcode == "constant" and instruction.arguments.isdecimal():
                found.append(int(instruction.arguments))
            if called := instruction.called("calls"):
                todo.append(called)
    return max(found, default=None)


def _kernel(
    program: Program, instruction: Instruction, runs: int, trips: int, chip: Chip
) -> Kernel:
    attributes = instruction.attributes
    estimate = re.search(r'"estimated_cycles":"?(\d+)', attributes)
    cycles = int(estimate[1]) if estimate else 0
    flops = matrix_flops(program, instruction)
    size, seconds = 0.0, 0.0
    if not instruction.opcode.endswith("-start"):
        size = _hbm_bytes(instruction, trips)
        seconds = size / chip.usable_bandwidth
        if chip.platform == "cuda":
            seconds = max(seconds, flops / chip.peak_flops)
        elif "CLASSIC" in attributes or "convolution_algorithm_config" in attributes:
            seconds = max(seconds, cycles / chip.clock_hz)
    name = re.search(r'op_name="([^"]*)"', attributes)
    return Kernel(
        name=instruction.name,
        opcode=instruction.opcode,
        op_name=name[1] if name else "",
        runs=runs,
        ms=1e3 * runs * seconds,
        hbm_bytes=runs * size,
        cycles=runs * cycles,
        flops=runs * flops,
    )


def _hbm_bytes(instruction: Instruction, trips: int) -> float:
    """Operands, each as often as it is named, and results."""
    shapes = [instruction.shape, *instruction.operand_shapes]
    return sum(
        array.padded_bytes / (trips if trips > 1 and array.dims[:1] == (trips,) else 1)
        for shape in shapes
        for array in arrays(shape)
        if array.in_hbm
    )


def _collectives(
    program: Program, instruction: Instruction, chains: set[tuple[str, ...]]
) -> Iterator[tuple[str, int]]:
    """Kind and bytes of the collectives in an instruction, or fused into it.

    One that goes on beside several fusions stands in each of them; `chains` remembers it.
    """
    opcode = instruction.opcode.removesuffix("-start")
    if opcode in COLLECTIVES:
        chain = tuple(re.findall(r'chain_id="\d+"|channel_id=\d+', instruction.attributes))
        if len(chain) == 2 and chain in chains:
            return
        chains.add(chain)
        results: Sequence[Array] = arrays(instruction.shape)
        if opcode == "send":  # (what is sent, a context, a token)
            results = results[:1]
        elif instruction.opcode in ("all-gather-start", "collective-permute-start"):
            # (operands, results, contexts)
            operands = len(instruction.operand_shapes)
            results = results[operands : 2 * operands]
        yield opcode, int(sum(array.bytes for array in results))
    elif instruction.called("calls").startswith("all-reduce-scatter"):
        # How a TPU's compiler writes one: an all-reduce, and the device's slice of the result.
        yield "reduce-scatter", int(sum(array.bytes for array in arrays(instruction.shape)))
    else:
        for inner in program.inside(instruction):
            if not inner.opcode.endswith("-done"):
                yield from _collectives(program, inner, chains)
