"""Compares methods on clean and noisy labels: 0, 20 and 40 % redrawn from all classes (RRD, arXiv 2603.04981, Table 8).

    python -m experiments.sweep --sweep=configs/sweeps/label_noise.py:config=configs/cifar100.py --workdir=runs/noise

The table has ResNet-50 on CIFAR-100 with clean labels and with 20 % redrawn. At 20 % kept: RRD 64.29 and 60.33 %,
InfoBatch 56.90 and 54.49 %. At 30 % kept: RRD 75.70 and 60.86 %, InfoBatch 63.81 and 55.67 %.

Arguments: `config`, a file in configs/ (digits); `size`, its size (cpu); `model`, for example resnet50 as in the paper;
`features`, an array file of features for rrd (pixels); `keep`, the keep fraction (0.3); `rates`, the fractions of the
labels that are redrawn (0.0+0.2+0.4); `seeds`. The report shows the fraction of the trained samples with a wrong label.
"""

from configs.sweeps import base


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  named = {"config": "configs/digits.py", "size": "cpu", "model": ""}
  chosen = base.parse(arguments, features="", keep=0.3, rates="0.0+0.2+0.4", seeds=3, **named)
  rates = base.field("dataset.label_noise.rate", base.numbers("rates", chosen["rates"], float))
  axes = [base.image_points(chosen["features"], chosen["keep"]), rates, base.seeds(chosen["seeds"])]
  return base.Sweep(base.config_of(chosen), axes)
