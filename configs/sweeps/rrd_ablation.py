"""Leaves out parts of RRD: arXiv 2603.04981, Table 6 (CIFAR-100, ResNet-50, 200 epochs).

    python -m experiments.sweep --sweep=configs/sweeps/rrd_ablation.py:config=configs/cifar100.py,features=clip.npz \
        --workdir=runs/rrd_ablation

The paper does not state the keep fraction; its 79.1 % is also the result at 70 % in Table 1, hence `keep=0.7`. Nor does
it state the alpha of a fixed mix; here it is 0.5. Full training and random rotation are run for comparison.

Arguments: `config`, a file in configs/ (digits); `size`, its size (cpu); `model`, for example resnet50 as in the paper;
`features`, an array file of features (pixels); `keep`, the keep fraction (0.7); `converged=1` for the recipe
`base.converged`; `seeds`.
"""

from typing import Any

from configs.sweeps import base
from dynsel_jax import options

FIXED = {"alpha_min": 0.5, "alpha_max": 0.5}
PARTS: dict[str, dict[str, Any]] = {  # with the accuracy of Table 6, in %
  "whole_method": {},  # 79.1
  "no_representativeness": {"representativeness": False},  # 78.1
  "no_diversity": {"diversity": False},  # 77.2
  "no_penalty": {"penalty": 0.0},  # 76.4
  "no_schedule": FIXED,  # 78.2
  "static": {**FIXED, "penalty": 0.0},  # 76.3
  "only_diversity": {"representativeness": False, "penalty": 0.0},  # 77.1
  "only_representativeness": {"diversity": False, "penalty": 0.0},  # 76.8
  "only_penalty": {"representativeness": False, "diversity": False},  # 78.1
  "no_full_data": {"refinement": 0.0},  # 78.3
}


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  named = {"config": "configs/digits.py", "size": "cpu", "model": ""}
  chosen = base.parse(arguments, features="", keep=0.7, converged=0, seeds=3, **named)
  if chosen["converged"] and (chosen["size"] != "cpu" or chosen["model"]):
    raise options.UserError("sweep argument 'converged=1' is of size=cpu and its own model; leave out size and model")
  points = base.methods(("full", "random"), keep_fraction=chosen["keep"])
  for name, parts in PARTS.items():
    fields = {f"selector.{option}": value for option, value in {"keep_fraction": chosen["keep"], **parts}.items()}
    points.append(base.with_features(base.Point(name, {"selector": "rrd"}, fields), chosen["features"]))
  fields = base.converged(chosen["config"]) if chosen["converged"] else {}
  return base.Sweep(base.config_of(chosen), [points, base.seeds(chosen["seeds"])], fields)
