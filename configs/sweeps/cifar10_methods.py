"""Compares ten methods and ESWP on CIFAR-10, three seeds each; methods with a keep fraction keep 30 %.

    python -m experiments.sweep --sweep=configs/sweeps/cifar10_methods.py:features=clip.npz \
        --workdir=runs/cifar10_methods

Arguments: `features`, an array file of features for rrd, see `dynsel_jax/features/file.py` (pixels); `size=full` for
the paper's recipe (cpu); `epochs` (the recipe's); `seeds`.
"""

from configs.sweeps import base


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  return base.image_methods("configs/cifar10.py", arguments)
