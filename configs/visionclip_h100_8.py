"""Train the paper's model on one host of eight H100s, with 2,048 pairs a step.

    vclip train --config configs/visionclip_h100_8.py --workdir runs/h100 \
        --config.data.source=DIR
    vclip plan --config configs/visionclip_h100_8.py --workdir runs/h100-plan --topology h100:8

DIR is SynFundus-1M as downloaded. The run scores MESSIDOR, FIVES and REFUGE every 500 steps if they
are built, and keeps the checkpoint with the least validation loss. The second command needs no GPU:
it compiles the same step and prints its memory and time.

Hardware: 8 x H100 with 80 GB. Expected: docs/performance.md has the compiler's figures.
"""

from vclip_jax import config as config_lib

PAIRS, EPOCHS = 800_000, 32  # the paper's split; Chinese-CLIP's default (the paper gives none)


def get_config(dataset: str = "synfundus"):
    config = config_lib.default()
    config.data.dataset = dataset
    config.tokenizer.vocab = "hub:hfl/chinese-roberta-wwm-ext"
    config.global_batch_size = 2048
    config.total_steps = EPOCHS * PAIRS // config.global_batch_size
    config.checkpoint_every = 500
    config.eval_batch_size = 512
    config.model.batch_norm = "device"
    config.loss.targets = "caption"
    config.eval_every = 500
    # Choose by held-out pairs: choosing by the external datasets would flatter their figures.
    config.keep_best = "eval/validation/loss"
    for name in ("messidor", "fives", "refuge"):
        config.evals[name] = config_lib.published_eval(name)
    return config
