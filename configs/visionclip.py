"""VisionCLIP as in the paper: ResNet-50 at 224 px and RoBERTa-wwm-ext-base, both from random
initialisation, by Chinese-CLIP's recipe (AdamW, 500 steps of warm-up, cosine, no augmentation).

    python -m vclip_jax.main --config configs/visionclip.py --workdir runs/visionclip \
        --config.data.source=DIR --config.total_steps=STEPS

DIR is the dataset as downloaded; IDRiD's photographs are enough for a trial. The vocabulary comes
from the Hub; without a network, --config.tokenizer.vocab=PATH names a vocab.txt with its 21,128
tokens.

Hardware: an accelerator for training; a trial of three steps takes five minutes and 18.4 GiB on 2
CPU cores. Expected: 140,780,385 parameters; the loss starts near ln(64) = 4.16. While the learning
rate warms up, batches differ by more than a step gains; the same 64 pairs at every step show it:
--config.data.train_split='train[:64]' --config.log_every=1 gives 4.210, 4.205, 4.163 on IDRiD.
"""

from vclip_jax import config as config_lib


def get_config(dataset: str = "idrid"):
    config = config_lib.default()
    # What the reference does on several devices, and to its initial weights.
    config.model.batch_norm = "device"
    config.model.half_init = True
    config.optimizer.gather_gradient = False
    config.data.dataset = dataset
    config.data.validation_split = "holdout" if dataset == "idrid" else "validation"
    config.validation_batches = 1
    config.tokenizer.vocab = "hub:hfl/chinese-roberta-wwm-ext"
    if dataset == "idrid":
        config.evals.idrid = config_lib.zero_shot_eval("idrid", "zh/idrid", split="holdout")
    return config
