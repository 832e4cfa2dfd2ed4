"""What tests share: small runs, a simulation without a model, made-up folders and image sets, reference outputs."""

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
