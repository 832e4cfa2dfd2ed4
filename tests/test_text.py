"""Text sets from files: what is read, how it becomes tokens, and the line that each kind of bad input gets."""

import gzip
import json
import logging

import numpy as np
import pytest
import tokenizers

from dynsel_jax import data
from dynsel_jax.data import text, text_files, tokens
from dynsel_jax.options import UserError
from tests.support import ROOT

TRAIN = [("the cat sat", "pet"), ("a dog ran", "pet"), ("stocks fell", "news"), ("the vote", "news")]
TEST = [("a cat", "pet"), ("the vote fell", "news")]


def _csv(path, rows, header="text,label"):
  path.write_text("\n".join([header, *(f'"{a}",{b}' for a, b in rows)]) + "\n")
  return str(path)


def _jsonl(path, rows, names=("text", "label")):
  lines = "".join(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) + "\n" for row in rows)
  if path.suffix == ".gz":
    path.write_bytes(gzip.compress(lines.encode()))
  else:
    path.write_text(lines, encoding="utf-8")
  return str(path)


def _load(tmp_path, train=TRAIN, test=TEST, **options):
  return text.load("tiny", train=_csv(tmp_path / "train.csv", train), test=_csv(tmp_path / "test.csv", test), **options)


def test_a_set_is_its_files(tmp_path):
  source = _load(tmp_path)
  assert source.class_names == ("news", "pet") and source.num_classes == 2
  np.testing.assert_array_equal(source.train["labels"], [1, 1, 0, 0])
  np.testing.assert_array_equal(source.test["labels"], [1, 0])
  assert source.text.train == tuple(row for row, _ in TRAIN)
  # Words by how often they come, then by name: a(1) cat dog fell ran sat stocks vote, after the(2).
  word = {
    name: 4 + place for place, name in enumerate(["the", "a", "cat", "dog", "fell", "ran", "sat", "stocks", "vote"])
  }
  rows = [[2, *(word[w] for w in row.split()), 3] for row, _ in TRAIN]
  np.testing.assert_array_equal(source.train["inputs"], [row + [0] * (5 - len(row)) for row in rows])
  np.testing.assert_array_equal(source.test["inputs"][1], [2, word["the"], word["vote"], word["fell"], 3])
  assert source.train["inputs"].dtype == source.train["labels"].dtype == np.int32
  assert (source.text.pad_id, source.text.vocabulary) == (0, 13)
  assert source.mean == source.std == () and source.validation is None


def test_csv_and_json_lines_plain_and_gzipped_are_the_same_set(tmp_path):
  rows = [("naïve, “quoted”\u2028café", 10), ("two\nlines", 2), ("three", 1)]
  sets = []
  for name in ("a.csv", "a.jsonl", "a.jsonl.gz", "a.csv.gz"):
    path = tmp_path / name
    if ".csv" in name:
      content = "label,text\n" + "".join(f'{label},"{row}"\n' for row, label in rows)
      path.write_bytes(gzip.compress(content.encode()) if name.endswith("gz") else b"\xef\xbb\xbf" + content.encode())
    else:
      _jsonl(path, rows)
    sets.append(text.load("x", train=str(path), test=str(path)))
  assert sets[0].class_names == ("1", "2", "10")  # whole numbers are sorted by value
  for other in sets[1:]:
    assert other.fingerprint == sets[0].fingerprint
    assert other.text == sets[0].text


def test_lists_of_one_label_are_taken_and_others_left_out(tmp_path, caplog):
  rows = [("one", [2]), ("two", [1, 2]), ("none", []), ("other", [0]), ("plain", 0)]
  path = _jsonl(tmp_path / "a.jsonl", rows, ("comment", "group"))
  with caplog.at_level(logging.WARNING, logger="absl"):
    source = text.load("x", train=path, test=path, text_column="comment", label_column="group")
  assert source.text.train == ("one", "other", "plain")
  np.testing.assert_array_equal(source.train["labels"], [1, 0, 0])
  assert [r.getMessage() for r in caplog.records] == [
    "x: train: 3 texts of 2 classes (0 2, 2 1); test: 3 texts of 2 classes (0 2, 2 1);"
    " dataset.test is the file of dataset.train; left out: rows without a label or with several 4"  # of both files
  ]


