"""Pairs of texts and numbers to predict, in the files of GLUE: reading, segments, and a run of each task."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import glue
from dynsel_jax import data
from dynsel_jax.data import inputs, text_files, tokens
from dynsel_jax.models import bert
from dynsel_jax.options import UserError
from tests.support import small_runs

ROWS = [("a cat sat", "an animal sat", "1", 4.2), ("it rains", "the sun shines", "0", 0.5), ("one", "two", "0", 2)]
TSV = "index\tsentence1\tsentence2\tlabel\tscore\n" + "\n".join(
  f"{number}\t{first}\t{second}\t{label}\t{score}" for number, (first, second, label, score) in enumerate(ROWS)
)


@pytest.fixture
def made(tmp_path):
  """The smoke config on three pairs in a file train.tsv, which is the test file too."""

  def make(text=TSV, name="train.tsv", variants="", **changes):
    path = tmp_path / name
    path.write_text(text)
    config = glue.get_config(f"size=smoke{variants}")
    config.dataset.update(train=str(path), test=str(path), **changes)
    return config

  return make


def _read(config):
  return data.prepare(config.dataset.to_dict())


def test_a_pair_is_one_sequence_of_two_segments(made, caplog):
  source = _read(made())
  tokenizer = tokens.from_json(source.text.tokenizer)
  first = source.train["inputs"][0]
  words, segments = first % bert.SEGMENT, first // bert.SEGMENT
  length = int((first != source.text.pad_id).sum())
  assert [tokenizer.id_to_token(word) for word in words[:length].tolist()] == [
    *("[CLS]", "a", "cat", "sat", "[SEP]", "an", "animal", "sat", "[SEP]")
  ]
  assert segments[:length].tolist() == [0] * 5 + [1] * 4 and not first[length:].any()
  assert source.train["labels"].tolist() == [1, 0, 0] and source.class_names == ("0", "1")
  assert source.text.train[0] == "a cat sat an animal sat"
  assert "train: 3 pairs of 2 classes (0 2, 1 1)" in caplog.text


def test_numbers_become_targets(made, caplog):
  source = _read(made(variants=",task=regression"))
  np.testing.assert_array_equal(source.train["targets"], np.array([4.2, 0.5, 2], np.float32))
  assert source.labels is None and source.num_classes == 0
  assert "train: 3 pairs with targets from 0.5 to 4.2, mean 2.233" in caplog.text


@pytest.mark.parametrize("name", ["train.tsv", "train.csv", "train.jsonl"])
def test_the_kinds_of_files_agree(made, tmp_path, name):
  import csv
  import io
  import json

  expected = _read(made(variants=",task=regression"))
  fields = [("sentence1", "sentence2", "score"), *((first, second, score) for first, second, _, score in ROWS)]
  if name.endswith("jsonl"):
    text = "\n".join(json.dumps(dict(zip(fields[0], row, strict=True))) for row in fields[1:])
  else:
    written = io.StringIO()
    csv.writer(written, delimiter="\t" if name.endswith("tsv") else ",").writerows(fields)
    text = written.getvalue()
  found = _read(made(text, name, ",task=regression"))
  assert found.fingerprint == expected.fingerprint


def test_a_quotation_mark_is_text_in_a_tsv_file(tmp_path):
  path = tmp_path / "rows.tsv"
  path.write_text('sentence\tlabel\n"it" is\t1\n" begins\t0\n')
  rows = text_files.read("dataset.train", str(path), "sentence", "label")
  assert rows.texts == ['"it" is', '" begins'] and rows.labels == ["1", "0"] and rows.separator == "\t"


@pytest.mark.parametrize(
  ("old", "new", "changes", "line"),
  [
    ("4.2", "high", {}, r"line 2 has the target 'high'; it must be a number"),
    ("4.2", "1e39", {}, r"line 2 has the target '1e39'; it must be a number up to 3.4e38"),
    ("4.2", "nan", {}, r"line 2 has the target 'nan'; it must be a number"),
    ("the sun shines", " ", {}, r"line 3 has the text ' '; it must be a string that is not empty"),
    ("sentence2", "premise", {}, r"line 1 has no column 'sentence2'; its columns: index, sentence1, premise"),
    ("0\ta cat", "a cat", {}, "line 2 has 4 fields, the first line 5"),
    (
      "",
      "",
      {"text_pair_column": "sentence1"},
      "dataset.text_column and dataset.text_pair_column are both 'sentence1'",
    ),
    ("", "", {"target_column": "sentence2"}, "are both 'sentence2'"),
  ],
)
def test_wrong_rows_and_columns_are_named(made, old, new, changes, line):
  config = made(TSV.replace(old, new, 1) if old else TSV, variants=",task=regression", **changes)
  with pytest.raises(UserError, match=line) as error:
    _read(config)
  assert "\n" not in str(error.value)


def test_segments_change_what_bert_sees_and_not_what_roberta_sees():
  for roberta in (False, True):
    sizes = bert.Sizes(
      50, width=8, layers=1, heads=2, hidden=8, positions=20, types=1 if roberta else 2, roberta=roberta
    )
    module = bert.Encoder(sizes)
    ids = jnp.array([[5, 6, 7, 8]])
    pair = ids.at[:, 2:].add(bert.SEGMENT)
    params = jax.jit(lambda module=module, ids=ids: module.init(jax.random.key(0), ids, train=False))()
    run = jax.jit(lambda ids, module=module, params=params: module.apply(params, ids, train=False)["embeddings"])
    alone, paired = np.asarray(run(ids)), np.asarray(run(pair))
    np.testing.assert_array_equal(alone[:, :2], paired[:, :2])
    assert np.array_equal(alone[:, 2:], paired[:, 2:]) == roberta


def test_further_pairs_are_read_as_those_of_the_run(made):
  config = made()
  source = _read(config)
  form = inputs.Form(
    source.train["inputs"].shape[1:], "int32", config.dataset.to_dict(), ("0", "1"), False, source.text.tokenizer
  )
  found = inputs.read(config.dataset.train, form)
  np.testing.assert_array_equal(found.inputs, source.train["inputs"])
  np.testing.assert_array_equal(found.known, source.train["labels"])
  np.testing.assert_array_equal(inputs.as_trained([[first, second] for first, second, *_ in ROWS], form), found.inputs)
  with pytest.raises(UserError, match=r"inputs must be a list of pairs of texts, \(first, second\), not str"):
    inputs.as_trained(["alone"], form)


def test_a_regression_over_pairs_learns(made, tmp_path):
  rng = np.random.default_rng(0)
  words = ["river", "stone", "cloud", "apple", "green"]
  lines = ["sentence1\tsentence2\tscore"]
  for _ in range(96):
    first, second = rng.integers(0, 5, 2)
    lines.append(f"{words[first]} here\t{words[second]} there\t{float(first == second) + 0.1 * rng.random():.3f}")
  config = made("\n".join(lines), variants=",task=regression,selector=infobatch")
  config.dataset.length_buckets = 1
  config.model.layers, config.eval_batch_size = 1, 32
  with jax.numpy_dtype_promotion("standard"):
    summary, _ = small_runs.train(config, tmp_path / "run")
  (line,) = small_runs.lines(tmp_path / "run")
  assert {"test_pearson", "test_spearman", "test_mean_squared_error"} <= line.keys()
  assert np.isfinite(summary["final_metric"]) and pathlib.Path(tmp_path, "run", "tokenizer.json").is_file()
