"""The offline stage by itself: its files, its report, what it shares with a run, and an autoencoder for other data."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest

from configs import digits
from dynsel_jax import data, factors, options
from dynsel_jax.factors import sae_file
from dynsel_jax.offline import factor_stage
from dynsel_jax.report import factor_page
from dynsel_jax.runs import timing
from experiments import fit_factors
from tests.support import small_runs


@pytest.fixture(autouse=True, scope="module")
def _standard_promotion():
  """optax's Adam mixes a count of steps with floats."""
  with jax.numpy_dtype_promotion("standard"):
    yield


def _config(folder, **changes):
  return small_runs.config(
    "rrd", cache_dir=str(folder / "cache"), features__components=16, factors__epochs=5, factors__k=4, **changes
  )


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
  """Returns the workspace, whose folder `report` holds the files, and what the command returned."""
  workspace = tmp_path_factory.mktemp("factors")
  return workspace, fit_factors.fit_factors(_config(workspace), workspace / "report")


def _arrays(path):
  with np.load(path, allow_pickle=False) as file:
    return dict(file.items())


def test_files_hold_what_the_autoencoder_in_them_gives(fitted):
  workspace, summary = fitted
  counted, source = _arrays(workspace / "report" / "factors.npz"), data.load("digits")
  sae, k, topk = sae_file.read_sae(str(workspace / "report" / "sae.npz"))
  assert (k, topk, sae.params.W_enc.shape) == (4, "absolute", (64, 16))
  found = factor_stage.Stage(_config(workspace), source, timing.Timers()).features
  codes = factors.encode_all(*sae, jnp.asarray(found), k=k, topk=topk)
  active = np.zeros((1442, 64), bool)
  np.put_along_axis(active, np.asarray(codes.indices), np.asarray(codes.values) > 0, axis=1)
  np.testing.assert_array_equal(counted["firing_frequency"], active.sum(axis=0))
  by_class = [active[source.labels == label].any(axis=0) for label in range(10)]
  np.testing.assert_array_equal(counted["class_spread"], np.sum(by_class, axis=0))
  assert summary["mean_l0"] == pytest.approx(active.sum(axis=1).mean())
  assert summary["dead_fraction"] == pytest.approx(np.mean(~active.any(axis=0)))
  assert sum(summary["firing_fraction_counts"]) == 64
  expected = np.corrcoef(counted["representativeness"], counted["rarity"])[0, 1]
  assert summary["correlation"]["pearson"] == pytest.approx(expected, abs=1e-4)
  assert json.loads((workspace / "report" / "factors.json").read_text())["fvu"] == summary["fvu"]


def test_a_run_finds_the_stage_in_the_cache(fitted, tmp_path):
  workspace, _ = fitted
  timers = timing.Timers()
  columns = factor_stage.Stage(_config(workspace), data.load("digits"), timers).columns
  assert timers.seconds()["features"] == timers.seconds()["factors"] == 0
  counted = _arrays(workspace / "report" / "factors.npz")
  for name in factor_stage.COLUMNS:
    np.testing.assert_array_equal(columns[name], counted[name])


def test_the_report_shows_factors_by_how_often_they_fire(fitted):
  workspace, _ = fitted
  folder = workspace / "report"
  shown, frequency = _arrays(folder / "examples.npz"), _arrays(folder / "factors.npz")["firing_frequency"]
  firing = np.sort(frequency[frequency > 0])
  np.testing.assert_array_equal(frequency[shown["common_latents"]], firing[::-1][:12])
  np.testing.assert_array_equal(frequency[shown["rare_latents"]], firing[:12])
  np.testing.assert_array_equal(shown["common_class_counts"].sum(axis=1), firing[::-1][:12])
  source = data.load("digits")
  np.testing.assert_array_equal(shown["common_images"], source.train["inputs"][shown["common_samples"]])
  for position, label in enumerate(shown["class_labels"]):
    assert np.all(source.labels[shown["class_rarity_samples"][position]] == label)

  page = (folder / "factors.md").read_text()
  linked = re.findall(r"\]\((.*?)\)", page)
  assert {path.name for path in folder.glob("*.png")} == set(linked)
  assert len(linked) == 5
  for name in linked:
    with PIL.Image.open(folder / name) as picture:
      assert min(picture.size) > 300
      assert len(picture.convert("L").getcolors()) > 20  # not blank
  assert f"| {shown['rare_latents'][0]} | {firing[0]:,} |" in page


