"""Train the paper's model on a Cloud TPU v5e pod, with 32,768 pairs a step on 256 chips.

    vclip train --config configs/visionclip_tpu_v5e_256.py --workdir runs/v5e \
        --distributed --config.data.source=DIR
    vclip plan --config configs/visionclip_tpu_v5e_256.py --workdir runs/v5e-plan \
        --topology v5e:16x16

DIR is SynFundus-1M as downloaded. `launch/tpu.sh` starts the run on a slice. The run scores
MESSIDOR, FIVES and REFUGE every 50 steps if they are built, and keeps the checkpoint with the least
validation loss. The second command needs no TPU: it compiles the same step and prints its memory
and time.

Hardware: v5e:16x16. Expected: docs/performance.md has the compiler's figures.
"""

from vclip_jax import config as config_lib

PAIRS, EPOCHS = 800_000, 32  # the paper's split; Chinese-CLIP's default (the paper gives none)


def get_config(dataset: str = "synfundus"):
    config = config_lib.default()
    config.data.dataset = dataset
    config.tokenizer.vocab = "hub:hfl/chinese-roberta-wwm-ext"
    config.global_batch_size = 32768
    config.total_steps = EPOCHS * PAIRS // config.global_batch_size
    config.optimizer.warmup_steps = 50
    config.checkpoint_every = 50
    config.eval_batch_size = 2048
    config.validation_batches = 1
    # Statistics of a chip's 128 photographs are as good as those of the whole batch.
    config.model.batch_norm = "device"
    # SynFundus often describes a condition in the same words. In a batch of this size nearly every
    # caption has a duplicate, which is not a negative.
    config.loss.targets = "caption"
    config.eval_every = 50
    # Choose by held-out pairs: choosing by the external datasets would flatter their figures.
    config.keep_best = "eval/validation/loss"
    for name in ("messidor", "fives", "refuge"):
        config.evals[name] = config_lib.published_eval(name)
    return config
