"""Compares RRD under the rules by which a latent counts as active, and after shorter and longer fits.

    python -m experiments.sweep --sweep=configs/sweeps/factor_rules.py:config=configs/digits.py \
        --workdir=runs/factor_rules

arXiv 2603.04981, App. A, keeps the latents with the largest absolute values and calls those above 0 active, which
leaves half of the active latents to the chance of their signs. The autoencoder's seed is the run's, so that a deviation
over seeds contains that of the factors; `experiments.studies.factor_stability` measures how far the scores agree. Full
training and random rotation are run for comparison.

Arguments: `config`, a file in configs/ (digits); `size`, its size (cpu); `features`, an array file of features
(pixels); `keep`, the keep fraction (0.3); `lengths=N+N`, epochs of the autoencoder's fit (the recipe's); `epochs` (the
recipe's); `seeds`.
"""

from typing import Any

from configs.sweeps import base

RULES: dict[str, dict[str, Any]] = {
  "literal": {"factors.orient": False},
  "oriented": {},  # the default
  "nonzero": {"factors.active": "nonzero"},
  "value": {"factors.topk": "value"},
}


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(
    arguments, config="configs/digits.py", size="cpu", features="", keep=0.3, lengths="", epochs=0, seeds=3
  )
  points = base.methods(("full", "random"), keep_fraction=chosen["keep"])
  for length in base.numbers("lengths", chosen["lengths"], int) if chosen["lengths"] else [0]:  # 0: the recipe's
    fitted = {"factors.epochs": length} if length else {}
    for name, rule in RULES.items():
      fields = {"selector.keep_fraction": chosen["keep"], **fitted, **rule}
      point = base.Point(name + f"_fit{length}" * bool(length), {"selector": "rrd"}, fields)
      points.append(base.with_features(point, chosen["features"]))
  recipe = {"epochs": chosen["epochs"]} if chosen["epochs"] else {}
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", [points, base.seeds(chosen["seeds"])], recipe)
