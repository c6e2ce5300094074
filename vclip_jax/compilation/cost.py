"""The predicted time, memory traffic and communication of a compiled program, from its HLO text.

XLA's own cost analysis counts the body of a loop once and does not estimate the time of a step.
Here the body of a loop counts once for each trip, and an instruction takes

    max(cycles of the matrix units / clock, bytes from and to main memory / bandwidth).

Cycles are the compiler's estimate. They count only for matrix products and convolutions, because
those of other instructions are far higher than their bytes allow. The compiler of GPUs has no such
estimate; operations over the peak replace it, which is a lower bound. Bytes are those of operands
and results in memory, padded to the tiles of their layout, without values that stay on the chip.
Instructions do not overlap, but asynchronous ones are free. The result is a prediction for
comparing programs, not a measurement. It follows the method in which the goals of
`docs/performance.md` are stated, including its simplifications:

- In a loop of n trips, an array whose first axis is n long counts 1/n, as each trip reads a slice.
- If the text does not state the trips, they are the bound of the loop's counter. This is too many
  for loops that step by two, which XLA makes for a product with a gathered matrix ("windowed").
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

# Instructions that move nothing, such as names of parts of other values.
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
    """An instruction of the program, all its executions together."""

    name: str
    opcode: str
    op_name: str
    """The origin: the path of scopes and the primitive, as XLA writes it."""
    runs: int
    """The number of executions."""
    ms: float
    hbm_bytes: float
    cycles: float
    """The compiler's estimate; 0 if it has none."""
    flops: float
    """Operations in matrix products and convolutions."""


@dataclass(frozen=True)
class Traffic:
    """The traffic of all collectives of one kind."""

    count: int
    bytes: int
    """Bytes of their results on one device, without padding."""


@dataclass(frozen=True)
class Cost:
    """The cost of a step on one device; the body of a loop counts once for each trip."""

    predicted_ms: float
    flops: float
    """Operations in matrix products and convolutions, without positions in the padding."""
    hbm_bytes: float
    """Bytes between chip and main memory, with the padding of layouts."""
    estimated_cycles: float
    """The sum of the compiler's estimates, for the instructions that have one."""
    kernels: tuple[Kernel, ...]
    """The kernels, the longest first."""
    collectives: dict[str, Traffic]
    notes: tuple[str, ...]
    """Instructions that could not be counted."""


def cost_of(text: str, chip: Chip) -> Cost:
    """Return the cost of a program on a chip.

    Args:
        text: the compiled program, from `jax.stages.Compiled.as_text()`.
        chip: the chip that it was compiled for.
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


def ms_by_scope(cost: Cost) -> dict[str, float]:
    """Return the predicted milliseconds of each scope of at most two names, longest first."""
    total: dict[str, float] = {}
    for kernel in cost.kernels:
        scope = "/".join(scope_of(kernel.op_name).split("/")[:2])
        total[scope] = total.get(scope, 0.0) + kernel.ms
    return dict(sorted(total.items(), key=lambda item: -item[1]))


# Parts that JAX adds to the path of `jax.named_scope`s: control flow, calls, einsum's formulas.
_MACHINERY = re.compile(
    r"(p?jit\(.*\)|while|body|cond|closed_call|core_call|checkpoint|remat\d?|rematted_computation"
    r"|shard_map|custom_[jv]\w+|branch_\d+_fun|\w+\.__call__|.*->.*|.*<locals>.*|)$"
)


@functools.cache
def scope_of(op_name: str) -> str:
    """Return the named scopes in an instruction's `op_name`, equal for forward and backward.

    >>> from vclip_jax.compilation.cost import scope_of
    >>> scope_of("jit(step)/transpose(jvp(visual))/layer1/while/body/dot_general")
    'visual/layer1'
    """
    before: list[str] = []
    names: list[str] = []
    # Take the first of several operations that the compiler has merged.
    for part in op_name.partition(";")[0].split("/")[:-1]:
        if (inside := _untransformed(part)) != part and names:
            # Rematerialised operations repeat the path from the start.
            before, names = _continued(before, names), []
        if not _MACHINERY.match(inside):
            names.append(inside)
    return "/".join(_continued(before, names)) or UNNAMED


def _untransformed(part: str) -> str:
    """Remove the transformations around a scope, as in transpose(jvp(visual))."""
    while wrapped := re.fullmatch(r"(?:transpose|jvp|vmap|vjp|linearize)\((.*)\)", part):
        part = wrapped[1]
    return part


def _continued(before: list[str], names: list[str]) -> list[str]:
    return names if names[: len(before)] == before else before + names


def _executed(
    program: Program, computation: str, runs: int, trips: int, chip: Chip, notes: list[str]
) -> Iterator[tuple[Instruction, int, int]]:
    """Yield each instruction that does something, its runs, and the trips of its innermost loop."""
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
            # On GPUs, calls of command buffers launch many kernels at once.
            body = instruction.called("to_apply")
            yield from _executed(program, body, runs, trips, chip, notes)
        elif opcode in ("call", "conditional"):
            notes.append(f"{instruction.name}: a {opcode}, not counted")
        elif opcode not in _FREE and not opcode.endswith("-done"):
            yield instruction, runs, trips


def _trip_count(program: Program, loop: Instruction) -> int | None:
    """Return the trips in the compiler's note, else the largest integer in the condition."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes):
        return int(known[1])
    bounds, todo = [], [loop.called("condition")]
    for name in todo:
        for instruction in program.computations.get(name, []):
            if instruction.opcode == "constant" and instruction.arguments.isdecimal():
                bounds.append(int(instruction.arguments))
            if called := instruction.called("calls"):
                todo.append(called)
    return max(bounds, default=None)


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
    """Return the bytes of results and of operands, each as often as it is named."""
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
    """Yield kind and bytes of the collectives in an instruction, or fused into it.

    A collective that runs during several fusions appears in each of them; `chains` holds those
    already counted.
    """
    opcode = instruction.opcode.removesuffix("-start")
    if opcode in COLLECTIVES:
        chain = tuple(re.findall(r'chain_id="\d+"|channel_id=\d+', instruction.attributes))
        if len(chain) == 2 and chain in chains:
            return
        chains.add(chain)
        results: Sequence[Array] = arrays(instruction.shape)
        if opcode == "send":  # (data, a context, a token)
            results = results[:1]
        elif instruction.opcode in ("all-gather-start", "collective-permute-start"):
            # (operands, results, contexts)
            operands = len(instruction.operand_shapes)
            results = results[operands : 2 * operands]
        yield opcode, int(sum(array.bytes for array in results))
    elif instruction.called("calls").startswith("all-reduce-scatter"):
        # A TPU's compiler writes it as an all-reduce and the device's slice of the result.
        yield "reduce-scatter", int(sum(array.bytes for array in arrays(instruction.shape)))
    else:
        for inner in program.inside(instruction):
            if not inner.opcode.endswith("-done"):
                yield from _collectives(program, inner, chains)