def test_a_long_text_is_cut_and_counted_once(tmp_path, caplog):
  with caplog.at_level(logging.WARNING, logger="absl"):
    source = _load(tmp_path, max_length=4)
  assert [r.getMessage() for r in caplog.records] == [
    "tiny: 3 of 6 texts had more than dataset.max_length=4 tokens and were truncated"
  ]
  assert source.train["inputs"].shape == (4, 4)
  assert (source.train["inputs"][0] == 3).sum() == 1  # the closing token stays


def test_labels_that_look_alike_are_said(tmp_path, caplog):
  with caplog.at_level(logging.WARNING, logger="absl"):
    source = _load(tmp_path, train=[("one", "Cat"), ("two", "cat\u200b"), ("three", "dog")], test=[("four", "dog")])
  assert source.num_classes == 3
  assert caplog.records[0].getMessage().endswith(r"; classes that look alike: Cat, cat\u200b")


def test_words_beyond_the_vocabulary_and_new_ones_are_unknown(monkeypatch):
  monkeypatch.setattr(tokens, "_VOCABULARY", 6)
  tokenizer = tokens.words_of(["B b a a a c"])
  ids, cut = tokens.encode(tokenizer, ["a B c d [PAD]"], 20)
  assert ids == [[2, 4, 5, 1, 1, 1, 1, 1, 3]] and cut == 0


def test_a_tokenizer_file_has_its_own_padding_and_truncation_set_aside(tmp_path):
  made = tokens.words_of(["cat dog"])
  made.add_special_tokens(["[PAD]", "[SEP]"])
  made.enable_padding(length=30)
  made.enable_truncation(3)
  made.save(str(tmp_path / "tokenizer.json"))
  for path in (tmp_path, tmp_path / "tokenizer.json"):
    source = _load(tmp_path, tokenizer=str(path))
    assert source.train["inputs"].shape == (4, 5)
    assert source.text.vocabulary == 6
  # A text that spells a special token has not got it.
  ids, _ = tokens.encode(tokens.load("", str(tmp_path)), ["cat [PAD] dog"], 20)
  assert 0 not in ids[0] and ids[0].count(3) == 1


def test_halves_are_stratified_disjoint_and_whole():
  labels = np.repeat([0, 1, 2], [11, 6, 2]).astype(np.int32)
  dataset = {"inputs": np.arange(19)[:, None], "labels": labels}
  first, second = text.halves(dataset, 3)
  for label, count in ((0, 11), (1, 6), (2, 2)):
    of_first, of_second = (int((half["labels"] == label).sum()) for half in (first, second))
    assert of_first + of_second == count and abs(of_first - of_second) <= 1
  joined = np.concatenate([first["inputs"][:, 0], second["inputs"][:, 0]])
  assert sorted(joined) == list(range(19))
  np.testing.assert_array_equal(labels[joined], np.concatenate([first["labels"], second["labels"]]))
  again, other = (text.halves(dataset, seed)[0] for seed in (3, 4))
  np.testing.assert_array_equal(again["inputs"], first["inputs"])
  assert not np.array_equal(other["inputs"], first["inputs"])


def test_validation_from_a_file_or_from_the_test_rows(tmp_path):
  path = _csv(tmp_path / "dev.csv", [("a dog", "pet")])
  source = _load(tmp_path, validation=path)
  np.testing.assert_array_equal(source.validation["labels"], [1])
  assert source.validation["inputs"].shape == (1, 5)
  halved = _load(tmp_path, test=TEST * 5, split_test=True)
  assert len(halved.validation["labels"]) == len(halved.test["labels"]) == 5
  assert halved.fingerprint != _load(tmp_path, test=TEST * 5, split_test=True, split_seed=1).fingerprint
  with pytest.raises(UserError, match="give two validation sets; set one of them only"):
    _load(tmp_path, validation=path, split_test=True)
  with pytest.raises(UserError, match="needs at least two test rows; there are 1"):
    _load(tmp_path, test=TEST[:1], split_test=True)


