"""The configuration: every key with its default, and how a run keeps it.

A recipe in `configs/` is `config = default()`, then what differs. Any key can be set on the command
line, `--config.data.image_size=224`; a key that does not exist is refused, as is whatever else
`config_checks` finds.
"""

from ml_collections import ConfigDict

from vclip_jax.data.images.statistics import IMAGE_MEAN, IMAGE_STD


def default() -> ConfigDict:
    """The full configuration of the paper's recipe (Chinese-CLIP's defaults), data aside."""
    config = ConfigDict()
    config.seed = 0
    config.total_steps = 1000
    config.global_batch_size = 64
    # Parts in which a device encodes its share of the batch, for batches that do not fit otherwise.
    # Loss and gradients are the whole batch's, for one more forward pass; batch statistics are each
    # part's.
    config.micro_batches = 1
    config.log_every = 10
    config.checkpoint_every = 500
    config.keep_checkpoints = 2
    # A metric by which one more checkpoint is kept, the best so far, such as
    # "eval/validation/loss"; "" for none. An evaluation is always preceded by a checkpoint.
    config.keep_best = ""
    # What a checkpoint that cannot be written, because the disk is full, does to the run: "stop",
    # or "continue" without it.
    config.checkpoint_errors = "stop"
    # Seconds from SIGTERM until a run ends even if it could not save: less than the grace period of
    # whoever sends it (GKE gives 120 here, most spot machines 30).
    config.preemption_seconds = 100.0
    # An update whose loss or gradients are not finite is skipped; so many in a row end the run.
    config.max_skipped = 10
    # Steps between evaluations; 0 evaluates at the end only.
    config.eval_every = 0
    config.eval_batch_size = 64
    # With --mode eval, measure every checkpoint that is left (see keep_checkpoints), not the newest
    # alone: the learning curve of the zero-shot figures.
    config.eval_all_checkpoints = False
    # Resamples behind the intervals of zero-shot figures, a second for 1744 images; 0 for none.
    config.bootstrap_resamples = 10_000
    # Heat maps over the report's examples, when a run ends: of each dataset's eight photographs
    # they take as long as scoring some two hundred.
    config.heat_maps = True
    # Batches of the validation split whose loss and retrieval are measured; 0 for none. Its pairs
    # are drawn, always the same ones, wherever they are stored.
    config.validation_batches = 8
    # Where the run can be watched beside metrics.jsonl: any of "tensorboard", "wandb" and "mlflow",
    # each a package to be installed. On the command line: --config.trackers="('tensorboard',)".
    config.trackers = ()
    # How many photographs of the first batch and of the validation split they show, with their
    # captions; 0 shows no photograph and no caption.
    config.tracker_samples = 0
    # A workdir whose weights start this run at step 0, or are evaluated; or a portable folder of
    # `vclip_jax.interop` (of a text tower alone, the image tower stays random). The vocabulary is
    # taken from there, too.
    config.restore_from = ""
    # Which checkpoint of that workdir: "latest", "best" (of a run with keep_best), or a step.
    config.restore_step = "latest"
    # Take the optimizer's state from there as well; the learning rate schedule starts anew.
    config.restore_optimizer = False
    # The type of the computation; "auto" is bfloat16 on accelerators and float32 on CPUs.
    config.compute_dtype = "auto"

    # A trace of so many steps, after the first ones of this start, for TensorBoard or XProf goes to
    # WORKDIR/profile.
    config.profile = ConfigDict()
    config.profile.first = 10
    config.profile.steps = 0

    config.data = ConfigDict()
    # NAME or NAME/CONFIG, for example idrid or synthetic/synfundus_like-128px-12000-s0.
    config.data.dataset = ""
    # The folder of the dataset as downloaded, if it has yet to be built.
    config.data.source = ""
    config.data.data_dir = "data"
    config.data.train_split = "train"
    config.data.validation_split = "validation"
    # The pairs whose loss and retrieval are measured when a run ends and not before; "" for none.
    config.data.test_split = ""
    config.data.image_size = 224
    # How a photograph becomes a square: "squash" (the recipe), "pad", "fundus" (crop to the
    # illuminated field, then pad), "flair" (pad at the right or below), or "centre_crop" (CLIP's).
    config.data.fit = "squash"
    # Channel statistics of RGB in [0, 1], which are removed (the recipe's are OpenAI CLIP's).
    config.data.image_mean = IMAGE_MEAN
    config.data.image_std = IMAGE_STD
    # "exact" resizes pixel for pixel as the recipe does; "fast" resizes with OpenCV and, in
    # training, scales JPEGs while it decodes them, in a third of the time or less. It differs by
    # less than one level of 255 on average. Whatever evaluates or answers decodes in full.
    config.data.decode = "exact"
    # Local contrast instead of colours (`vclip_jax.data.images.enhance`): all cameras look alike.
    config.data.enhance = False
    # A policy of `vclip_jax.data.images.augment`: "recipe" (none), "fundus" (strong) or "geometry";
    # or "chinese_clip", the reference's own (`chinese_clip_augment` beside it), off by default
    # there.
    config.data.augment = "recipe"
    # The order of training: a "permutation" for each epoch (`vclip_jax.data.order`), or "grain",
    # the weaker shuffle of runs from before, which they keep when they are continued.
    config.data.shuffle = "permutation"
    # Processes that make training batches, on each host and for each trainer: 0 for none, -1 for
    # as many as help (`vclip_jax.data.workers`): none on fewer than 8 cores.
    config.data.workers = -1
    # Threads that do so where there are no such processes: 0 for one a core, at most 16.
    config.data.threads = 0

    config.tokenizer = ConfigDict()
    # "captions" makes a small vocabulary from the training captions; otherwise the path of a
    # vocab.txt, or hub:REPOSITORY.
    config.tokenizer.vocab = "captions"
    config.tokenizer.context_length = 52
    # The share of the captions' tokens that a vocabulary may lack: all that it lacks is one token,
    # so a run with more is refused.
    config.tokenizer.max_unknown = 0.1

    config.model = ConfigDict()
    config.model.embed_dim = 1024
    # Four stages make a ResNet; one number, as in (12,), makes a Vision Transformer.
    config.model.vision_layers = (3, 4, 6, 3)
    # They are "clip"'s (the recipe), or those of "imagenet": torchvision's ResNet, timm's ViT.
    config.model.vision_kind = "clip"
    # Of Vision Transformers and CLIP's text tower: "quick_gelu" (OpenAI) or "gelu".
    config.model.activation = "quick_gelu"
    config.model.vision_width = 64
    config.model.vision_patch_size = 16
    # Batch statistics of the "global" batch, or of each "device"'s part (the recipe, whose running
    # statistics are the first device's).
    config.model.batch_norm = "global"
    # Round the initial weights through float16, as the recipe does on its way.
    config.model.half_init = False
    # How the image's positions become one vector: "attention" (the recipe) or "mean".
    config.model.vision_pool = "attention"
    # "bert" (the recipe), or "clip", CLIP's own causal Transformer.
    config.model.text_kind = "bert"
    config.model.text_width = 768
    config.model.text_layers = 12
    config.model.text_heads = 12
    config.model.text_mlp_width = 3072
    config.model.text_max_positions = 512
    config.model.text_dropout = 0.1
    # Standard deviation of the text tower's initial weights; BERT's 0.02 is meant for width 768.
    config.model.text_initializer_range = 0.02
    # What stands for a caption: "first", the [CLS] token (the recipe), "mean", "layers" (FLAIR's
    # mean over three layers too), or "end", which CLIP's own text tower needs.
    config.model.text_pool = "first"
    # From there into the common space: "linear" (the recipe), or "mlp" (BiomedCLIP).
    config.model.text_projection_kind = "linear"
    # Whiten the output projections on that many training pairs before the first step (see
    # `vclip_jax.train.whitening`); 0 leaves them at random (the recipe).
    config.model.whiten_pairs = 0

    # What each tower keeps for its gradients, and what it computes a second time to save memory:
    # "none" keeps all; "norms" the image tower's convolutions, what it pools and what goes from
    # block to block; "products" the text tower's matrix products, not what is made of them;
    # "blocks" what goes from block to block.
    config.remat = ConfigDict()
    config.remat.image = "none"
    config.remat.text = "none"

    # Compile one of BERT's layers rather than all: a start that is faster, steps that are slower.
    config.scan_text_layers = False

    config.loss = ConfigDict()
    # "softmax" (the recipe) or "sigmoid", see `vclip_jax.models.losses`; with "_ring" the same
    # numbers from texts that go round the devices, for batches whose b x b logits do not fit
    # otherwise.
    config.loss.kind = "softmax"
    # What belongs to an image: the text of its own "pair" (the recipe), or all texts of the same
    # "caption", as captions repeat.
    config.loss.targets = "pair"
    # The share of the target that is spread over the batch.
    config.loss.label_smoothing = 0.0

    config.optimizer = ConfigDict()
    config.optimizer.learning_rate = 5e-4
    config.optimizer.warmup_steps = 500
    config.optimizer.beta1 = 0.9
    config.optimizer.beta2 = 0.999
    config.optimizer.epsilon = 1e-8
    config.optimizer.weight_decay = 0.2
    # Parameters whose path holds one of these words are not decayed. The recipe's words leave
    # BERT's LayerNorm scales, the shortcuts' norm scales and all embeddings decayed; what is usual
    # elsewhere is ("bias", "scale", "embedding").
    config.optimizer.no_decay = ("bn", "ln", "bias", "logit_scale")
    # Whether embeddings of other devices carry gradient. The recipe's do not unless it is told so,
    # which divides the towers' gradients, not the logit scale's, by the number of devices.
    config.optimizer.gather_gradient = True
    # Keep the logit scale in [1, 100] by clipping the parameter "after_step" (the recipe), or
    # what the "forward" pass makes of it.
    config.optimizer.clamp = "after_step"
    # (regular expression over parameter paths, factor): the first found scales the learning rate.
    config.optimizer.learning_rate_factors = ()
    # 0 does not clip.
    config.optimizer.clip_grad_norm = 0.0

    config.mesh = ConfigDict()
    # Devices along the axis that shards parameters; the others replicate them.
    config.mesh.fsdp = 1
    # (regular expression over the paths of the train state, "replicate" or "fsdp"), first wins.
    config.mesh.rules = ((".*", "fsdp"),)

    # NAME -> what `zero_shot_eval` returns.
    config.evals = ConfigDict()
    # NAME -> what `system` returns: models that `--mode eval` scores side by side.
    config.systems = ConfigDict()
    return config


