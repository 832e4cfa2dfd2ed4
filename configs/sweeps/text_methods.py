"""Methods in fine-tuning a text classifier: plain training, 30 % by chance, fixed and fresh, InfoBatch, ES and RRD.

RRD (arXiv 2603.04981, App. C) takes one subset of RSD-15K before training; this is the dynamic selection beside it.

    python -m experiments.sweep --sweep=configs/sweeps/text_methods.py:train=train.jsonl.gz,test=test.jsonl.gz \
        --workdir=runs/banking77_methods

`config` is a file of configs/, banking77 by default, `size` its size, cpu by default; `train`, `test` and, where the
set has one, `validation` your files; `keep` the share of those that keep an exact one.
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
