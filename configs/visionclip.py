"""Train VisionCLIP as in the paper and score it on MESSIDOR, FIVES and REFUGE.

The towers are ResNet-50 at 224 px and RoBERTa-wwm-ext-base, both from random initialisation. The
data is SynFundus-1M, the recipe Chinese-CLIP's: AdamW, 500 steps of warm-up, cosine, no
augmentation.

    vclip datasets build synfundus --source DIR --data-dir data
    vclip train --config configs/visionclip.py --workdir runs/visionclip

DIR is SynFundus-1M as downloaded. 400,000 steps of 64 pairs are 32 epochs of its 800,000 training
pairs. The paper does not give the number of epochs; 32 is Chinese-CLIP's default. Build the three
other datasets the same way. The run skips a missing dataset, and says at its start how to build it.
It keeps the newest checkpoints and the one with the least validation loss.

A trial of 1,000 steps needs only IDRiD's photographs:

    vclip train --config configs/visionclip.py:idrid --workdir runs/trial \
        --config.data.source=DIR

The name of another dataset after the colon trains on that dataset for 1,000 steps;
--config.total_steps sets another number. The vocabulary comes from the Hub. Without a network, set
--config.tokenizer.vocab=PATH to a vocab.txt with its 21,128 tokens.

Hardware: an accelerator for training; three steps take five minutes and 18.4 GiB on 2 CPU cores.
Expected: 140,780,385 parameters. The loss starts near ln(64) = 4.16. During warm-up, batches differ
by more than a step gains. To see the loss fall, train on the same 64 pairs at every step:
--config.data.train_split='train[:64]' --config.log_every=1 gives 4.210, 4.205, 4.163 on IDRiD.
"""

from vclip_jax import config as config_lib

PAIRS, EPOCHS = 800_000, 32


def get_config(dataset: str = "synfundus"):
    config = config_lib.default()
    # Follow the reference on several devices and for initial weights.
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
        # Choose by held-out pairs: choosing by the external datasets would flatter their figures.
        config.keep_best = "eval/validation/loss"
        for name in ("messidor", "fives", "refuge"):
            config.evals[name] = config_lib.published_eval(name)
    return config
