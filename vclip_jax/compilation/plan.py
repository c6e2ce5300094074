"""The command `vclip plan`: compile the training step for accelerators that this machine lacks."""

import logging
from pathlib import Path

from ml_collections import ConfigDict

from vclip_jax.compilation import report as compile_report
from vclip_jax.compilation import topologies
from vclip_jax.compilation.compiler import Compilation, CompilerOptions, compile_for
from vclip_jax.compilation.report import Report
from vclip_jax.compilation.topologies import Topology
from vclip_jax.config import checks
from vclip_jax.data.text.tokenizer_json import saved_tokenizer
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.devices import sharding
from vclip_jax.models.bert import BertConfig
from vclip_jax.train.build import flops_of_step, make_training, step_arguments

log = logging.getLogger("vclip_jax")


def compile_step(config: ConfigDict, workdir: Path, name: str) -> None:
    """Compile the training step for devices that this machine need not have.

    Writes `compile.json` and `compile_hlo.txt`, and prints a table.

    Raises:
        ValueError: one line: a device has too little memory, with flags to try.
    """
    topology = topologies.parse(name)
    checks.validate(config, devices=len(topology.devices))
    report, compilation = report_step(
        config, topology, vocabulary_size(config, workdir), cache_dir=workdir / "compile_cache"
    )
    compile_report.write_report(workdir, report, compilation)
    print(compile_report.format_report(report, topology, memory_savers(config, topology)))


def report_step(
    config: ConfigDict,
    topology: Topology,
    vocab_size: int,
    *,
    cache_dir: Path | None = None,
    options: CompilerOptions | None = None,
) -> tuple[Report, Compilation]:
    """Compile the step of a config, and make the content of `compile.json`.

    Args:
        config: a valid config.
        topology: the devices to compile for.
        vocab_size: the number of tokens.
        cache_dir, options: see `compiler.compile_for`.

    Raises:
        ValueError: one line: a device has too little memory, with flags to try.
    """
    mesh = sharding.make_mesh(config.mesh.fsdp, topology.devices)
    training = make_training(config, mesh, vocab_size)
    state, batch = step_arguments(config, mesh, training)
    compilation = compile_for(
        topology,
        topologies.lower(training.step, topology, state, batch),
        options=options,
        cache_dir=cache_dir,
        suggestions=memory_savers(config, topology),
    )
    flops = flops_of_step(config)
    report = compile_report.make_report(
        topology,
        compilation,
        global_batch=config.global_batch_size,
        model_flops=flops,
        placements=sharding.describe(state),
    )
    return report, compilation


def vocabulary_size(config: ConfigDict, workdir: Path) -> int:
    """Return the size of the run's vocabulary, else of the config's file, else Chinese BERT's."""
    if (saved := saved_tokenizer(workdir)) is not None:
        return saved.vocab_size
    if config.tokenizer.vocab != "captions" and not config.tokenizer.vocab.startswith("hub:"):
        return WordPiece.load(config.tokenizer.vocab).vocab_size
    size = BertConfig().vocab_size
    log.info("vocabulary: %s tokens, as config.tokenizer.vocab is not a file", f"{size:,}")
    return size


def memory_savers(config: ConfigDict, topology: Topology) -> list[str]:
    """Return flags that reduce the memory of a step, the cheapest first."""
    kept = {config.remat.image, config.remat.text}
    savers = []
    if "none" in kept:
        savers.append("--config.remat.image=norms --config.remat.text=products")
    elif kept != {"blocks"}:
        savers.append("--config.remat.image=blocks --config.remat.text=blocks")
    each = len(topology.devices) // topology.slices
    if config.mesh.fsdp == 1 and each > 1:
        savers.append(f"--config.mesh.fsdp={min(each, 4)}")
    savers.append(f"--config.micro_batches={2 * config.micro_batches}")
    return savers
