"""`--mode compile`: the training step for accelerators that nobody has at hand."""

import logging
from pathlib import Path

from ml_collections import ConfigDict

from vclip_jax import compile_report, sharding, topologies
from vclip_jax import config as config_lib
from vclip_jax.compilation import compile_for
from vclip_jax.data.json_tokenizer import in_folder
from vclip_jax.data.tokenizer import Tokenizer
from vclip_jax.flops import step_flops
from vclip_jax.models.bert import BertConfig
from vclip_jax.training import make_training, step_arguments

log = logging.getLogger("vclip_jax")


def compile_step(config: ConfigDict, workdir: Path, name: str) -> None:
    """Compile the very step that training runs, for devices that need not be there.

    Leaves `compile.json` and `compile_hlo.txt`, and prints a table. Raises ValueError if a device
    has too little memory, with what to try.
    """
    topology = topologies.parse(name)
    config_lib.validate(config, devices=len(topology.devices))
    mesh = sharding.make_mesh(config.mesh.fsdp, topology.devices)
    training = make_training(config, mesh, vocabulary_size(config, workdir))
    arguments = step_arguments(config, mesh, training)
    suggestions = memory_savers(config, topology)
    compilation = compile_for(
        topology, topologies.lower(training.step, topology, *arguments),
        cache_dir=workdir / "compile_cache", suggestions=suggestions,
    )  # fmt: skip
    flops = step_flops(
        config.model, image_size=config.data.image_size,
        context_length=config.tokenizer.context_length, global_batch=config.global_batch_size,
    )  # fmt: skip
    report = compile_report.make_report(
        topology, compilation, global_batch=config.global_batch_size, model_flops=flops,
        placements=sharding.describe(arguments[0]),
    )  # fmt: skip
    compile_report.write_report(workdir, report, compilation)
    print(compile_report.format_report(report, topology, suggestions))


def vocabulary_size(config: ConfigDict, workdir: Path) -> int:
    """Tokens of the run's own vocabulary, or of the config's file; else BERT's Chinese 21,128."""
    if (own := in_folder(workdir)) is not None:
        return own.vocab_size
    if config.tokenizer.vocab != "captions" and not config.tokenizer.vocab.startswith("hub:"):
        return Tokenizer.load(config.tokenizer.vocab).vocab_size
    size = BertConfig().vocab_size
    log.info("vocabulary: %s tokens, as config.tokenizer.vocab is not a file", f"{size:,}")
    return size


def memory_savers(config: ConfigDict, topology: topologies.Topology) -> list[str]:
    """What would make the step fit, the cheapest first."""
    options = []
    if config.remat.image == "none":
        options.append("remat.image=norms")
    if config.remat.text == "none":
        options.append("remat.text=products")
    if "none" not in config.remat.values() and "blocks" not in config.remat.values():
        options.append("remat.image=blocks with remat.text=blocks")
    each = len(topology.devices) // topology.slices
    if config.mesh.fsdp == 1 and each > 1:
        options.append(f"mesh.fsdp={min(each, 4)}")
    options.append(f"micro_batches={2 * config.micro_batches}")
    return options
