"""Tables, plots and pages about finished runs. Host-side; reads the files that commands leave behind, nothing else."""

from dynsel_jax.options import needs

with needs(__name__, "dynsel_jax[report]"):
  import matplotlib  # noqa: F401
