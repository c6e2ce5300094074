"""The rules between keys, and between keys and the devices or the mode.

Each rule raises ValueError, one line that names the keys, their values and what is allowed.
"""

from collections.abc import Callable
from dataclasses import dataclass

from ml_collections import ConfigDict

from vclip_jax.models.kinds import TEXT_POOLS


@dataclass(frozen=True)
class Use:
    """The intended use of a configuration."""

    devices: int
    processes: int = 1
    training: bool = True
    """True to train, False only to evaluate."""


def optimizer_state_needs_a_source(config: ConfigDict, use: Use) -> None:
    """Refuse to restore an optimizer's state without a source."""
    if config.restore_optimizer and not config.restore_from:
        raise ValueError("config.restore_optimizer=True needs config.restore_from: name a workdir")


def text_pool_fits_the_tower(config: ConfigDict, use: Use) -> None:
    """Refuse a pool that the text tower does not have."""
    pools_of_tower = {"bert": tuple(TEXT_POOLS), "clip": ("end",)}
    pools = pools_of_tower.get(config.model.text_kind)
    if pools is not None and config.model.text_pool not in pools:
        raise ValueError(
            f"config.model.text_pool={config.model.text_pool!r} must be one of {', '.join(pools)} "
            f"where config.model.text_kind={config.model.text_kind!r}"
        )


def pooled_layers_are_there(config: ConfigDict, use: Use) -> None:
    """Refuse a mean over more layers than the text tower has."""
    if config.model.text_pool == "layers" and config.model.text_layers < 2:
        raise ValueError(
            f"config.model.text_layers={config.model.text_layers} must be at least 2 where "
            "config.model.text_pool='layers'"
        )


def whitening_knows_the_towers(config: ConfigDict, use: Use) -> None:
    """Refuse whitening of other towers than the recipe's."""
    model = config.model
    reference = (
        model.vision_kind == "clip"
        and len(model.vision_layers) == 4
        and model.text_kind == "bert"
        and model.text_projection_kind == "linear"
    )
    if model.whiten_pairs and not reference:
        raise ValueError(
            f"config.model.whiten_pairs={model.whiten_pairs} is for CLIP's ResNet and BERT "
            "with a linear projection: set it to 0"
        )


def a_curve_is_of_evaluation(config: ConfigDict, use: Use) -> None:
    """Refuse to evaluate all checkpoints while training, or together with a single one."""
    if use.training and config.eval_all_checkpoints:
        raise ValueError(
            "config.eval_all_checkpoints=True needs `vclip eval`: training measures every "
            "config.eval_every steps"
        )
    if config.eval_all_checkpoints and config.restore_step != "latest":
        raise ValueError(
            f"config.restore_step={config.restore_step!r} and config.eval_all_checkpoints=True do "
            "not go together: leave one of them out"
        )


def failed_checkpoints_are_for_one_process(config: ConfigDict, use: Use) -> None:
    """Refuse to continue after a failed save with several processes, which could disagree."""
    if use.processes > 1 and config.checkpoint_errors == "continue":
        raise ValueError(
            "config.checkpoint_errors='continue' is for one process: several cannot agree on what "
            "was saved if one of them fails"
        )


def best_metric_is_measured(config: ConfigDict, use: Use) -> None:
    """Refuse a metric that no evaluation of the run computes."""
    if not config.keep_best:
        return
    first, _, rest = config.keep_best.partition("/")
    measured = [*config.evals, *(["validation"] if config.validation_batches else [])]
    if first != "eval" or "/" not in rest or rest.partition("/")[0] not in measured:
        raise ValueError(
            f"config.keep_best={config.keep_best!r} is no metric of this run: use "
            f"eval/NAME/METRIC with NAME one of {', '.join(measured) or 'config.evals'}"
        )
    if not config.eval_every:
        raise ValueError(
            f"config.keep_best={config.keep_best!r} needs config.eval_every: set the steps between "
            "evaluations"
        )


def something_is_trained(config: ConfigDict, use: Use) -> None:
    """Refuse to train nothing but the temperature."""
    if use.training and config.train.image == config.train.text == "frozen":
        raise ValueError(
            "config.train.image and config.train.text are both 'frozen': train a part of a tower"
        )


def loops_have_equal_layers(config: ConfigDict, use: Use) -> None:
    """Refuse low-rank parts in some layers of a loop over layers."""
    if config.scan_text_layers and config.train.text.startswith("lora:"):
        raise ValueError(
            "config.scan_text_layers=True needs layers that are all alike: set it to False with "
            f"config.train.text={config.train.text!r}"
        )


