"""Factors of the data: a sparse autoencoder (SAE) over features, statistics of its codes, and scores of samples."""

from dynsel_jax.options import needs

with needs(__name__, "dynsel_jax[train]"):
  from dynsel_jax.factors.fit import SAE, fit_sae
  from dynsel_jax.factors.quality import Quality, encode_all
  from dynsel_jax.factors.sae import Codes
  from dynsel_jax.factors.scores import columns
  from dynsel_jax.factors.statistics import FactorStatistics, factor_statistics

__all__ = ["SAE", "Codes", "FactorStatistics", "Quality", "columns", "encode_all", "factor_statistics", "fit_sae"]
