"""Reference outputs of `tests/oracles`, whose README says where each number comes from."""

import numpy as np

from tests.support import ROOT

__all__ = ["load"]


def load(name, case=None):
  """Returns the arrays of `NAME.npz` by their names; those of one case alone, without its prefix, where it is given."""
  with np.load(ROOT / "tests" / "oracles" / f"{name}.npz") as file:
    prefix = "" if case is None else f"{case}_"
    return {key.removeprefix(prefix): file[key] for key in file.files if key.startswith(prefix)}
