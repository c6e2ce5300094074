"""Score a trained model on datasets that it was not trained on.

    vclip eval --config configs/external.py:messidor,fives,refuge \
        --workdir runs/external --model runs/quickstart \
        --config.evals.messidor.source=DIR

The names are those of `vclip datasets list`. A dataset that is neither built nor has
a source is skipped, and the run says so. `restore_from` takes a workdir, a portable folder, or
hub:OWNER/NAME; model and preprocessing are the checkpoint's.

Hardware: 2 CPU cores embed about 150 photographs a second with the quickstart's model.
"""

from vclip_jax import config as config_lib
from vclip_jax.datasets.catalog import DATASETS


def get_config(names: str = "messidor,fives,refuge"):
    config = config_lib.default()
    for name in names.split(","):
        if name not in DATASETS:
            raise ValueError(f"no dataset is called {name!r}: use {', '.join(DATASETS)}")
        dataset = DATASETS[name]
        config.evals[name] = config_lib.zero_shot_eval(name, dataset.prompts, split=dataset.split)
    return config
