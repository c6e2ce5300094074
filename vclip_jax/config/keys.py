"""Every key of the configuration, declared once: its default, its meaning, the values that it may
have, and what happens to it when a run is continued.

The configuration (`defaults`), the checks of single keys (`checks`), what a continued run may
change (`saved`) and the page `docs/config.md` (`page`) are made from these declarations.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from vclip_jax.config.allowed import (
    ANY,
    BELOW_ONE,
    POSITIVE,
    SHARE,
    Allowed,
    any_of,
    at_least,
    numbers,
    one_of,
    pairs,
    that,
)
from vclip_jax.data.choices import AUTOMATIC, MODES, ORDERS
from vclip_jax.data.images.statistics import IMAGE_MEAN, IMAGE_STD
from vclip_jax.models.kinds import IMAGE_POOLS, IMAGE_TOWERS, LOSSES, TEXT_POOLS, TEXT_TOWERS

# What rooms above, or modules that import JAX, offer; tests compare.
KEPT = {"image": ("none", "norms", "blocks"), "text": ("none", "products", "blocks")}
ACTIVATIONS = ("quick_gelu", "gelu")
TRACKERS = ("tensorboard", "wandb", "mlflow")
LEAST_RESAMPLES = 100


# These are imported when a value is checked: --help does not wait for OpenCV.


def _fits() -> Collection[str]:
    from vclip_jax.data.images.decode import FITS

    return FITS


def _augmentations() -> Collection[str]:
    from vclip_jax.data.images.augment import AUGMENTATIONS

    return AUGMENTATIONS


@dataclass(frozen=True)
class Key:
    """One key of the configuration."""

    name: str
    """Its section and its name, `data.fit`."""
    default: Any
    """Its value in the paper's recipe, or where nobody sets it; the type is the key's."""
    meaning: str
    """For people."""
    allowed: Allowed = ANY
    """Beside the type."""
    on_resume: Literal["same", "free", "kept"] = "same"
    """A run is continued with the "same" value or refused; no trained number depends on a "free"
    one; a "kept" one is taken from the run, whatever is asked for."""
    before: Any = None
    """Of a kept key: what runs did before there was such a key."""
    aliases: str = ""
    """What open_clip, Chinese-CLIP, Hugging Face, big_vision and others call it."""

    def check(self, value: Any) -> None:
        """Raise ValueError, one line, where a value is not allowed."""
        if complaint := self.allowed.complaint(value):
            raise ValueError(f"config.{self.name}={value!r}{complaint}")


SECTIONS = {
    "": "Its length, what it keeps, what it measures, and what it starts from.",
    "profile": "A trace of some steps for TensorBoard or XProf, in `WORKDIR/profile`.",
    "data": "The photographs and captions, and how they reach the model.",
    "tokenizer": "The vocabulary.",
    "model": "The two towers and the space that they share.",
    "remat": "What each tower keeps for its gradients; the rest is computed a second time, which "
    "saves memory.",
    "loss": "The contrast between the pairs of a batch.",
    "optimizer": "The steps of the weights.",
    "mesh": "Where the train state lies.",
    "evals": "The zero-shot evaluations: a name of your choice -> an entry, made by "
    "`vclip_jax.config.zero_shot_eval`.",
    "systems": "The models that `vclip eval` scores side by side: a name of your choice -> an "
    "entry, made by `vclip_jax.config.system`.",
}
"""What each section is about; "" has the keys without a section."""

KEYS = (
    Key(
        "seed",
        0,
        "The seed of all that is random: weights, order, augmentation, dropout.",
        at_least(0),
        aliases="random_seed rng_seed global_seed random_state",
    ),
    Key(
        "total_steps",
        1000,
        "The length of the run; an epoch has as many steps as batches of the training split.",
        POSITIVE,
        aliases="epochs max_epochs num_epochs num_train_epochs train_epochs total_epochs steps "
        "max_steps train_steps num_steps num_train_steps iterations max_iter",
    ),
    Key(
        "global_batch_size",
        64,
        "Pairs in a step, on all devices together.",
        at_least(2, "a contrast needs two pairs"),
        aliases="batch_size batch bs train_batch_size total_batch_size per_device_train_batch_size",
    ),
    Key(
        "micro_batches",
        1,
        "Parts in which a device encodes its share of the batch, for batches that do not fit "
        "otherwise. Loss and gradients are the whole batch's, for one more forward pass; batch "
        "statistics are each part's.",
        POSITIVE,
        aliases="accum_freq grad_accum grad_accum_steps gradient_accumulation_steps",
    ),
    Key(
        "log_every",
        10,
        "Steps between rows of `metrics.jsonl`.",
        POSITIVE,
        on_resume="free",
        aliases="log_interval log_steps logging_steps log_every_n_steps log_training_steps",
    ),
    Key(
        "checkpoint_every",
        500,
        "Steps between checkpoints.",
        POSITIVE,
        on_resume="free",
        aliases="save_steps save_frequency save_step_frequency save_freq save_every save_interval "
        "ckpt_steps checkpoint_steps",
    ),
    Key(
        "keep_checkpoints",
        2,
        "The newest checkpoints that are kept.",
        POSITIVE,
        on_resume="free",
        aliases="save_total_limit max_to_keep keep_last",
    ),
    Key(
        "keep_best",
        "",
        "A metric by which one more checkpoint is kept, the best so far, such as "
        '"eval/validation/loss"; "" for none. An evaluation is always preceded by a checkpoint.',
        on_resume="free",
        aliases="load_best_model_at_end metric_for_best_model save_best",
    ),
    Key(
        "checkpoint_errors",
        "stop",
        "What a run does when a checkpoint cannot be written, because the disk is full: it stops, "
        "or continues without it.",
        one_of(("stop", "continue")),
        on_resume="free",
    ),
    Key(
        "preemption_seconds",
        100.0,
        "Seconds from SIGTERM until a run ends even if it could not save: less than the grace "
        "period of whoever sends it (GKE gives 120 here, most spot machines 30).",
        POSITIVE,
        on_resume="free",
    ),
    Key(
        "max_skipped",
        10,
        "An update whose loss or gradients are not finite is skipped; so many in a row end the "
        "run.",
        POSITIVE,
        on_resume="free",
    ),
    Key(
        "eval_every",
        0,
        "Steps between evaluations; 0 evaluates at the end only.",
        at_least(0),
        on_resume="free",
        aliases="eval_steps eval_interval val_frequency valid_step_interval eval_freq",
    ),
    Key(
        "eval_batch_size",
        64,
        "Images in a batch of an evaluation, on all devices together.",
        POSITIVE,
        on_resume="free",
        aliases="valid_batch_size val_batch_size per_device_eval_batch_size",
    ),
    Key(
        "eval_all_checkpoints",
        False,
        "With `vclip eval`, measure every checkpoint that is left (see `keep_checkpoints`), not "
        "the newest alone: the learning curve of the zero-shot figures.",
        on_resume="free",
    ),
    Key(
        "bootstrap_resamples",
        10_000,
        "Resamples behind the intervals of zero-shot figures, a second for 1744 images.",
        that(
            f"at least {LEAST_RESAMPLES}, or 0 for no interval",
            lambda value: value == 0 or value >= LEAST_RESAMPLES,
        ),
        on_resume="free",
    ),
    Key(
        "heat_maps",
        True,
        "Heat maps over the report's examples, when a run ends: of each dataset's eight "
        "photographs they take as long as scoring some two hundred.",
        on_resume="free",
    ),
    Key(
        "validation_batches",
        8,
        "Batches of the validation split whose loss and retrieval are measured; 0 for none. Its "
        "pairs are drawn, always the same ones, wherever they are stored.",
        at_least(0),
        on_resume="free",
    ),
    Key(
        "trackers",
        (),
        "Where the run can be watched beside `metrics.jsonl`, each a package to be installed. On "
        """the command line: `--config.trackers="('tensorboard',)"`.""",
        any_of(TRACKERS),
        on_resume="free",
        aliases="report_to wandb tensorboard mlflow",
    ),
    Key(
        "tracker_samples",
        0,
        "How many photographs of the first batch and of the validation split the trackers show, "
        "with their captions; 0 shows no photograph and no caption.",
        at_least(0),
        on_resume="free",
    ),
    Key(
        "restore_from",
        "",
        "A workdir whose weights start this run at step 0, or are evaluated; or a portable folder "
        "of `vclip_jax.interop` (of a text tower alone, the image tower stays random). The "
        "vocabulary is taken from there, too.",
        aliases="resume resume_from resume_from_checkpoint pretrained init_from model_init "
        "checkpoint ckpt finetune_from",
    ),
    Key(
        "restore_step",
        "latest",
        'Which checkpoint of that workdir; "best" is of a run with `keep_best`.',
        that(
            "latest, best or a step",
            lambda value: value in ("latest", "best") or value.isdecimal(),
        ),
        on_resume="free",
    ),
    Key(
        "restore_optimizer",
        False,
        "Take the optimizer's state from there as well; the learning rate schedule starts anew.",
        aliases="resume_optimizer load_optimizer",
    ),
    Key(
        "compute_dtype",
        "auto",
        'The type of the computation; "auto" is bfloat16 on accelerators and float32 on CPUs.',
        one_of(("auto", "float32", "bfloat16")),
        aliases="precision dtype amp fp16 bf16 half mixed_precision use_fp16 use_bf16",
    ),
    Key(
        "profile.first",
        10,
        "Steps of this start before the trace.",
        at_least(0),
        on_resume="free",
    ),
    Key(
        "profile.steps",
        0,
        "Steps in the trace; 0 makes none.",
        at_least(0),
        on_resume="free",
    ),
    Key(
        "data.dataset",
        "",
        "NAME or NAME/CONFIG, for example `idrid` or `synthetic/synfundus_like-128px-12000-s0`.",
        aliases="dataset_name train_data dataset_type train_dataset",
    ),
    Key(
        "data.source",
        "",
        "The folder of the dataset as downloaded, if it has yet to be built.",
        on_resume="free",
    ),
    Key(
        "data.data_dir",
        "data",
        "The folder of the built datasets.",
        on_resume="free",
        aliases="data_path data_root root_dir dataset_dir",
    ),
    Key("data.train_split", "train", "The pairs that are trained on."),
    Key(
        "data.validation_split",
        "validation",
        "The pairs whose loss and retrieval are measured at every evaluation.",
    ),
    Key(
        "data.test_split",
        "",
        "The pairs whose loss and retrieval are measured when a run ends and not before; "
        '"" for none.',
        on_resume="free",
    ),
    Key(
        "data.image_size",
        224,
        "The side of the square images, in pixels.",
        POSITIVE,
        aliases="img_size resolution input_size input_resolution force_image_size res",
    ),
    Key(
        "data.fit",
        "squash",
        'How a photograph becomes a square: "squash" (the recipe), "pad", "fundus" (crop to the '
        'illuminated field, then pad), "flair" (pad at the right or below), or "centre_crop" '
        "(CLIP's).",
        one_of(_fits),
    ),
    Key(
        "data.image_mean",
        IMAGE_MEAN,
        "Channel means of RGB in [0, 1], which are removed (the recipe's are OpenAI CLIP's).",
        numbers(3, lambda value: True, "three numbers"),
        aliases="mean",
    ),
    Key(
        "data.image_std",
        IMAGE_STD,
        "Channel deviations, likewise.",
        numbers(3, lambda value: value > 0, "three positive numbers"),
        aliases="std",
    ),
    Key(
        "data.decode",
        "exact",
        '"exact" resizes pixel for pixel as the recipe does; "fast" resizes with OpenCV and, in '
        "training, scales JPEGs while it decodes them, in a third of the time or less. It differs "
        "by less than one level of 255 on average. Whatever evaluates or answers decodes in full.",
        one_of(MODES),
    ),
    Key(
        "data.enhance",
        False,
        "Show local contrast instead of colours (`vclip_jax.data.images.enhance`): all cameras "
        "look alike.",
    ),
    Key(
        "data.augment",
        "recipe",
        'The random changes of training images: "recipe" (none), "fundus" (strong), "geometry", '
        'or "chinese_clip", the reference\'s own, off by default there '
        "(see `vclip_jax.data.images.augment`).",
        one_of(_augmentations),
        aliases="aug augmentation use_augment data_aug aug_cfg",
    ),
    Key(
        "data.shuffle",
        "permutation",
        'The order of training: a "permutation" for each epoch (`vclip_jax.data.order`), or '
        '"grain", the weaker shuffle of runs from before.',
        one_of(ORDERS),
        on_resume="kept",
        before="grain",
    ),
    Key(
        "data.workers",
        AUTOMATIC,
        "Processes that make training batches, on each host and for each trainer: 0 for none, -1 "
        "for as many as help (`vclip_jax.data.workers`): none on fewer than 8 cores.",
        at_least(AUTOMATIC),
        on_resume="free",
    ),
    Key(
        "data.threads",
        0,
        "Threads that do so where there are no such processes: 0 for one a core, at most 16.",
        at_least(0),
        on_resume="free",
    ),
    Key(
        "tokenizer.vocab",
        "captions",
        '"captions" makes a small vocabulary from the training captions; otherwise the path of a '
        "vocab.txt, or hub:REPOSITORY.",
        aliases="tokenizer_name vocab_file vocab_path",
    ),
    Key(
        "tokenizer.context_length",
        52,
        "Tokens of a caption, with those at its start and end; longer captions are cut.",
        at_least(3),
        aliases="max_length max_seq_length max_len seq_len",
    ),
    Key(
        "tokenizer.max_unknown",
        0.1,
        "The share of the captions' tokens that a vocabulary may lack: all that it lacks is one "
        "token, so a run with more is refused.",
        SHARE,
        on_resume="free",
    ),
    Key(
        "model.embed_dim",
        1024,
        "Dimensions of the space that images and texts share.",
        POSITIVE,
        aliases="projection_dim",
    ),
    Key(
        "model.vision_layers",
        (3, 4, 6, 3),
        "Blocks of the image tower: four stages make a ResNet; one number makes a Vision "
        "Transformer.",
        that(
            "four stages (a ResNet), such as (3, 4, 6, 3), or one number (a Vision Transformer), "
            "such as (12,)",
            lambda value: len(value) in (1, 4) and all(type(n) is int and n > 0 for n in value),
        ),
    ),
    Key(
        "model.vision_kind",
        "clip",
        'Whose blocks they are: "clip"\'s (the recipe), or those of "imagenet": torchvision\'s '
        "ResNet, timm's Vision Transformer.",
        one_of(IMAGE_TOWERS),
    ),
    Key(
        "model.activation",
        "quick_gelu",
        'Of Vision Transformers and CLIP\'s text tower: "quick_gelu" (OpenAI) or "gelu".',
        one_of(ACTIVATIONS),
    ),
    Key(
        "model.vision_width",
        64,
        "Channels of a ResNet's first stage, or of a Vision Transformer.",
        POSITIVE,
    ),
    Key(
        "model.vision_patch_size",
        16,
        "The side of a Vision Transformer's patches, in pixels.",
        POSITIVE,
        aliases="patch_size",
    ),
    Key(
        "model.batch_norm",
        "global",
        'Batch statistics of the "global" batch, or of each "device"\'s part (the recipe, whose '
        "running statistics are the first device's).",
        one_of(("global", "device")),
    ),
    Key(
        "model.half_init",
        False,
        "Round the initial weights through float16, as the recipe does on its way.",
    ),
    Key(
        "model.vision_pool",
        "attention",
        "How the positions of a ResNet's image become one vector; the recipe's is attention.",
        one_of(IMAGE_POOLS),
    ),
    Key(
        "model.text_kind",
        "bert",
        'The text tower: "bert" (the recipe), or "clip", CLIP\'s own causal Transformer.',
        one_of(TEXT_TOWERS),
    ),
    Key("model.text_width", 768, "Channels of the text tower.", POSITIVE),
    Key("model.text_layers", 12, "Layers of the text tower.", POSITIVE),
    Key("model.text_heads", 12, "Attention heads of each of its layers.", POSITIVE),
    Key("model.text_mlp_width", 3072, "Channels inside the MLP of each layer.", POSITIVE),
    Key("model.text_max_positions", 512, "The longest text that has positions.", POSITIVE),
    Key(
        "model.text_dropout",
        0.1,
        "The share of the text tower's activations that training drops.",
        BELOW_ONE,
        aliases="dropout drop_rate",
    ),
    Key(
        "model.text_initializer_range",
        0.02,
        "The standard deviation of the text tower's initial weights; BERT's 0.02 is meant for "
        "width 768.",
    ),
    Key(
        "model.text_pool",
        "first",
        'What stands for a caption: "first", the [CLS] token (the recipe), "mean", "layers" '
        "(FLAIR's mean over three layers too), or \"end\", which CLIP's own text tower needs.",
        one_of(TEXT_POOLS, "end"),
    ),
    Key(
        "model.text_projection_kind",
        "linear",
        'From there into the common space: "linear" (the recipe), or "mlp" (BiomedCLIP).',
        one_of(("linear", "mlp")),
    ),
    Key(
        "model.whiten_pairs",
        0,
        "Whiten the output projections on that many training pairs before the first step (see "
        "`vclip_jax.train.whitening`); 0 leaves them at random (the recipe).",
        at_least(0),
    ),
    Key(
        "remat.image",
        "none",
        '"none" keeps all; "norms" keeps convolutions, what is pooled and what goes from block to '
        'block; "blocks" keeps what goes from block to block.',
        one_of(KEPT["image"]),
        on_resume="free",
        aliases="grad_checkpointing gradient_checkpointing",
    ),
    Key(
        "remat.text",
        "none",
        '"none" keeps all; "products" keeps matrix products, not what is made of them; "blocks" '
        "keeps what goes from block to block.",
        one_of(KEPT["text"]),
        on_resume="free",
    ),
    Key(
        "scan_text_layers",
        False,
        "Compile one of BERT's layers rather than all: a start that is faster, steps that are "
        "slower.",
        on_resume="free",
    ),
    Key(
        "loss.kind",
        "softmax",
        '"softmax" (the recipe) or "sigmoid", see `vclip_jax.models.losses`; with "_ring" the same '
        "numbers from texts that go round the devices, for batches whose b x b logits do not fit "
        "otherwise.",
        one_of(LOSSES),
        aliases="siglip loss_type",
    ),
    Key(
        "loss.targets",
        "pair",
        'What belongs to an image: the text of its own "pair" (the recipe), or all texts of the '
        'same "caption", as captions repeat.',
        one_of(("pair", "caption")),
    ),
    Key(
        "loss.label_smoothing",
        0.0,
        "The share of the target that is spread over the batch.",
        BELOW_ONE,
        aliases="label_smoothing_factor smoothing ls",
    ),
    Key(
        "optimizer.kind",
        "adamw",
        'How gradients become steps: "adamw" (the recipe), or a name that a recipe adds to '
        "`vclip_jax.train.optim.OPTIMIZERS`.",
    ),
    Key(
        "optimizer.learning_rate",
        5e-4,
        "The peak of the learning rate, after the warm-up; then half a cosine to 0.",
        POSITIVE,
        aliases="lr base_lr peak_lr max_lr init_lr learning_rate",
    ),
    Key(
        "optimizer.warmup_steps",
        500,
        "Steps in which the learning rate rises to its peak.",
        at_least(0),
        aliases="warmup warmup_ratio warmup_epochs num_warmup_steps",
    ),
    Key(
        "optimizer.beta1",
        0.9,
        "The decay of the mean gradient.",
        BELOW_ONE,
        aliases="adam_beta1",
    ),
    Key(
        "optimizer.beta2",
        0.999,
        "The decay of the mean squared gradient.",
        BELOW_ONE,
        aliases="adam_beta2",
    ),
    Key(
        "optimizer.epsilon",
        1e-8,
        "The floor under the root of the mean squared gradient.",
        POSITIVE,
        aliases="eps adam_eps adam_epsilon",
    ),
    Key(
        "optimizer.weight_decay",
        0.2,
        "The decay of the weights, times the learning rate.",
        at_least(0),
        aliases="wd decay l2",
    ),
    Key(
        "optimizer.no_decay",
        ("bn", "ln", "bias", "logit_scale"),
        "Parameters whose path holds one of these words are not decayed. The recipe's words leave "
        "BERT's LayerNorm scales, the shortcuts' norm scales and all embeddings decayed; what is "
        'usual elsewhere is `("bias", "scale", "embedding")`.',
    ),
    Key(
        "optimizer.gather_gradient",
        True,
        "Whether embeddings of other devices carry gradient. The recipe's do not unless it is told "
        "so, which divides the towers' gradients, not the logit scale's, by the number of devices.",
        aliases="gather_with_grad local_loss",
    ),
    Key(
        "optimizer.clamp",
        "after_step",
        'Keep the logit scale in [1, 100] by clipping the parameter "after_step" (the recipe), or '
        'what the "forward" pass makes of it.',
        one_of(("after_step", "forward")),
    ),
    Key(
        "optimizer.learning_rate_factors",
        (),
        "Pairs of a regular expression over parameter paths and a factor: the first found scales "
        "the learning rate.",
        pairs(("bert/.*", 0.1), lambda value: type(value) in (int, float)),
    ),
    Key(
        "optimizer.clip_grad_norm",
        0.0,
        "The largest norm of the gradients, to which they are scaled down; 0 does not clip.",
        at_least(0),
        aliases="grad_clip_norm max_grad_norm grad_clip clip_grad gradient_clipping",
    ),
    Key(
        "mesh.fsdp",
        1,
        "Devices along the axis that shards parameters; the others replicate them.",
        POSITIVE,
        on_resume="free",
        aliases="fsdp_size num_fsdp",
    ),
    Key(
        "mesh.rules",
        ((".*", "fsdp"),),
        'Pairs of a regular expression over the paths of the train state and "replicate" or '
        '"fsdp"; the first found holds.',
        pairs(("visual/.*", "fsdp"), lambda value: value in ("replicate", "fsdp")),
        on_resume="free",
    ),
)

USER_NAMED_SECTIONS = {
    "evals": (
        Key(
            "dataset",
            "",
            "A name as in `data.dataset`. A dataset that is neither built nor has a source is "
            "skipped, and the run says so.",
            on_resume="free",
        ),
        Key(
            "prompts",
            "",
            'A prompt set, `zh/messidor` or the path of a JSON file; or "labels", the names of '
            "the dataset's classes as they are.",
            on_resume="free",
        ),
        Key(
            "kind",
            "zero_shot",
            'What is measured: "zero_shot", the classes told apart by the prompts, or a name that '
            "a recipe adds to `vclip_jax.evaluation.tasks.EVALUATIONS`.",
            on_resume="free",
        ),
        Key("split", "test", "Which split is scored.", on_resume="free"),
        Key(
            "source",
            "",
            "The dataset as downloaded, if it has yet to be built.",
            on_resume="free",
        ),
    ),
    "systems": (
        Key(
            "weights",
            "",
            "A model as in `restore_from`. A system without weights is a row that says so.",
            on_resume="free",
        ),
        Key(
            "prompts",
            "zh",
            "The folder of its prompt sets, `zh`, `en`, `flair` or `flair_ek`; the set of each "
            "evaluation is taken from there.",
            on_resume="free",
        ),
        Key(
            "where",
            "",
            "For the row of a system without weights: where to get them, and how to import them.",
            on_resume="free",
        ),
    ),
}
"""Sections whose entries a recipe names, and the keys of such an entry."""


def keys_of(section: str) -> tuple[Key, ...]:
    """The keys of a section, or of an entry where a recipe names the entries."""
    if section in USER_NAMED_SECTIONS:
        return USER_NAMED_SECTIONS[section]
    return tuple(key for key in KEYS if key.name.rpartition(".")[0] == section)
