"""Train on a changing subset of the data: methods of dynamic data selection for any training loop.

    import dynsel_jax

    sampler = dynsel_jax.Sampler("infobatch", num_samples=len(x), epochs=30, batch_size=128, seed=0)
    for epoch in sampler.epochs():
      for index, weight in epoch:
        losses = train_step(x[index], y[index], weight)  # one loss for each sample
        sampler.observe(index, losses)

`METHODS` lists the methods. Inside `jax.jit` the same is done by pure functions: `create` builds a selector for a
`SampleTable`, `order` makes a `Plan` of its `Selection`, `batch_of` slices a batch out of it, `weighted_mean` is the
loss of the batch, and `signals` is what the selector observes.

On a GPU jax 0.11 may crash in a residual network unless `XLA_FLAGS` has `--xla_gpu_enable_triton_gemm=false` before JAX
is first asked for its devices. The commands of `experiments` set it; a program of your own does so itself, see
docs/gpu.md.
"""

from dynsel_jax.batching import batch_of, epoch_keys, order, signals, weighted_mean
from dynsel_jax.options import UserError
from dynsel_jax.sampler import Sampler
from dynsel_jax.selectors import METHODS, create
from dynsel_jax.selectors.wrappers import WRAPPERS
from dynsel_jax.types import Plan, SampleTable, Selection, Selector, Signals

__all__ = [
  "METHODS",
  "WRAPPERS",
  "Plan",
  "SampleTable",
  "Sampler",
  "Selection",
  "Selector",
  "Signals",
  "UserError",
  "__version__",
  "batch_of",
  "create",
  "epoch_keys",
  "order",
  "signals",
  "weighted_mean",
]

__version__ = "0.2.0"
