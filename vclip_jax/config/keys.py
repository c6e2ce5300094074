"""Every key of the configuration, declared once: default, meaning, allowed values, and what
happens to the key when a run is resumed.

The configuration (`defaults`), the checks of single keys (`checks`), the keys that a resumed run
may change (`saved`) and the page `docs/config.md` (`page`) are made from these declarations.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any, Literal

from vclip_jax.config.allowed import (
    ANY,
    BELOW_ONE,
    EXPRESSION,
    PART,
    POSITIVE,
    SHARE,
    WEIGHT,
    Allowed,
    any_of,
    at_least,
    numbers,
    one_of,
    pairs,
    that,
)
from vclip_jax.data.choices import AUTOMATIC, BALANCES, GATES, MODES, ORDERS
from vclip_jax.data.images.statistics import IMAGE_MEAN, IMAGE_STD
from vclip_jax.models.kinds import IMAGE_POOLS, IMAGE_TOWERS, LOSSES, TEXT_POOLS, TEXT_TOWERS

# Names of things in rooms above or in modules that import JAX; tests keep them equal.
KEPT = {"image": ("none", "norms", "blocks"), "text": ("none", "products", "blocks")}
ACTIVATIONS = ("quick_gelu", "gelu")
TRACKERS = ("tensorboard", "wandb", "mlflow")
LEAST_RESAMPLES = 100


# Imported only when a value is checked, so that --help does not wait for OpenCV.


def _fits() -> Collection[str]:
    from vclip_jax.data.images.fit import FITS

    return FITS


def _augmentations() -> Collection[str]:
    from vclip_jax.data.images.augment import AUGMENTATIONS

    return AUGMENTATIONS


@dataclass(frozen=True)
class Key:
    """One key of the configuration."""

    name: str
    """Section and name, such as `data.fit`."""
    default: Any
    """The value in the paper's recipe, where the recipe has one; its type is the key's type."""
    meaning: str
    """One or more sentences for `docs/config.md`."""
    allowed: Allowed = ANY
    """The check of a value, besides its type."""
    on_resume: Literal["same", "free", "kept"] = "same"
    """"same": a resumed run must have the same value; "free": the value may change, because no
    trained number depends on it; "kept": the run's own value replaces the requested one."""
    before: Any = None
    """The behaviour of runs that began before a "kept" key existed."""
    aliases: str = ""
    """Names of this key in open_clip, Chinese-CLIP, Hugging Face, big_vision and others."""

    def check(self, value: Any) -> None:
        """Raise ValueError, one line, if a value, or one of a mapping's, is not allowed."""
        if isinstance(self.default, dict):
            # A ConfigDict is no Mapping.
            if not hasattr(value, "items") or not all(isinstance(name, str) for name in value):
                raise ValueError(f"config.{self.name}={value!r} must be a mapping of names")
            for name, one in value.items():
                replace(self, name=f"{self.name}.{name}", default=1.0).check(one)
        elif complaint := self.allowed.complaint(value):
            raise ValueError(f"config.{self.name}={value!r}{complaint}")


SECTIONS = {
    "": "The length of the run, its batches, logs, checkpoints and evaluations, and the weights "
    "that it starts from.",
    "profile": "A trace of some steps for TensorBoard or XProf, written to `WORKDIR/profile`.",
    "data": "The photographs and captions, and how they are prepared for the model.",
    "tokenizer": "The vocabulary and the length of captions.",
    "model": "The image tower, the text tower and the space that they share.",
    "remat": "The values that each tower keeps in the forward pass for its gradients; all others "
    "are computed a second time, which saves memory.",
    "loss": "The contrastive loss over the pairs of a batch.",
    "optimizer": "The optimizer and its learning rate.",
    "train": "The parts of each tower that are trained. Frozen parts keep their weights and batch "
    "statistics to the bit, and need no gradients and no state of the optimizer.",
    "mesh": "The placement of the train state on devices.",
    "evals": "The zero-shot evaluations: a name of your choice -> an entry, made by "
    "`vclip_jax.config.zero_shot_eval`.",
    "systems": "The models that `vclip eval` scores side by side: a name of your choice -> an "
    "entry, made by `vclip_jax.config.system`.",
}
"""The subject of each section; "" has the keys without a section."""

