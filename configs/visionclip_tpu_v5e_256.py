"""VisionCLIP on a Cloud TPU v5e pod: the paper's model, 32,768 pairs a step on 256 chips.

    vclip train --config configs/visionclip_tpu_v5e_256.py --workdir runs/v5e \
        --distributed --config.data.source=DIR
    vclip plan --config configs/visionclip_tpu_v5e_256.py --workdir runs/v5e-plan \
        --topology v5e:16x16

DIR is SynFundus-1M as downloaded; `launch/tpu.sh` starts it on a slice. MESSIDOR, FIVES and REFUGE
are scored every 50 steps where they are built, and the checkpoint with the least validation loss is
kept. The second command needs no TPU: it compiles the same step and says what it needs.

Hardware: v5e:16x16. Expected: see docs/performance.md, which has the compiler's figures.
"""

from vclip_jax import config as config_lib
from vclip_jax.datasets.catalog import DATASETS

PAIRS, EPOCHS = 800_000, 32  # the paper's split; Chinese-CLIP's default, as the paper names none


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
    # A chip's part, 128 photographs, has statistics as good as the whole batch's.
    config.model.batch_norm = "device"
    # SynFundus describes one condition in the same words again and again: in a batch of this size
    # nearly every caption has a twin, which is no negative.
    config.loss.targets = "caption"
    config.eval_every = 50
    # By held-back pairs: a choice by the external datasets would make their figures too good.
    config.keep_best = "eval/validation/loss"
    for name in ("messidor", "fives", "refuge"):
        test = DATASETS[name]
        config.evals[name] = config_lib.zero_shot_eval(name, test.prompts, split=test.split)
    return config