def test_the_summary_is_a_few_lines(fitted):
  lines = factor_page.closing_lines(fitted[1], "runs/x").splitlines()
  assert lines[0].startswith("digits: 1,442 samples")
  assert any("FVU" in line for line in lines)
  assert lines[-1].endswith("runs/x/factors.md")
  assert len(lines) < 10


def test_a_set_without_images_gets_the_samples_indices(tmp_path, monkeypatch):
  source = data.load("digits")
  tokens = source.train | {"inputs": source.train["inputs"].reshape(1442, 64).astype(np.int32)}
  monkeypatch.setattr(data, "prepare", lambda *_: source._replace(train=tokens))
  np.save(tmp_path / "features.npy", np.asarray(tokens["inputs"], np.float32)[:, 8:24])
  made = digits.get_config("features=file")
  flat = {"features.path": str(tmp_path / "features.npy"), "cache_dir": str(tmp_path), "factors.epochs": 2}
  made.update_from_flattened_dict(flat)
  fit_factors.fit_factors(made, tmp_path / "report")
  assert {path.stem for path in (tmp_path / "report").glob("*.png")} == {"firing_frequency", "scores"}
  shown = _arrays(tmp_path / "report" / "examples.npz")
  assert not any("images" in name for name in shown)
  samples = shown["common_samples"][0]
  assert f"| {' '.join(str(sample) for sample in samples)} |" in (tmp_path / "report" / "factors.md").read_text()


def test_a_config_without_features_is_refused(tmp_path):
  with pytest.raises(options.UserError, match="no features.*features=pixels"):
    fit_factors.fit_factors(digits.get_config(), tmp_path / "report")
  assert not (tmp_path / "report").exists()


def _from_file(folder, features, source, **changes):
  """The columns of `source` with the features given and changes of the section `factors`."""
  np.save(folder / "features.npy", features)
  made = digits.get_config("selector=rrd,features=file")
  made.update_from_flattened_dict({"features.path": str(folder / "features.npy"), "cache_dir": str(folder / "cache")})
  made.factors.update({"epochs": 5, **changes})
  return factor_stage.Stage(made, source, timing.Timers()).columns


def _pixels(images):
  return images.reshape(len(images), -1).astype(np.float32)


@pytest.fixture(scope="module")
def transferred(tmp_path_factory):
  """An autoencoder of digits' pixels, as `fit_factors` writes it, and the columns that its own fit gave."""
  folder, source = tmp_path_factory.mktemp("transfer"), data.load("digits")
  columns = _from_file(folder, _pixels(source.train["inputs"]), source)
  made = digits.get_config("selector=rrd,features=file")
  made.update_from_flattened_dict({"features.path": str(folder / "features.npy"), "cache_dir": str(folder / "cache")})
  made.factors.epochs = 5
  fit_factors.fit_factors(made, folder)
  return str(folder / "sae.npz"), columns


def test_an_autoencoder_from_a_file_scores_its_own_data_as_its_fit_did(transferred, tmp_path):
  path, columns = transferred
  source = data.load("digits")
  again = _from_file(tmp_path, _pixels(source.train["inputs"]), source, sae=path, epochs=1, expansion_factor=1)
  for name, column in columns.items():
    np.testing.assert_array_equal(again[name], column)


