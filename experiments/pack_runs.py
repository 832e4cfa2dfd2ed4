"""Packs all run folders in a folder into one archive, which `experiments.report` reads like a folder.

    python -m experiments.pack_runs --workdir=runs/digits_methods --out=digits_methods.tar.xz

Checkpoints, TensorBoard events and locks are left out. The same files always give the same bytes.
"""

import pathlib

from absl import flags

from dynsel_jax import options
from dynsel_jax.runs import archive
from experiments import cli


def main() -> int:
  """Writes the archive, and prints its size."""
  workdir, out = (options.expand_home(name, flags.FLAGS[name].value) for name in ("workdir", "out"))
  count = archive.pack(workdir, out)
  print(options.printable(f"{count} files, {pathlib.Path(out).stat().st_size:,} bytes: {out}"))
  return 0


if __name__ == "__main__":
  flags.DEFINE_string("workdir", None, "The folder that contains the runs, at any depth.", required=True)
  flags.DEFINE_string("out", None, f"The archive to write; its name ends with {archive.SUFFIX}.", required=True)
  cli.run(main)