def small() -> ConfigDict:
    """`default` with towers that 2 CPU cores train in minutes, for fundus photographs.

    A million parameters at 128 px. Short runs need a start that tells captions apart (mean
    pooling, larger initial weights, whitened projections), and images without camera.
    """
    config = default()
    config.data.image_size = 128
    config.data.fit = "fundus"
    config.data.decode = "fast"
    config.data.enhance = True
    config.data.augment = "geometry"

    config.model.embed_dim = 256
    config.model.vision_layers = (1, 1, 1, 1)
    config.model.vision_width = 16
    config.model.vision_pool = "mean"
    config.model.text_width = 128
    config.model.text_layers = 2
    config.model.text_heads = 4
    config.model.text_mlp_width = 256
    config.model.text_max_positions = 64
    config.model.text_dropout = 0.0
    config.model.text_initializer_range = 0.08
    config.model.text_pool = "mean"
    config.model.whiten_pairs = 480

    config.optimizer.learning_rate = 3e-3
    config.optimizer.warmup_steps = 20
    config.optimizer.beta2 = 0.98
    config.optimizer.weight_decay = 0.1
    config.optimizer.clip_grad_norm = 1.0
    return config


def zero_shot_eval(dataset: str, prompts: str, *, split: str = "test", source: str = ""):
    """The entry of one zero-shot evaluation in `config.evals`.

    Args:
        dataset: a name as in `config.data.dataset`.
        prompts: a prompt set, `zh/messidor` or the path of a JSON file; or "labels", the names of
            the dataset's classes as they are.
        split: which split is scored.
        source: the dataset as downloaded, if it has yet to be built. A dataset that is neither
            built nor has a source is skipped, and the run says so.
    """
    return ConfigDict({"dataset": dataset, "prompts": prompts, "split": split, "source": source})


def system(weights: str = "", *, prompts: str = "zh", where: str = ""):
    """The entry of one model in `config.systems`.

    Args:
        weights: as `config.restore_from`. A system without weights is a row that says so.
        prompts: the folder of its prompt sets, `zh`, `en`, `flair` or `flair_ek`; the set of each
            evaluation is taken from there.
        where: for the row of a system without weights: where to get them, and how to import them.
    """
    return ConfigDict({"weights": weights, "prompts": prompts, "where": where})


NAMED = {"evals": zero_shot_eval("", ""), "systems": system()}
"""Sections whose keys are names that the recipe gives, and what an entry looks like."""
