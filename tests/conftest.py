"""Test session: four CPU devices, strict promotion, no key used twice, a compilation cache that the workers share.

`JAX_PLATFORMS=cuda,cpu XLA_PYTHON_CLIENT_PREALLOCATE=false make test` runs it on a GPU.
"""

import gc
import importlib.metadata
import os

from tests.support import ROOT

# Tracing makes many objects. To look for cycles among them as often as Python does took a tenth of the time.
gc.set_threshold(10_000, 20, 20)

# Before JAX starts. Subprocesses of a test inherit them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
if os.environ["JAX_PLATFORMS"] == "cpu":
  # The tests' arrays are small: nearly all of their time is compilation, which these flags shorten. The second has each
  # program made in one part: by default LLVM makes up to 32, each with its own copy of what they share, which pays on
  # many cores alone. A process ends at a flag that its XLA does not know, and jaxlib 0.12 does not know the third.
  emitters = " --xla_cpu_use_fusion_emitters=false" if importlib.metadata.version("jaxlib") < "0.11" else ""
  os.environ.setdefault(
    "XLA_FLAGS", f"--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1{emitters}"
  )
else:  # the same bits in each run, as a CPU gives them; and see experiments/cli.py
  os.environ.setdefault("XLA_FLAGS", "--xla_gpu_deterministic_ops=true --xla_gpu_enable_triton_gemm=false")
  os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")  # float32, where the default is TF32 or bfloat16

import jax  # noqa: E402
import pytest  # noqa: E402

from dynsel_jax.training import parallel  # noqa: E402

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_debug_key_reuse", True)  # a key drawn from twice is an error, also across two calls of a program
if os.environ["JAX_PLATFORMS"] != "cpu":
  parallel.STEPS_PER_CALL = 1  # a run can be stopped between any two steps, as the tests do

# The files that take longest. They come first, or the last of them would run alone, beside an idle worker.
LONG = ("make", "processes", "sweep", "resume", "wrapper_product", "configs", "sampler", "faults", "buckets")


def pytest_collection_modifyitems(items):
  place = {f"test_{name}": number for number, name in enumerate(LONG)}
  items.sort(key=lambda item: place.get(item.path.stem, len(LONG)))


def pytest_collection_finish():
  gc.collect()
  gc.freeze()  # what was imported stays


@pytest.fixture(autouse=True, scope="module")
def programs_are_let_go():
  """A compiled program holds memory mappings, of which Linux gives a process 65,530: one that asks for more crashes."""
  yield
  jax.clear_caches()
  gc.collect()
