"""The frontier of plain training and the methods beside it: what selection has to beat at its own cost.

Plain runs of several lengths, and methods at two budgets each, all at every learning rate of a grid. A method with a
keep fraction runs for the longest length at each of `keep`; one without runs for the longest length and for half of it.
The learning rate of each is chosen on the validation set, see `dynsel_jax/report/frontier.py`. The recipe is
`base.converged` on a set of `experiments/held_out.py`.

    python -m experiments.frontier --sweep=configs/sweeps/frontier.py:set=cifar10,features=cifar10.npz \
        --workdir=runs/frontier/cifar10

`experiments.frontier` tunes on a few seeds and trains the others at the chosen rate alone; `experiments.sweep` makes
all runs. Both continue what they find.

Arguments: `set`, one of cifar10, cifar100, digits, fashion_mnist; `lengths`, epochs of the plain runs; `rates`,
learning rates; `keep`, keep fractions; `methods`, in place of all; `seeds`; `features`, an array file of features for
rrd, a row for each training sample that is not held out (pixels); `noise`, the fraction of labels that are redrawn;
`imbalance`, `duplicates` and `data_dir`, see `experiments/held_out.py`. Values are joined by +.
"""

from typing import Any

from configs.sweeps import base
from dynsel_jax import options

METHODS = ("random", "rs2", "infobatch", "es", "stale_es", "eswp", "kakurenbo", "ucb", "rcap", "rrd", "proxy")
SETS = ("cifar10", "cifar100", "digits", "fashion_mnist")


def _fields(chosen: dict[str, Any]) -> dict[str, Any]:
  """Returns the fields that all runs have."""
  fields = base.converged(f"configs/{chosen['set']}.py") | {"checkpoint_every_steps": 0}
  del fields["epochs"]  # each point has its own
  if chosen["set"] == "digits":
    fields["dataset.augmentations"] = ()
  faults = {"dataset.label_noise.rate": chosen["noise"], "dataset.duplicates": chosen["duplicates"]}
  return fields | faults | {f"dataset.{name}": chosen[name] for name in ("imbalance", "data_dir")}


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  named = {"set": "cifar10", "lengths": "3+6+12+18+30", "rates": "0.05+0.1+0.2+0.4", "keep": "0.3+0.5"}
  faults = {"noise": 0.0, "imbalance": 1.0, "duplicates": 0.0}
  chosen = base.parse(arguments, **named, **faults, methods="+".join(METHODS), seeds=3, features="", data_dir="")
  options.check_choice("sweep argument set", chosen["set"], SETS)
  lengths = base.numbers("lengths", chosen["lengths"], int)
  plain = base.budgets(["full"], [], lengths)
  names = [name for name in chosen["methods"].split("+") if name]
  keep, longest = base.numbers("keep", chosen["keep"], float), max(lengths)
  methods = base.budgets(names, keep, (longest, max(1, longest // 2)), chosen["features"])
  rates = base.field("learning_rate", base.numbers("rates", chosen["rates"], float))
  config = f"configs/{chosen['set']}.py:size=cpu,dataset=experiments.held_out:{chosen['set']}"
  return base.Sweep(config, [[*plain, *methods], rates, base.seeds(chosen["seeds"])], _fields(chosen))
