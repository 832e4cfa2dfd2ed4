"""Varies beta1 and beta2 of ES (arXiv 2509.23461), the weights of the running score and of its difference.

    python -m experiments.sweep --sweep=configs/sweeps/evolved_betas.py:config=configs/cifar10.py --workdir=runs/betas

Full training and random rotation at 30 % are run for comparison. Arguments: `config`, a file in configs/ (digits);
`size`, its size (cpu); `selector=eswp` for ES with pruning (es); `seeds`.
"""

import itertools

from configs.sweeps import base


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  chosen = base.parse(arguments, config="configs/digits.py", size="cpu", selector="es", seeds=3)
  points = base.methods(("full", "random"), keep_fraction=0.3)
  for beta1, beta2 in itertools.product((0.0, 0.2, 0.5, 0.8), (0.5, 0.8, 0.9, 1.0)):
    points += base.methods((chosen["selector"],), beta1=beta1, beta2=beta2)
  return base.Sweep(f"{chosen['config']}:size={chosen['size']}", [points, base.seeds(chosen["seeds"])])