def test_an_autoencoder_of_digits_scores_shifted_digits_without_a_fit(transferred, tmp_path, monkeypatch):
  path, own = transferred
  source = data.load("digits")
  images = np.roll(source.train["inputs"], 1, axis=2)
  prints = {"fingerprint": "shifted", "inputs_fingerprint": "shifted"}
  shifted = source._replace(train=source.train | {"inputs": images}, **prints)
  monkeypatch.setattr(factors, "fit_sae", None)  # a fit would fail
  columns = _from_file(tmp_path, _pixels(images), shifted, sae=path)
  (params, normalizer), k, topk = sae_file.read_sae(path)
  codes = factors.encode_all(params, normalizer, jnp.asarray(_pixels(images)), k=k, topk=topk)
  expected = factors.columns(codes, jnp.asarray(source.labels), 10, num_latents=params.b_enc.shape[0])
  for name, column in columns.items():
    np.testing.assert_allclose(column, expected[name], atol=1e-6)
    assert not np.array_equal(column, own[name])


def test_a_file_counts_by_its_content(transferred, tmp_path):
  path, _ = transferred
  source = data.load("digits")
  features = _pixels(source.train["inputs"])
  first = _from_file(tmp_path, features, source, sae=path)
  made = len(list((tmp_path / "cache").iterdir()))
  arrays = _arrays(path)
  np.savez(tmp_path / "moved.npz", **arrays)
  _from_file(tmp_path, features, source, sae=str(tmp_path / "moved.npz"))
  assert len(list((tmp_path / "cache").iterdir())) == made
  arrays["b_enc"] = arrays["b_enc"] + np.linspace(0, 1, arrays["b_enc"].size, dtype=np.float32)
  np.savez(tmp_path / "moved.npz", **arrays)
  changed = _from_file(tmp_path, features, source, sae=str(tmp_path / "moved.npz"))
  assert len(list((tmp_path / "cache").iterdir())) > made
  assert not np.array_equal(first["rarity"], changed["rarity"])


@pytest.mark.parametrize(
  ("change", "settings", "line"),
  [
    ({}, {"k": 5}, "factors.k=5, but factors.sae=.* was fitted with 8"),
    ({}, {"topk": "value"}, "factors.topk='value', but factors.sae=.* was fitted with 'absolute'"),
    ({"mean": None}, {}, "does not contain an autoencoder: it lacks mean"),
    ({"mean": np.zeros(3, np.float32)}, {}, "do not match"),
    ({"b_enc": np.full(256, np.nan, np.float32)}, {}, "a value that is not finite"),
    ({"topk": np.array("both")}, {}, "k=8, topk=both: k must lie in .* and topk be one of absolute, value"),
  ],
)
def test_a_wrong_file_is_named_before_the_features_are_made(transferred, tmp_path, monkeypatch, change, settings, line):
  arrays = {name: array for name, array in (_arrays(transferred[0]) | change).items() if array is not None}
  np.savez(tmp_path / "wrong.npz", **arrays)
  source = data.load("digits")
  monkeypatch.setattr(factor_stage.Stage, "features", None)
  with pytest.raises(options.UserError, match=line):
    _from_file(tmp_path, _pixels(source.train["inputs"]), source, sae=str(tmp_path / "wrong.npz"), **settings)


def test_a_file_that_is_absent_or_no_array_file_and_features_of_another_width_are_named(transferred, tmp_path):
  source = data.load("digits")
  features = _pixels(source.train["inputs"])
  with pytest.raises(options.UserError, match="factors.sae='absent.npz' is not a file"):
    _from_file(tmp_path, features, source, sae="absent.npz")
  (tmp_path / "text.npz").write_text("no array")
  with pytest.raises(options.UserError, match="text.npz is not a readable .npz or .npy file"):
    _from_file(tmp_path, features, source, sae=str(tmp_path / "text.npz"))
  np.save(tmp_path / "array.npz.npy", features)
  with pytest.raises(options.UserError, match="array.npz.npy does not contain an autoencoder"):
    _from_file(tmp_path, features, source, sae=str(tmp_path / "array.npz.npy"))
  with pytest.raises(options.UserError, match="features of width 64, these have 5"):
    _from_file(tmp_path, features[:, 20:25], source, sae=transferred[0])
