"""Methods under wrong labels: none, 20 and 40 % drawn anew over all classes (RRD, arXiv 2603.04981, Table 8: 20 %).

    python -m experiments.sweep --sweep=configs/sweeps/label_noise.py:config=configs/cifar100.py --workdir=runs/noise

The table has ResNet-50 on CIFAR-100 at 20 and 30 % kept, clean and noisy: RRD 64.29 and 60.33, 75.70 and 60.86 %,
InfoBatch 56.90 and 54.49, 63.81 and 55.67 %. `keep=0.3` is the share here, `model=resnet50` takes the paper's model.

`config` is a file of configs/, digits by default, `size` its size, cpu by default; `features` an array file for rrd,
pixels where it is not given; `rates` the shares drawn anew. The report shows which share of what was trained on had a
wrong label.
"""

from configs.sweeps import base
from dynsel_jax import options


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  named = {"config": "configs/digits.py", "size": "cpu", "model": ""}
  chosen = base.parse(arguments, features="", keep=0.3, rates="0.0+0.2+0.4", seeds=3, **named)
  try:
    rates = base.field("dataset.label_noise.rate", map(float, chosen["rates"].split("+")))
  except ValueError:
    raise options.UserError(f"sweep argument 'rates={chosen['rates']}' must be numbers joined by +") from None
  axes = [base.image_points(chosen["features"], chosen["keep"]), rates, base.seeds(chosen["seeds"])]
  return base.Sweep(base.config_of(chosen), axes)
