"""The methods side by side on CIFAR-10, 30 % kept by those that keep an exact share, three seeds each.

    python -m experiments.sweep --sweep=configs/sweeps/cifar10_methods.py:features=clip.npz \
        --workdir=runs/cifar10_methods

`features` is an array file for rrd (see `dynsel_jax/features/file.py`); without it rrd reads pixels. `:seeds=N` takes
another number of seeds, `:size=full` the paper's recipe instead of the one for two CPU cores, `:epochs=N` another
length.
"""

from configs.sweeps import base


def get_sweep(arguments: str = "") -> base.Sweep:
  """Returns the sweep; `arguments` as above."""
  return base.image_methods("configs/cifar10.py", arguments)
