"""VisionCLIP on a Cloud TPU v5e pod: the paper's model, 32,768 pairs a step on 256 chips.

    python -m vclip_jax.main --config configs/visionclip_tpu_v5e_256.py --workdir runs/v5e \
        --distributed --config.data.source=DIR
    python -m vclip_jax.main --config configs/visionclip_tpu_v5e_256.py --workdir runs/v5e-plan \
        --mode compile --topology v5e:16x16

DIR is SynFundus-1M as downloaded; `launch/tpu.sh` starts it on a slice. The second command needs no
TPU: it compiles the same step and says what it needs.

Hardware: v5e:16x16. Expected: see docs/performance.md, which has the compiler's figures.
"""

from vclip_jax import config as config_lib


def get_config(dataset: str = "synfundus"):
    config = config_lib.default()
    config.data.dataset = dataset
    config.tokenizer.vocab = "hub:hfl/chinese-roberta-wwm-ext"
    config.global_batch_size = 32768
    config.total_steps = 781  # 32 epochs of 800,000
    config.optimizer.warmup_steps = 50
    config.checkpoint_every = 50
    config.eval_batch_size = 2048
    config.validation_batches = 1
    # A chip's part, 128 photographs, has statistics as good as the whole batch's.
    config.model.batch_norm = "device"
    # SynFundus describes one condition in the same words again and again: in a batch of this size
    # nearly every caption has a twin, which is no negative.
    config.loss.targets = "caption"
    return config
