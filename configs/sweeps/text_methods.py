"""Compares methods for fine-tuning a text classifier: full training, random subsets, InfoBatch, ES and RRD.

RRD's paper (arXiv 2603.04981, App. C) trains on one fixed subset of RSD-15K; here RRD selects anew in every epoch.

    python -m experiments.sweep --sweep=configs/sweeps/text_methods.py:train=train.jsonl.gz,test=test.jsonl.gz \
        --workdir=runs/banking77_methods

Arguments: `train`, `test` and, if there is one, `validation`, files of yours; `config`, a file in configs/ (banking77);
`size`, its size (cpu); `keep`, the keep fraction of the methods that have one (0.3); `seeds`.
"""

from configs.sweeps import base

METHODS = ("full", "random", "random_static", "infobatch", "es", "rrd")


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  files = {"train": "", "test": "", "validation": ""}
  chosen = base.parse(arguments, config="configs/banking77.py", size="cpu", keep=0.3, seeds=3, **files)
  fields = {f"dataset.{split}": chosen[split] for split in files if chosen[split]}
  axes = [base.methods(METHODS, keep_fraction=chosen["keep"]), base.seeds(chosen["seeds"])]
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", axes, fields)
