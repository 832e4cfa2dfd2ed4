"""Documents as pieces of tokens: each token is predicted once, domains become labels, and bad rows are named."""

import gzip
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynsel_jax import data
from dynsel_jax.data import codecs, documents
from dynsel_jax.models.decoder import PAD
from dynsel_jax.options import UserError
from tests.support import language


def load(folder, train, test=({"text": "ok", "domain": "a"},), **changes):
  splits = {"train": train, "test": test}
  paths = {name: language.write_rows(folder / f"{name}.jsonl", rows) for name, rows in splits.items()}
  return documents.load("docs", **paths, **{"vocabulary": 0, "max_length": 8, **changes})


def test_pieces_are_bytes_with_an_end_on_either_side(tmp_path, capsys):
  made = load(tmp_path, [{"text": "abcdefghij", "domain": "x"}, {"text": "né", "domain": 7}])
  end = codecs.BYTES
  expected = [
    [end, *b"abcdefg"],
    [*b"ghij", end, PAD, PAD, PAD],
    [end, *"né".encode(), end, PAD, PAD, PAD],
  ]
  np.testing.assert_array_equal(made.train["inputs"], expected)
  counted = np.array(expected) != PAD
  counted[:, 0] = False
  np.testing.assert_array_equal(made.train["targets"], counted)
  np.testing.assert_array_equal(made.train["labels"], [1, 1, 0])
  assert made.class_names == ("7", "x") and made.text.vocabulary == 257
  assert made.text.train == ("abcdefg", "ghij", "né")
  assert "labels" not in made.test
  line = capsys.readouterr().err
  assert "docs: train: 3 pieces with 15 target tokens (x 2, 7 1); test: 1 piece with 3 target tokens (a 1)" in line


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.integers(2, 12))
def test_every_token_but_the_first_is_a_target_once(ids, length):
  pieces = documents.cut(np.array(ids), length)
  assert all(2 <= len(piece) <= length for piece in pieces)
  np.testing.assert_array_equal(np.concatenate([pieces[0][:1], *(piece[1:] for piece in pieces)]), ids)
  for one, following in zip(pieces[:-1], pieces[1:], strict=True):
    assert one[-1] == following[0]


def test_byte_pairs_are_learnt_on_the_training_texts_and_read_everything(tmp_path):
  rows = [{"text": "the cat and the hat and the bat", "domain": "a"}] * 5
  test = [{"text": "the zebra ✓", "domain": "a"}]
  made, again = (load(tmp_path, rows, test, vocabulary=280, max_length=64) for _ in range(2))
  assert made.fingerprint == again.fingerprint and made.text.vocabulary <= 280
  assert made.train["inputs"].shape[1] < len(rows[0]["text"])  # bytes were merged
  assert made.labels is None and made.num_classes == 0
  codec = codecs.learnt([row["text"] for row in rows], 280)
  ids = made.test["inputs"][0]
  assert codec.decode([[number for number in ids if number not in (PAD, codec.end)]]) == ["the zebra ✓"]


def test_characters_that_a_vocabulary_lacks_are_counted(tmp_path, caplog):
  codec = codecs.learnt(["abc"], 257)
  held = json.loads(codec.tokenizer)
  del held["model"]["vocab"]["Â"]  # the byte 0xC2, which begins "£"
  (tmp_path / "tokenizer.json").write_text(json.dumps(held))
  made = load(
    tmp_path, [{"text": "a £5 b £6", "domain": "x"}], tokenizer=str(tmp_path / "tokenizer.json"), max_length=99
  )
  assert "2 characters are lost, which the tokenizer's vocabulary lacks: '£' 2" in caplog.text
  assert made.text.vocabulary == 257


def test_lengths_and_order_follow_the_buckets(tmp_path):
  rows = [{"text": "x" * count} for count in (2, 9, 4, 30, 1, 6)]
  made = load(tmp_path, rows, rows, max_length=20, length_buckets=2)
  counts = (made.test["inputs"] != PAD).sum(axis=1)
  assert made.text.lengths[-1] == 20 and len(made.text.lengths) == 2
  buckets = np.searchsorted(made.text.lengths, counts)
  assert (np.diff(buckets) >= 0).all() and (np.diff((made.train["inputs"] != PAD).sum(axis=1)) < 0).any()


def test_the_section_of_a_config_is_read(tmp_path):
  path = language.write_rows(tmp_path / "rows.jsonl", [{"text": "abc", "domain": "x"}])
  packed = tmp_path / "rows.jsonl.gz"
  packed.write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes()))
  section = documents.defaults() | {"name": "documents", "train": path, "test": str(packed), "vocabulary": 0}
  made = data.prepare(section)
  np.testing.assert_array_equal(made.train["inputs"], made.test["inputs"])
  with pytest.raises(UserError, match="has no option 'text_colum'"):
    data.prepare(section | {"text_colum": "x"})


GOOD = {"text": "abc", "domain": "x"}


@pytest.mark.parametrize(
  ("rows", "changes", "line"),
  [
    ([], {}, "has no row"),
    ([GOOD, {"domain": "x"}], {}, "line 2 has no 'text'; its columns: domain"),
    ([GOOD, {"text": " ", "domain": "x"}], {}, "line 2 has the text ' '; it must be a string that is not empty"),
    ([{"text": 5, "domain": "x"}], {}, "line 1 has the text 5; it must be a string"),
    ([GOOD, {"text": "a"}], {}, "line 2 has no 'domain', which other rows have; set dataset.domain_column=''"),
    ([{"text": "a", "domain": None}], {}, "line 1 has the domain None; it must be a string or an integer"),
    ([{"text": "\ud800", "domain": "x"}], {}, "line 1 has the text '\\ud800', with half of a surrogate pair"),
    (["no"], {}, "line 1 is not a JSON object"),
    ([GOOD], {"train": "rows.csv"}, "dataset.train=rows.csv must end in .jsonl or .jsonl.gz"),
    ([GOOD], {"train": ""}, "dataset.train names no file"),
    ([GOOD], {"train": "absent.jsonl"}, "dataset.train='absent.jsonl' is not a file"),
    ([GOOD], {"vocabulary": 100}, "dataset.vocabulary=100 must be at least 257"),
    ([GOOD], {"vocabulary": -1}, "dataset.vocabulary=-1 must be at least 0"),
    ([GOOD], {"max_length": 1}, "dataset.max_length=1 must be at least 2"),
    ([GOOD], {"length_buckets": 0}, "dataset.length_buckets=0 must be at least 1"),
    ([GOOD], {"text_column": "domain"}, "dataset.text_column and dataset.domain_column are both 'domain'"),
    ([GOOD], {"tokenizer": "absent"}, "dataset.tokenizer='absent' is not a folder of a pretrained model"),
  ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, rows, changes, line):
  paths = {name: language.write_rows(tmp_path / f"{name}.jsonl", rows) for name in ("train", "test")}
  with pytest.raises(UserError) as error:
    documents.load("docs", **{**paths, "vocabulary": 0, **changes})
  assert line in str(error.value)


def test_a_damaged_line_is_named(tmp_path):
  path = tmp_path / "rows.jsonl"
  path.write_text(json.dumps(GOOD) + '\n\n{"text": "a"')
  with pytest.raises(UserError, match=r"rows\.jsonl: line 3 is not valid JSON"):
    documents.load("docs", train=str(path), test=str(path), vocabulary=0)
