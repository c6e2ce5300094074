"""VisionCLIP as in the paper: ResNet-50 at 224 px and RoBERTa-wwm-ext-base, both from random
initialisation, on SynFundus-1M by Chinese-CLIP's recipe (AdamW, 500 steps of warm-up, cosine, no
augmentation), scored on MESSIDOR, FIVES and REFUGE.

    vclip datasets build synfundus --source DIR --data-dir data
    vclip train --config configs/visionclip.py --workdir runs/visionclip

DIR is SynFundus-1M as downloaded. 400,000 steps of 64 pairs are 32 epochs of its 800,000 training
pairs: the paper does not say how many it took, and 32 is Chinese-CLIP's default. The three other
datasets are built the same way; one that is not there is skipped, and the run says at its start how
to build it. The checkpoint with the least validation loss is kept besides the newest ones.

A trial needs IDRiD's photographs alone, and takes 1,000 steps:

    vclip train --config configs/visionclip.py:idrid --workdir runs/trial \
        --config.data.source=DIR

Another dataset's name after the colon trains on that one for 1,000 steps; --config.total_steps says
how many otherwise. The vocabulary comes from the Hub; without a network,
--config.tokenizer.vocab=PATH names a vocab.txt with its 21,128 tokens.

Hardware: an accelerator for training; three steps take five minutes and 18.4 GiB on 2 CPU cores.
Expected: 140,780,385 parameters; the loss starts near ln(64) = 4.16. While the learning rate warms
up, batches differ by more than a step gains; the same 64 pairs at every step show it:
--config.data.train_split='train[:64]' --config.log_every=1 gives 4.210, 4.205, 4.163 on IDRiD.
"""

from vclip_jax import config as config_lib
from vclip_jax.datasets.catalog import DATASETS

PAIRS, EPOCHS = 800_000, 32


def get_config(dataset: str = "synfundus"):
    config = config_lib.default()
    # What the reference does on several devices, and to its initial weights.
    config.model.batch_norm = "device"
    config.model.half_init = True
    config.optimizer.gather_gradient = False
    config.data.dataset = dataset
    config.tokenizer.vocab = "hub:hfl/chinese-roberta-wwm-ext"
    if dataset == "idrid":
        config.validation_batches = 1
        config.data.validation_split = "holdout"
        config.evals.idrid = config_lib.zero_shot_eval("idrid", "zh/idrid", split="holdout")
    if dataset == "synfundus":
        config.total_steps = EPOCHS * PAIRS // config.global_batch_size
        config.checkpoint_every = 2_500
        config.eval_every = 12_500  # an epoch
        # By held-back pairs: a choice by the external datasets would make their figures too good.
        config.keep_best = "eval/validation/loss"
        for name in ("messidor", "fives", "refuge"):
            test = DATASETS[name]
            config.evals[name] = config_lib.zero_shot_eval(name, test.prompts, split=test.split)
    return config
