"""What selection saves and loses on digits: full training, random, InfoBatch and RRD, three seeds each.

    python -m experiments.sweep --sweep=configs/sweeps/demo.py --workdir=runs/demo
    python -m experiments.report --workdir=runs/demo

`make demo` does both. Arguments: `seeds`, `epochs`.
"""

from configs.sweeps import base


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, seeds=3, epochs=15)
  # On so small a set the autoencoder's default of 50 epochs would take longer than all else.
  rrd = base.Point("rrd", {"selector": "rrd"}, {"factors.epochs": 20})
  axes = [[*base.methods(("full", "random", "infobatch")), rrd], base.seeds(chosen["seeds"])]
  fixed = {"epochs": chosen["epochs"], "checkpoint_every_steps": 0}
  return base.Sweep("configs/digits.py", axes, fixed)