def test_the_fingerprint_covers_texts_that_no_token_tells(tmp_path):
  before = _load(tmp_path).fingerprint
  assert before == _load(tmp_path).fingerprint
  assert before != _load(tmp_path, train=[("THE cat sat", "pet"), *TRAIN[1:]]).fingerprint
  assert before != _load(tmp_path, test=[TEST[1], TEST[0]]).fingerprint


def test_lengths_are_quantiles_of_the_training_texts_and_the_longest_of_all(tmp_path):
  counts = [3, 3, 3, 3, 4, 4, 7, 8]  # with both special tokens
  train = [(" ".join(["word"] * (count - 2)), "pn"[place % 2]) for place, count in enumerate(counts)]
  test = [(" ".join(["word"] * (count - 2)), "p") for count in (10, 4, 9, 3)]
  for number, lengths in ((1, (10,)), (2, (3, 10)), (4, (3, 4, 10)), (100, (3, 4, 7, 8, 10))):
    assert _load(tmp_path, train, test, length_buckets=number).text.lengths == lengths


def test_test_rows_are_sorted_by_length_and_the_fingerprint_is_of_the_files(tmp_path):
  test = [("the vote fell", "news"), ("a cat", "pet"), ("stocks fell dog", "news"), ("the dog", "news")]
  plain, sorted_by_length = (_load(tmp_path, test=test, length_buckets=number) for number in (1, 4))
  np.testing.assert_array_equal(plain.test["labels"], [0, 1, 0, 0])
  assert plain.text.lengths == (5,) and sorted_by_length.text.lengths == (4, 5)
  np.testing.assert_array_equal(sorted_by_length.test["inputs"], plain.test["inputs"][[1, 3, 0, 2]])
  np.testing.assert_array_equal(sorted_by_length.test["labels"], [1, 0, 0, 0])
  assert plain.fingerprint == sorted_by_length.fingerprint
  assert plain.train.keys() == sorted_by_length.train.keys() == {"inputs", "labels"}
  for name, array in plain.train.items():
    np.testing.assert_array_equal(array, sorted_by_length.train[name])


def test_prepare_adds_label_noise_and_checks_the_section(tmp_path):
  train, test = _csv(tmp_path / "train.csv", TRAIN * 10), _csv(tmp_path / "test.csv", TEST)
  section = {"name": "tiny", "augmentations": (), **text.defaults(), "train": train, "test": test}
  noisy = data.prepare({**section, "label_noise": {"rate": 0.5}})
  assert noisy.noisy.any() and noisy.text is not None
  with pytest.raises(UserError, match="dataset 'tiny' has no option 'trian'"):
    data.prepare({**section, "trian": ""})
  with pytest.raises(UserError, match="dataset.max_length='64' must be an integer"):
    data.prepare({**section, "max_length": "64"})


