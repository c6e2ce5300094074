"""The compilation of programs for devices that this machine lacks, with a cache, and with advice
if a program is too large for them."""

import gzip
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from vclip_jax.compilation.topologies import Topology
from vclip_jax.devices.chips import GIB
from vclip_jax.files.writing import write_bytes

CompilerOptions = Mapping[str, bool | int | float | str]

# The compilers and their flags, which the result also depends on.
_PACKAGES = ("jax", "jaxlib", "libtpu", "jax-cuda12-plugin", "jax-cuda12-pjrt")
_FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")


@dataclass(frozen=True)
class Memory:
    """The memory of one device in bytes, as XLA lays it out."""

    argument_bytes: int
    output_bytes: int
    alias_bytes: int
    """Results that reuse the memory of donated arguments."""
    temp_bytes: int
    peak_bytes: int


@dataclass(frozen=True)
class Compilation:
    """A compiled program."""

    text: str
    """The HLO, see `vclip_jax.compilation.cost`."""
    memory: Memory
    seconds: float
    """The time of the compilation, also for a program from the cache."""


def compile_for(
    topology: Topology,
    lowered: jax.stages.Lowered,
    *,
    options: CompilerOptions | None = None,
    cache_dir: Path | None = None,
    suggestions: Sequence[str] = (),
) -> Compilation:
    """Compile a program, or read it from the cache.

    JAX's own cache of compiled programs does not help: JAX cannot read them without a device.

    Args:
        topology: the devices that the program was lowered for.
        lowered: the program, from `vclip_jax.compilation.topologies.lower`.
        options: XLA's compiler options. `{"exec_time_optimization_effort": -1.0}` compiles several
            times faster; memory and collectives stay the same, but times become meaningless.
        cache_dir: the folder of the cache; None for no cache.
        suggestions: flags to try if the program does not fit, for example `fsdp=4`.

    Raises:
        ValueError: one line: the program needs more memory than a device has.
    """
    if cache_dir is None:
        return _compile(topology, lowered, options, suggestions)
    path = cache_dir / f"{program_key(topology, lowered, options)}.json.gz"
    if path.exists():
        kept = json.loads(gzip.decompress(path.read_bytes()))
        return Compilation(kept["text"], Memory(**kept["memory"]), kept["seconds"])
    compilation = _compile(topology, lowered, options, suggestions)
    cache_dir.mkdir(parents=True, exist_ok=True)
    write_bytes(path, gzip.compress(json.dumps(asdict(compilation)).encode(), 3))
    return compilation


def _compile(
    topology: Topology,
    lowered: jax.stages.Lowered,
    options: CompilerOptions | None,
    suggestions: Sequence[str],
) -> Compilation:
    # JAX accepts numbers too, although its types do not say so.
    given: dict[str, Any] = dict(options or {})
    start = time.perf_counter()
    try:
        compiled = lowered.compile(compiler_options=given)
    except jax.errors.JaxRuntimeError as error:
        if needed := needed_bytes(str(error)):
            raise ValueError(too_large(topology, needed, suggestions)) from None
        raise
    seconds = time.perf_counter() - start
    size = compiled.memory_analysis()
    text = compiled.as_text()
    assert size is not None  # both platforms give it
    assert text is not None
    memory = Memory(
        argument_bytes=size.argument_size_in_bytes,
        output_bytes=size.output_size_in_bytes,
        alias_bytes=size.alias_size_in_bytes,
        temp_bytes=size.temp_size_in_bytes,
        peak_bytes=size.peak_memory_in_bytes,
    )
    return Compilation(text, memory, seconds)


def program_key(
    topology: Topology, lowered: jax.stages.Lowered, options: CompilerOptions | None = None
) -> str:
    """Return the cache's key of a program, with its named scopes, and of the compilers.

    The lines of the source that an operation comes from make no difference.
    """
    digest = hashlib.sha256()
    digest.update(lowered.as_text().encode())
    # `loc("jit(step)/visual/add"(#loc3))` is a name, `loc("model.py":3:4)` a place in a file.
    names = re.findall(r'loc\("([^"]*)"\(', lowered.as_text(debug_info=True))
    versions = {name: _version(name) for name in _PACKAGES}
    flags = {name: os.environ.get(name, "") for name in _FLAGS}
    rest = [names, topology.name, dict(options or {}), versions, flags]
    digest.update(json.dumps(rest, sort_keys=True).encode())
    return digest.hexdigest()[:32]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def needed_bytes(message: str) -> int | None:
    """Return the bytes that a program needs on a device, from the compiler's error.

    The error is "... required for HLO temporaries (20.00G) exceeds available HBM (15.75G)", where
    temporaries mean the whole program, or "Used 21.95G of 15.48G hbm" in older versions. Other
    errors give None.
    """
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    match = re.search(
        r"\(([\d.]+)([KMGT]?)\) exceeds available HBM|Used ([\d.]+)([KMGT]?) of \S+ hbm", message
    )
    if match is None:
        return None
    number, unit = match[1] or match[3], match[2] or match[4] or ""
    return int(float(number) * _UNITS[unit])


def too_large(topology: Topology, needed: int, suggestions: Sequence[str]) -> str:
    """Return one line with the memory that is needed, the memory of a device, and flags to try."""
    advice = f": try {_or(suggestions)}" if suggestions else ""
    available = topology.chip.hbm_bytes / GIB
    return f"a device of {topology.name} needs {needed / GIB:.1f} of {available:.2f} GiB{advice}"


def _or(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
