"""A decoder of the Llama family from random weights on your own documents, cut into pieces of 256 tokens.

The files are JSON Lines with a column `text` and, if they have one, a column `domain` as the label to balance over.
Byte pairs are learnt on the training documents, unless `dataset.tokenizer` names a `tokenizer.json`. The headline is
nats per token on the test documents, of which less is better. 10 epochs of 2.1 million tokens are 1,640 steps of 64
pieces. `size=cpu` takes minutes on two cores, `size=smoke` seconds per megabyte.

    python -m experiments.train --config=configs/pretrain_text.py:size=cpu,selector=es \
        --config.dataset.train=train.jsonl.gz --config.dataset.test=test.jsonl.gz --workdir=runs/pretrain_es

`wrap=class_balanced` keeps the domains in proportion. Nats per token of two vocabularies cannot be compared.
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  return recipes.pretraining("documents", variants)