@pytest.mark.parametrize(
  ("name", "content", "line"),
  [
    ("a.txt", b"x", "must end in one of: .csv, .tsv, .jsonl, .csv.gz, .tsv.gz, .jsonl.gz"),
    ("a.csv", b"text,labels\nx,1\n", "line 1 has no column 'label'; its columns: text, labels"),
    ("a.csv", b"text,label\nx,1\n  ,1\n", "line 3 has the text '  '; it must be a string that is not empty"),
    ("a.csv", b"text,label\nx,\n", "line 2 has the label ''; it must be a string or an integer"),
    ("a.csv", b"text,label\nx,1\ny\n", "line 3 has 1 fields, the first line 2"),
    ("a.csv", b'text,label\n"x"y,1\n', "line 2 is not valid CSV"),
    ("a.csv", b"text,label\nx,1\n\xff\xfe,1\n", "line 3 is not UTF-8: byte 0xff"),
    ("a.csv", b"text,label\n", "has no row with exactly one label"),
    ("a.csv", b"", "has no row with exactly one label"),
    ("a.jsonl", b'{"text": "x", "label": 1}\n\n{"text": "x"}\n', "line 3 has no column 'label'; its columns: text"),
    ("a.jsonl", b'{"text": 3, "label": 1}\n', "line 1 has the text 3; it must be a string that is not empty"),
    ("a.jsonl", b'{"text": "x", "label": 1.5}\n', "line 1 has the label 1.5; it must be a string or an integer"),
    ("a.jsonl", b'{"text": "x", "label": null}\n', "line 1 has the label None; it must be a string or an integer"),
    ("a.jsonl", b'{"text": "x", "label": true}\n', "line 1 has the label True; it must be a string or an integer"),
    ("a.jsonl", b'{"text": "x", "label"\n', "line 1 is not valid JSON"),
    ("a.jsonl", b"[1, 2]\n", "line 1 is not a JSON object: '[1, 2]'"),
    ("a.jsonl.gz", b"no gzip", "is not a complete gzip file"),
    ("a.jsonl.gz", gzip.compress(bytes(2**26 + 1), 1, mtime=0), "unpacks to over 200 times its size"),
    ("a.jsonl.gz", gzip.compress(b'{"text": "x", "label": 1}\n' * 99, mtime=0)[:-9], "is not a complete gzip file"),
  ],
)
def test_a_bad_file_is_named_with_its_line_and_value(tmp_path, name, content, line):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(UserError) as error:
    text_files.read("dataset.train", str(tmp_path / name), "text", "label")
  assert f"dataset.train={tmp_path / name}" in str(error.value)
  assert line in str(error.value) and "\n" not in str(error.value)


def test_wrong_paths_labels_and_options_are_named(tmp_path):
  with pytest.raises(UserError, match="dataset.train='' is not a file"):
    text.load("x")
  with pytest.raises(UserError, match=r"dataset.test=.*test.csv: line 3 has the label 'sport', which does not occur"):
    _load(tmp_path, test=[TEST[0], ("goal", "sport")])
  with pytest.raises(UserError, match="dataset.max_length=2 must be at least 3"):
    _load(tmp_path, max_length=2)
  with pytest.raises(UserError, match="dataset.length_buckets=0 must be greater than 0"):
    _load(tmp_path, length_buckets=0)
  with pytest.raises(UserError, match="dataset.tokenizer='nowhere' is not a folder"):
    _load(tmp_path, tokenizer="nowhere")
  (tmp_path / "tokenizer.json").write_text("{}")
  with pytest.raises(UserError, match="tokenizer.json is not a tokenizer"):
    _load(tmp_path, tokenizer=str(tmp_path))
  tokenizers.Tokenizer(tokenizers.models.WordLevel({"x": 0}, unk_token="x")).save(str(tmp_path / "tokenizer.json"))
  with pytest.raises(UserError, match=r"neither \[PAD\] nor <pad>"):
    _load(tmp_path, tokenizer=str(tmp_path))


DATASETS = ROOT.parent / "shared" / "datasets"


@pytest.mark.skipif(not DATASETS.is_dir(), reason=f"no data in {DATASETS}")
def test_goemotions_and_banking77_are_read_whole(caplog):
  banking = {split: str(DATASETS / "banking77" / f"{split}.jsonl.gz") for split in ("train", "test")}
  source = text.load("banking77", **banking, max_length=64)
  assert (len(source.train["labels"]), len(source.test["labels"]), source.num_classes) == (10_003, 3_080, 77)
  files = {"train": "train", "validation": "dev", "test": "test"}
  paths = {split: str(DATASETS / "goemotions" / f"{file}.jsonl.gz") for split, file in files.items()}
  source = text.load("goemotions", **paths, label_column="group", max_length=64)
  assert source.num_classes == 4
  assert 30_000 < len(source.train["labels"]) < 43_410 and 3_000 < len(source.validation["labels"]) < 5_426