def training_has_a_dataset(config: ConfigDict, use: Use) -> None:
    """Refuse to train without a dataset."""
    if use.training and not config.data.dataset and not config.data.mixture:
        raise ValueError("config.data.dataset is empty: name a dataset, for example idrid")


def a_mixture_is_all_of_the_data(config: ConfigDict, use: Use) -> None:
    """Refuse a mixture beside a single dataset or its source."""
    for key, value, remedy in (
        ("dataset", config.data.dataset, "set it to '', or give it a weight in the mixture"),
        ("source", config.data.source, "build the datasets of a mixture first"),
    ):
        if config.data.mixture and value:
            raise ValueError(
                f"config.data.{key}={value!r} and config.data.mixture do not go together: {remedy}"
            )


def groups_have_the_order_of_this_version(config: ConfigDict, use: Use) -> None:
    """Refuse groups of records in the order of earlier versions."""
    key = "mixture" if config.data.mixture else "balance"
    if config.data[key] and config.data.shuffle != "permutation":
        raise ValueError(
            f"config.data.shuffle={config.data.shuffle!r} is for one dataset as it is: set it to "
            f"'permutation' with config.data.{key}"
        )


def batches_divide_among_devices(config: ConfigDict, use: Use) -> None:
    """Refuse batches that do not divide evenly among the devices."""
    sizes = {
        "global_batch_size": config.global_batch_size,
        "eval_batch_size": config.eval_batch_size,
        "model.whiten_pairs": config.model.whiten_pairs,
    }
    for key, size in sizes.items():
        if size % use.devices:
            raise ValueError(
                f"config.{key}={size} does not divide by the {use.devices} devices: "
                f"use {max(1, size // use.devices) * use.devices}"
            )


def shares_divide_into_parts(config: ConfigDict, use: Use) -> None:
    """Refuse micro-batches of unequal sizes."""
    parts = use.devices * config.micro_batches
    if config.global_batch_size % parts:
        raise ValueError(
            f"config.global_batch_size={config.global_batch_size} does not divide by "
            f"config.micro_batches={config.micro_batches} on {use.devices} devices: "
            f"use {max(1, config.global_batch_size // parts) * parts}"
        )


def statistics_need_two_photographs(config: ConfigDict, use: Use) -> None:
    """Refuse batch statistics over a single photograph."""
    on_each_device = config.model.batch_norm == "device"
    parts = config.micro_batches * (use.devices if on_each_device else 1)
    if len(config.model.vision_layers) == 4 and config.global_batch_size < 2 * parts:
        raise ValueError(
            f"config.micro_batches={config.micro_batches}: each part of "
            f"config.global_batch_size={config.global_batch_size} has one photograph"
            f"{' on each device' if on_each_device else ''}, too few for batch statistics: use "
            "fewer parts"
        )


def image_size_fits_the_stride(config: ConfigDict, use: Use) -> None:
    """Refuse an image size that is not a multiple of the image tower's stride."""
    stride = 32 if len(config.model.vision_layers) == 4 else config.model.vision_patch_size
    if config.data.image_size % stride:
        raise ValueError(
            f"config.data.image_size={config.data.image_size} must be a multiple of {stride}, "
            "the image tower's total stride"
        )


def width_divides_among_heads(config: ConfigDict, use: Use) -> None:
    """Refuse attention heads of unequal widths."""
    if config.model.text_width % config.model.text_heads:
        raise ValueError(
            f"config.model.text_width={config.model.text_width} does not divide by "
            f"config.model.text_heads={config.model.text_heads}"
        )


def captions_have_positions(config: ConfigDict, use: Use) -> None:
    """Refuse captions that are longer than the text tower has positions for."""
    if config.tokenizer.context_length > config.model.text_max_positions:
        raise ValueError(
            f"config.tokenizer.context_length={config.tokenizer.context_length} must lie between "
            f"3 and config.model.text_max_positions={config.model.text_max_positions}"
        )


RULES: tuple[Callable[[ConfigDict, Use], None], ...] = (
    optimizer_state_needs_a_source,
    text_pool_fits_the_tower,
    pooled_layers_are_there,
    whitening_knows_the_towers,
    a_curve_is_of_evaluation,
    failed_checkpoints_are_for_one_process,
    best_metric_is_measured,
    something_is_trained,
    loops_have_equal_layers,
    training_has_a_dataset,
    a_mixture_is_all_of_the_data,
    groups_have_the_order_of_this_version,
    batches_divide_among_devices,
    shares_divide_into_parts,
    statistics_need_two_photographs,
    image_size_fits_the_stride,
    width_divides_among_heads,
    captions_have_positions,
)
"""The rules, in the order in which they are checked."""