KEYS = (
    Key(
        "seed",
        0,
        "The seed of everything random: initial weights, data order, augmentation, dropout.",
        at_least(0),
        aliases="random_seed rng_seed global_seed random_state",
    ),
    Key(
        "epochs",
        0.0,
        "The length of the run in passes over the training split, such as 0.5 or 3; 0 for "
        "`total_steps` steps. An epoch has as many steps as the training split has batches, "
        "rounded up over the whole run; an epoch of a mixture has as many examples as all its "
        "datasets have records. The run's `config.json` holds the number as `total_steps`.",
        that("from 0 to 1,000,000", lambda value: 0 <= value <= 1e6),
        aliases="max_epochs num_epochs num_train_epochs train_epochs total_epochs n_epochs epoch",
    ),
    Key(
        "total_steps",
        1000,
        "The number of training steps, where `epochs` is 0.",
        POSITIVE,
        aliases="steps max_steps train_steps num_steps num_train_steps iterations max_iter",
    ),
    Key(
        "global_batch_size",
        64,
        "Pairs in a training step, over all devices together.",
        at_least(2, "a contrast needs two pairs"),
        aliases="batch_size batch bs train_batch_size total_batch_size per_device_train_batch_size",
    ),
    Key(
        "micro_batches",
        1,
        "Parts into which each device splits its share of the batch, to save memory. Loss and "
        "gradients are still those of the whole batch, at the cost of one more forward pass; "
        "batch statistics are those of each part.",
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
        "How many of the newest checkpoints to keep.",
        POSITIVE,
        on_resume="free",
        aliases="save_total_limit max_to_keep keep_last",
    ),
    Key(
        "keep_best",
        "",
        'A metric, such as "eval/validation/loss", by which the best checkpoint so far is kept '
        'too; "" for none. Each evaluation saves a checkpoint first.',
        on_resume="free",
        aliases="load_best_model_at_end metric_for_best_model save_best",
    ),
    Key(
        "checkpoint_errors",
        "stop",
        'Whether to "stop" the run or to "continue" without the checkpoint when it cannot be '
        "written, for example because the disk is full.",
        one_of(("stop", "continue")),
        on_resume="free",
    ),
    Key(
        "preemption_seconds",
        100.0,
        "Seconds after SIGTERM until the run ends, even if it could not save. Choose less than "
        "the platform's grace period (120 with `launch/gke-*.yaml`, 30 on most spot machines).",
        POSITIVE,
        on_resume="free",
    ),
    Key(
        "max_skipped",
        10,
        "Skipped updates in a row that end the run; an update is skipped if its loss or gradients "
        "are not finite.",
        POSITIVE,
        on_resume="free",
    ),
    Key(
        "eval_every",
        0,
        "Steps between evaluations; 0 evaluates only at the end.",
        at_least(0),
        on_resume="free",
        aliases="eval_steps eval_interval val_frequency valid_step_interval eval_freq",
    ),
    Key(
        "eval_batch_size",
        64,
        "Images in an evaluation batch, over all devices together.",
        POSITIVE,
        on_resume="free",
        aliases="valid_batch_size val_batch_size per_device_eval_batch_size",
    ),
    Key(
        "eval_all_checkpoints",
        False,
        "With `vclip eval`, score every checkpoint that is left (see `keep_checkpoints`), not "
        "only the newest: this gives the learning curve of the zero-shot figures.",
        on_resume="free",
    ),
    Key(
        "bootstrap_resamples",
        10_000,
        "Bootstrap resamples for the intervals of zero-shot figures; 10,000 take a second for "
        "1744 images.",
        that(
            f"at least {LEAST_RESAMPLES}, or 0 for no interval",
            lambda value: value == 0 or value >= LEAST_RESAMPLES,
        ),
        on_resume="free",
    ),
    Key(
        "predictions_secret",
        "",
        "A file with a secret: keys and patients in `predictions/*.csv` are then hashes that only "
        'its holder can compute, the same for all runs with this secret. "" keeps them as in the '
        "dataset.",
        on_resume="free",
    ),
    Key(
        "gate",
        GATES[0],
        "The treatment of photographs that are not of a fundus, or too poor to judge "
        '(`vclip_jax.data.images.gate`), in evaluations: "report" counts them in the '
        'last evaluation, "exclude" also leaves them out of the figures, "off" does not judge.',
        one_of(GATES),
        on_resume="free",
    ),
    Key(
        "calibration",
        "",
        "The calibration of the answers that `vclip eval` scores: a file of `vclip calibrate`; "
        '"" for `calibration.json` beside the model; "off" for none. Applies to evaluations with '
        "the prompts of the calibration.",
        on_resume="free",
    ),
    Key(
        "heat_maps",
        True,
        "Draw heat maps over the report's examples when a run ends. The eight examples of a "
        "dataset take as long as scoring about two hundred photographs.",
        on_resume="free",
    ),
    Key(
        "validation_batches",
        8,
        "Batches of the validation split whose loss and retrieval are measured; 0 for none. The "
        "pairs are drawn at random, but they are the same in every run and on every machine.",
        at_least(0),
        on_resume="free",
    ),
    Key(
        "trackers",
        (),
        "Trackers to which figures go besides `metrics.jsonl`; each needs its package. On the "
        "command line: `--config.trackers=\"('tensorboard',)\"`.",
        any_of(TRACKERS),
        on_resume="free",
        aliases="report_to wandb tensorboard mlflow",
    ),
    Key(
        "tracker_samples",
        0,
        "How many photographs of the first batch and of the validation split the trackers show, "
        "with their captions; 0 shows neither photographs nor captions.",
        at_least(0),
        on_resume="free",
    ),
    Key(
        "restore_from",
        "",
        "Weights that start this run at step 0, or that `vclip eval` scores: a workdir, a "
        "portable folder of `vclip_jax.interop`, or the name of a packaged model. (With a folder "
        "of only a text tower, the image tower stays random.) The vocabulary is taken from there "
        "too.",
        aliases="resume resume_from resume_from_checkpoint pretrained init_from model_init "
        "checkpoint ckpt finetune_from",
    ),
    Key(
        "restore_step",
        "latest",
        'The checkpoint of that workdir: "latest", "best" (if that run set `keep_best`), or a '
        "step number.",
        that(
            "latest, best or a step",
            lambda value: value in ("latest", "best") or value.isdecimal(),
        ),
        on_resume="free",
    ),
    Key(
        "restore_optimizer",
        False,
        "Also take the optimizer's state from that workdir; the learning rate schedule still "
        "begins at step 0.",
        aliases="resume_optimizer load_optimizer",
    ),
    Key(
        "compute_dtype",
        "auto",
        'The dtype of the computation; "auto" is bfloat16 on accelerators and float32 on CPUs.',
        one_of(("auto", "float32", "bfloat16")),
        aliases="precision dtype amp fp16 bf16 half mixed_precision use_fp16 use_bf16",
    ),
    Key(
        "profile.first",
        10,
        "Steps between the start of the process and the trace.",
        at_least(0),
        on_resume="free",
    ),
    Key(
        "profile.steps",
        0,
        "Steps in the trace; 0 for no trace.",
        at_least(0),
        on_resume="free",
    ),
    Key(
        "data.dataset",
        "",
        "The dataset, NAME or NAME/CONFIG, for example `idrid` or "
        "`synthetic/synfundus_like-128px-12000-s0`.",
        aliases="dataset_name train_data dataset_type train_dataset",
    ),
    Key(
        "data.mixture",
        {},
        "Several built datasets to train on instead of one: NAME or NAME:SPLIT -> its weight. In a "
        'recipe: `config.data.mixture = {"synfundus": 3, "mine": 1}`; on the command line: '
        "`--config.data.mixture.mine=1` for each. See [own data](own-data.md#several-datasets).",
        WEIGHT,
        aliases="datasets data_mix dataset_weights mixture_weights interleave_probs",
    ),
    Key(
        "data.balance",
        BALANCES[0],
        'Train on as many examples of each class ("label"), or of each finding and of photographs '
        'without findings ("finding"), in each dataset; "" takes the records as they are. See '
        "[own data](own-data.md#rare-classes).",
        that('label, finding or ""', BALANCES.__contains__),
        aliases="balanced balanced_sampling class_balance weighted_sampler oversample "
        "class_weights",
    ),
    Key(
        "data.source",
        "",
        "The folder of the downloaded dataset; needed only while the dataset is not built.",
        on_resume="free",
    ),
    Key(
        "data.data_dir",
        "data",
        "The folder of the built datasets.",
        on_resume="free",
        aliases="data_path data_root root_dir dataset_dir",
    ),
    Key("data.train_split", "train", "The split to train on."),
    Key(
        "data.validation_split",
        "validation",
        "The split whose loss and retrieval are measured at every evaluation.",
    ),
    Key(
        "data.test_split",
        "",
        'The split whose loss and retrieval are measured once, when the run ends; "" for none.',
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
        'How a photograph becomes a square: "squash" (ignore the aspect ratio; the recipe), '
        '"pad", "fundus" (crop to the illuminated field, then pad), "flair" (pad at the right or '
        'bottom), or "centre_crop" (CLIP\'s).',
        one_of(_fits),
    ),
    Key(
        "data.image_mean",
        IMAGE_MEAN,
        "The mean of each RGB channel, in [0, 1], that is subtracted (the recipe's are OpenAI "
        "CLIP's).",
        numbers(3, lambda value: True, "three numbers"),
        aliases="mean",
    ),
    Key(
        "data.image_std",
        IMAGE_STD,
        "The standard deviation of each RGB channel, by which images are divided (likewise).",
        numbers(3, lambda value: value > 0, "three positive numbers"),
        aliases="std",
    ),
    Key(
        "data.decode",
        "exact",
        '"exact" resizes pixel for pixel as the recipe does; "fast" resizes with OpenCV and, in '
        "training, scales JPEGs while decoding them, which takes a third of the time or less. The "
        "results differ by less than one level of 255 on average. Evaluation and prediction "
        "always decode JPEGs in full.",
        one_of(MODES),
    ),
    Key(
        "data.enhance",
        False,
        "Show local contrast instead of colours (`vclip_jax.data.images.enhance`), so that all "
        "cameras look alike.",
    ),
    Key(
        "data.augment",
        "recipe",
        'Random changes to training images: "recipe" (none), "fundus" (strong), "geometry", or '
        '"chinese_clip" (Chinese-CLIP\'s own, which is off there by default); see '
        "`vclip_jax.data.images.augment`.",
        one_of(_augmentations),
        aliases="aug augmentation use_augment data_aug aug_cfg",
    ),
    Key(
        "data.shuffle",
        "permutation",
        'The order of the training pairs: "permutation", a new permutation each epoch '
        '(`vclip_jax.data.order`), or "grain", the weaker shuffle of earlier versions.',
        one_of(ORDERS),
        on_resume="kept",
        before="grain",
    ),
    Key(
        "data.workers",
        AUTOMATIC,
        "Processes that prepare training batches, for each trainer process on each host: 0 for "
        "none, -1 to choose automatically (`vclip_jax.data.workers`), which is none on fewer than "
        "8 cores.",
        at_least(AUTOMATIC),
        on_resume="free",
    ),
    Key(
        "data.threads",
        0,
        "Threads that prepare training batches if there are no such processes: 0 for one per "
        "core, at most 16.",
        at_least(0),
        on_resume="free",
    ),
    Key(
        "tokenizer.vocab",
        "captions",
        '"captions" builds a small vocabulary from the training captions; otherwise the path of a '
        "vocab.txt, or hub:REPOSITORY.",
        aliases="tokenizer_name vocab_file vocab_path",
    ),
    Key(
        "tokenizer.context_length",
        52,
        "Tokens of a caption, including the start and end tokens; longer captions are cut.",
        at_least(3),
        aliases="max_length max_seq_length max_len seq_len",
    ),
    Key(
        "tokenizer.max_unknown",
        0.1,
        "The largest share of the captions' tokens that may be missing from the vocabulary. A run "
        "with more is refused, because all missing words become the same token.",
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
        "Blocks of the image tower: four numbers, one for each stage, make a ResNet; one number "
        "makes a Vision Transformer.",
        that(
            "four stages (a ResNet), such as (3, 4, 6, 3), or one number (a Vision Transformer), "
            "such as (12,)",
            lambda value: len(value) in (1, 4) and all(type(n) is int and n > 0 for n in value),
        ),
    ),
    Key(
        "model.vision_kind",
        "clip",
        'The design of the image tower\'s blocks: "clip" (the recipe) or "imagenet" '
        "(torchvision's ResNet, timm's Vision Transformer).",
        one_of(IMAGE_TOWERS),
    ),
    Key(
        "model.activation",
        "quick_gelu",
        'The activation of Vision Transformers and of CLIP\'s text tower: "quick_gelu" (OpenAI) '
        'or "gelu".',
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
        'Normalise with the statistics of the "global" batch, or of each "device"\'s part (the '
        "recipe, which keeps the first device's running statistics).",
        one_of(("global", "device")),
    ),
    Key(
        "model.half_init",
        False,
        "Round the initial weights to float16 and back, as the recipe does.",
    ),
    Key(
        "model.vision_pool",
        "attention",
        "How a ResNet pools the positions of an image into one vector; the recipe uses attention.",
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
    Key("model.text_heads", 12, "Attention heads in each layer of the text tower.", POSITIVE),
    Key(
        "model.text_mlp_width",
        3072,
        "Channels inside the MLP of each layer of the text tower.",
        POSITIVE,
    ),
    Key(
        "model.text_max_positions",
        512,
        "The longest text, in tokens, for which the text tower has position embeddings.",
        POSITIVE,
    ),
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
        'How the tokens of a caption become one vector: "first", the [CLS] token (the recipe); '
        '"mean", over the tokens; "layers", over the tokens of three layers (FLAIR); or "end", '
        "the end token, which CLIP's text tower needs.",
        one_of(TEXT_POOLS, "end"),
    ),
    Key(
        "model.text_projection_kind",
        "linear",
        'The projection of that vector into the shared space: "linear" (the recipe) or "mlp" '
        "(BiomedCLIP).",
        one_of(("linear", "mlp")),
    ),
    Key(
        "model.whiten_pairs",
        0,
        "Training pairs on which the output projections are whitened before the first step (see "
        "`vclip_jax.train.whitening`); 0 leaves them random (the recipe).",
        at_least(0),
    ),
    Key(
        "remat.image",
        "none",
        'What the image tower keeps: "none" keeps everything; "norms" keeps the outputs of '
        'convolutions, pools and blocks; "blocks" keeps the outputs of blocks.',
        one_of(KEPT["image"]),
        on_resume="free",
        aliases="grad_checkpointing gradient_checkpointing",
    ),
    Key(
        "remat.text",
        "none",
        'What the text tower keeps: "none" keeps everything; "products" keeps matrix products, '
        'but nothing computed from them; "blocks" keeps the outputs of blocks.',
        one_of(KEPT["text"]),
        on_resume="free",
    ),
    Key(
        "scan_text_layers",
        False,
        "Compile one BERT layer instead of all of them: the start is faster, the steps are slower.",
        on_resume="free",
    ),
    Key(
        "loss.kind",
        "softmax",
        '"softmax" (the recipe) or "sigmoid", see `vclip_jax.models.losses`. With "_ring" the '
        "numbers are the same, but texts pass from device to device, for batches whose b x b "
        "logits do not fit in memory.",
        one_of(LOSSES),
        aliases="siglip loss_type",
    ),
    Key(
        "loss.targets",
        "pair",
        'Which texts match an image: the text of its own "pair" (the recipe), or all texts with '
        'the same "caption", because captions repeat.',
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
        "train.image",
        "full",
        'What is trained of the image tower: "full"; "frozen", nothing; "head", its projection '
        '(of CLIP\'s ResNet, the attention pool); "last:N", the projection and the last N blocks; '
        'or "lora:R", the projection and low-rank parts of rank R in the blocks (LoRA).',
        PART,
        aliases="lock_image freeze_vision lora_r lora_rank",
    ),
    Key(
        "train.text",
        "full",
        'What is trained of the text tower: "full"; "frozen", nothing; "head", its projection; '
        '"last:N", the projection and the last N layers; or "lora:R", the projection and low-rank '
        "parts of rank R in the layers (LoRA).",
        PART,
        aliases="lock_text freeze_text",
    ),
    Key(
        "train.lora_alpha",
        16.0,
        'The strength of low-rank parts: with "lora:R" a layer adds alpha / R times the product of '
        "its two thin matrices.",
        POSITIVE,
        aliases="alpha",
    ),
    Key(
        "train.lora_targets",
        "",
        "A regular expression over the paths of layers, such as `attention/` or "
        "`(query|value)$`: those in which it is found get a low-rank part. The empty expression is "
        "found in all, and all linear layers and convolutions in blocks get one.",
        EXPRESSION,
        aliases="target_modules",
    ),
    Key(
        "optimizer.kind",
        "adamw",
        'The optimizer: "adamw" (the recipe), or a name that a recipe adds to '
        "`vclip_jax.train.optim.OPTIMIZERS`.",
    ),
    Key(
        "optimizer.learning_rate",
        5e-4,
        "The peak learning rate, reached after the warm-up; from there it falls to 0 along half a "
        "cosine.",
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
        "The decay rate of the mean gradient.",
        BELOW_ONE,
        aliases="adam_beta1",
    ),
    Key(
        "optimizer.beta2",
        0.999,
        "The decay rate of the mean squared gradient.",
        BELOW_ONE,
        aliases="adam_beta2",
    ),
    Key(
        "optimizer.epsilon",
        1e-8,
        "A constant added to the root of the mean squared gradient, so that nothing is divided by "
        "zero.",
        POSITIVE,
        aliases="eps adam_eps adam_epsilon",
    ),
    Key(
        "optimizer.weight_decay",
        0.2,
        "The weight decay; the learning rate multiplies it in each step.",
        at_least(0),
        aliases="wd decay l2",
    ),
    Key(
        "optimizer.layer_decay",
        1.0,
        "The factor of the learning rate from each block of a tower to the block before it: the "
        "projection has the full rate, the last block that rate times the factor, and the "
        "embeddings or the stem the lowest (BEiT).",
        that("in (0, 1]", lambda value: 0 < value <= 1),
        aliases="layerwise_lr_decay layer_lr_decay llrd",
    ),
    Key(
        "optimizer.no_decay",
        ("bn", "ln", "bias", "logit_scale"),
        "Parameters whose path contains one of these words are not decayed. The recipe's words "
        "leave BERT's LayerNorm scales, the shortcuts' norm scales and all embeddings decayed; "
        'the usual choice elsewhere is `("bias", "scale", "embedding")`.',
    ),
    Key(
        "optimizer.gather_gradient",
        True,
        "Whether gradients flow into the embeddings of other devices. In the recipe they do so "
        "only on request; without them the towers' gradients, but not the logit scale's, are "
        "divided by the number of devices.",
        aliases="gather_with_grad local_loss",
    ),
    Key(
        "optimizer.clamp",
        "after_step",
        'How the logit scale is kept in [1, 100]: clip the parameter "after_step" (the recipe), '
        'or clip the value that the "forward" pass uses.',
        one_of(("after_step", "forward")),
    ),
    Key(
        "optimizer.learning_rate_factors",
        (),
        "Pairs of a regular expression over parameter paths and a factor: the first expression "
        "found in a path scales its learning rate.",
        pairs(("bert/.*", 0.1), lambda value: type(value) in (int, float)),
    ),
    Key(
        "optimizer.clip_grad_norm",
        0.0,
        "The largest norm of the gradients; larger gradients are scaled down to it. 0 does not "
        "clip.",
        at_least(0),
        aliases="grad_clip_norm max_grad_norm grad_clip clip_grad gradient_clipping",
    ),
    Key(
        "mesh.fsdp",
        1,
        "Devices on the mesh axis that shards parameters; the other axis replicates them.",
        POSITIVE,
        on_resume="free",
        aliases="fsdp_size num_fsdp",
    ),
    Key(
        "mesh.rules",
        ((".*", "fsdp"),),
        'Pairs of a regular expression over train state paths and "replicate" or "fsdp"; the '
        "first expression found in a path applies.",
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
            "skipped with a message.",
            on_resume="free",
        ),
        Key(
            "prompts",
            "",
            'A prompt set such as `zh/messidor`, the path of a JSON file, or "labels": the names '
            "of the dataset's classes as they are.",
            on_resume="free",
        ),
        Key(
            "kind",
            "zero_shot",
            '"zero_shot" classifies with the prompts; "findings" asks each disease of the dataset '
            "by itself, present or absent; a recipe may add other kinds to "
            "`vclip_jax.evaluation.tasks.EVALUATIONS`.",
            on_resume="free",
        ),
        Key("split", "test", "The split to score.", on_resume="free"),
        Key(
            "development",
            "",
            "The split that chooses the operating points, which are then applied to `split`. "
            '"": the scored images choose them, so that their figures are too good.',
            on_resume="free",
        ),
        Key(
            "prevalence",
            0.0,
            "The share of people with the second of two classes where the model is to be used, for "
            "the predictive values; 0 for that of the images.",
            that("at least 0 and below 1", lambda value: 0 <= value < 1),
            on_resume="free",
        ),
        Key(
            "source",
            "",
            "The folder of the downloaded dataset; needed only while the dataset is not built.",
            on_resume="free",
        ),
    ),
    "systems": (
        Key(
            "weights",
            "",
            "A model as in `restore_from`. A system without weights gets a row that says so.",
            on_resume="free",
        ),
        Key(
            "prompts",
            "zh",
            "The folder of the system's prompt sets: `zh`, `en`, `flair` or `flair_ek`; each "
            "evaluation takes its set from there.",
            on_resume="free",
        ),
        Key(
            "where",
            "",
            "For a system without weights, the text of its row: where to get the weights and how "
            "to import them.",
            on_resume="free",
        ),
    ),
}
"""Sections whose entries a recipe names -> the keys of such an entry."""


def keys_of(section: str) -> tuple[Key, ...]:
    """Return the keys of a section, or of an entry of a section in `USER_NAMED_SECTIONS`."""
    if section in USER_NAMED_SECTIONS:
        return USER_NAMED_SECTIONS[section]
    return tuple(key for key in KEYS if key.name.rpartition(".")[0] == section)
