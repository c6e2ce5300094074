"""Score the five systems of the paper's Table 1 on the same images of three datasets.

    vclip eval --config configs/table1.py --workdir runs/table1 \
        --config.evals.messidor.source=DIR --config.systems.visionclip.weights=runs/visionclip

Weights are workdirs, portable folders or hub:OWNER/NAME. Import the weights of other systems once
(`vclip weights import`). For a system without weights, the row says where to get them. A dataset
that is neither built nor has a source has no column. `:NAME,NAME` after the config's name chooses
other datasets. For your own built dataset, all systems are asked for the classes by their names.

Hardware: 2 CPU cores embed about ten photographs a second with each published model.
Expected: the table shows the paper's accuracies beside ours.
"""

from vclip_jax import config as config_lib

IMPORT = "vclip weights import --format {} --source FILE --out FOLDER"


def get_config(names: str = "messidor,fives,refuge"):
    config = config_lib.default()
    for name in names.split(","):
        config.evals[name.partition("/")[0]] = config_lib.published_eval(name)
    flair = f"FLAIR's flair_resnet.pth (github.com/jusiro/FLAIR), {IMPORT.format('flair')}"
    config.systems.clip = config_lib.system(
        prompts="en",
        where=f"huggingface.co/openai/clip-vit-base-patch32, {IMPORT.format('hf_clip')}",
    )
    config.systems.biomedclip = config_lib.system(
        prompts="en",
        where="huggingface.co/microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224, "
        f"{IMPORT.format('open_clip')}",
    )
    config.systems.flair = config_lib.system(prompts="flair", where=flair)
    config.systems.flair_ek = config_lib.system(prompts="flair_ek", where=flair)
    config.systems.visionclip = config_lib.system(
        prompts="zh", where="train it: configs/visionclip.py"
    )
    return config
