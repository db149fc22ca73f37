"""Tests of vocabularies: BERT's tokens, reproducible training, tokenizers of `transformers`."""

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from project import ROOT
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizer, BertTokenizerFast, RobertaTokenizerFast

from lab.config.data import PretrainedTokenizer, TrainedTokenizer, WordPieceFile
from lab.data.tokenizers import BERT, build_vocabulary, tokenizer_identity
from lab.data.vocabulary import FIRST_WORD, ROLES, SPECIAL, UNK, Vocabulary, open_vocabulary
from lab.errors import UserError

BERT_SIZE = 30_522
WORDS = (
    "the cat sat on a mat while seven wizards quickly jumped over lazy foxes; naïve café owners "
    "in Zürich paid 1,234.50 for a jar of honey, didn't they? Yes: on Monday (or so) we saw it. "
)


def pieces() -> list[str]:
    source = resources.files("lab").joinpath("text", "bert_uncased_vocab.txt")
    return source.read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def bert() -> Vocabulary:
    return build_vocabulary(WordPieceFile(kind="wordpieces", file=BERT), BERT_SIZE, list)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("bert") / "vocab.txt"
    file.write_text("\n".join(pieces()) + "\n", encoding="utf-8")
    return BertTokenizerFast(vocab=str(file), do_lower_case=True)


def train(text: str, vocab: int = 300, **options: Any) -> Vocabulary:
    return build_vocabulary(TrainedTokenizer(**options), vocab, lambda: [text])


def refused(settings: Any, vocab: int = 400, text: str = WORDS) -> str:
    """Return the one-line error raised by `build_vocabulary`."""
    with pytest.raises(UserError) as error:
        build_vocabulary(settings, vocab, lambda: [text])
    message = str(error.value)
    assert "\n" not in message
    return message


def spellings(vocabulary: Vocabulary, text: str) -> list[str]:
    numbers = vocabulary.outer_V[vocabulary.encode([text])[0]].tolist()
    return [vocabulary.tokenizer.id_to_token(number) for number in numbers]


@given(text=st.text())
@example("The quick brown fox didn't jump over the lazy dog's 1,234.50 dollars.")
@example("Crème brûlée, São Paulo, Ångström, naïve, İstanbul, ﬁne, Straße")
@example("我喜欢学习自然语言处理 and 東京タワー, 한국어")
@example("rockets 🚀🚀 and families 👨‍👩‍👧 ☃")
@example("null\x00 bell\x07 tab\t line\n return\r zero​width soft­hyphen � nb sp")
@example("a" * 100 + " " + "a" * 101 + " " + "ab" * 50)
@example("unaffable " + "x" * 300)
def test_tokens_of_berts_vocabulary_are_those_of_transformers(
    bert: Vocabulary, reference: Any, text: str
) -> None:
    expected = reference(text, add_special_tokens=False)["input_ids"]
    if not any(token in text for token in SPECIAL):
        assert bert.outer_V[bert.encode([text])[0]].tolist() == expected


def test_berts_template_is_that_of_transformers(bert: Vocabulary, reference: Any) -> None:
    ours = bert.tokenizer.encode("a first one", "and a second")
    theirs = reference("a first one", "and a second")
    assert ours.ids == theirs["input_ids"]
    assert ours.type_ids == theirs["token_type_ids"]


@pytest.mark.parametrize(
    "settings", ["TrainedTokenizer(accents='keep')", "ByteLevelTokenizer(kind='byte_level')"]
)
def test_training_twice_gives_the_same_vocabulary(settings: str) -> None:
    code = (
        "import random\n"
        "from lab.config.data import ByteLevelTokenizer, TrainedTokenizer\n"
        "from lab.data.tokenizers import build_vocabulary\n"
        "chance = random.Random(5)\n"
        "letters = 'aábcdeëfghijklmnoprstuvyzåäöαβγ日本語漢字かな'\n"
        "words = [''.join(chance.choices(letters, k=chance.randint(1, 6))) for _ in range(900)]\n"
        "texts = [' '.join(chance.choices(words, k=30)) for _ in range(200)]\n"
        f"settings = {settings}\n"
        "vocabulary = build_vocabulary(settings, 700, lambda: iter(texts))\n"
        "print(vocabulary.fingerprint())\n"
    )
    fingerprints = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, threads in [("0", "1"), ("1", "2"), ("2", "2")]
    ]
    assert fingerprints[0].strip()
    assert len(set(fingerprints)) == 1


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("Äiti ÄITI", {"accents": "strip"}, {"a", "i", "t"}),
        ("Äiti ÄITI", {"accents": "keep"}, {"ä", "i", "t"}),
        ("Äiti", {"accents": "keep", "cased": True}, {"Ä", "i", "t"}),
        ("Äiti", {"accents": "strip", "cased": True}, {"A", "i", "t"}),
        ("Άλφα", {"accents": "keep"}, {"ά", "λ", "φ", "α"}),
        ("Άλφα", {"accents": "strip"}, {"α", "λ", "φ"}),
        ("Việt", {"accents": "keep"}, {"v", "i", "ệ", "t"}),
        ("Việt", {"accents": "strip"}, {"v", "i", "e", "t"}),
        ("Vie\u0323\u0302t", {"accents": "keep"}, {"v", "i", "ệ", "t"}),
        ("Ａｂ１", {"normalization": "nfkc"}, {"a", "b", "1"}),
        ("Ａｂ１", {}, {"ａ", "ｂ", "１"}),
        ("ﬁ", {"normalization": "nfkc"}, {"f", "i"}),
        ("ﬁ", {}, {"ﬁ"}),
    ],
)
def test_letters_are_normalized_by_the_options(
    text: str, options: dict[str, Any], expected: set[str]
) -> None:
    rest = WORDS * 20 if options.get("cased") else WORDS.lower() * 20
    vocabulary = train(f"{text} " * 2_000 + rest, 100, **options)
    assert {letter for word in spellings(vocabulary, text) for letter in word} - {"#"} == expected


@pytest.mark.parametrize(("ideographs", "words"), [(True, 4), (False, 1)])
def test_ideographs_are_words_if_the_option_is_set(ideographs: bool, words: int) -> None:
    vocabulary = train("東京大学 " * 30 + WORDS * 20, 100, ideographs=ideographs)
    assert len(set(vocabulary.spans(["東京大学"])[0].word_T.tolist())) == words


def size_in(message: str) -> int:
    """Return the possible size that an error of a trained tokenizer names."""
    match = re.search(r"yields (\d+)", message)
    assert match is not None
    return int(match[1])


def test_size_is_as_requested_or_the_error_gives_the_possible_size() -> None:
    assert train(WORDS * 5, 120).size == 120
    message = refused(TrainedTokenizer(), 5_000)
    assert message.startswith("base.data.vocab: 5000 requested, but the text yields ")
    number = size_in(message)
    assert train(WORDS, number).size == number
    refused(TrainedTokenizer(), number + 1)
    message = refused(TrainedTokenizer(), 5_000, ideographs(300))
    number = size_in(message)
    assert number > 200, "every character is a word, so the alphabet fills the vocabulary"
    assert train(ideographs(300), number).size == number
    bert = refused(WordPieceFile(kind="wordpieces", file=BERT), 400)
    assert bert == "base.data.vocab: 400 requested, but the tokenizer has 30522 tokens; set 30522"


def unknown_share(vocabulary: Vocabulary, text: str) -> float:
    """Return the share of the text's characters that are [UNK] when encoded alone."""
    counts = Counter(character for character in text if not character.isspace())
    ids = vocabulary.encode(list(counts))
    lost = sum(count for count, row in zip(counts.values(), ids, strict=True) if UNK in row)
    return lost / sum(counts.values())


def ideographs(kinds: int) -> str:
    """Return a text of `kinds` different characters with Zipf-distributed frequencies."""
    chance = random.Random(11)  # noqa: S311
    letters = [chr(0x4E00 + number) for number in range(kinds)]
    drawn = chance.choices(letters, [1 / (n + 1) for n in range(kinds)], k=60_000)
    return " ".join("".join(drawn[start : start + 20]) for start in range(0, len(drawn), 20))


def test_alphabet_covers_the_characters_of_the_text() -> None:
    english = (WORDS + "\u2603") * 300
    assert unknown_share(train(english, 150), english) <= 0.0005
    many = ideographs(3_000)
    merged = train(many, 9_000, ideographs=False)
    assert unknown_share(merged, many) <= 0.0005


@pytest.mark.parametrize(("whole", "count"), [(False, 497), (True, 995)])
def test_alphabet_of_a_full_vocabulary_has_the_most_frequent_characters(
    whole: bool, count: int
) -> None:
    """A character takes two tokens inside words, and one if every character is a word."""
    text = ideographs(3_000)
    vocabulary = train(text, 1_000, ideographs=whole)
    characters = {piece.removeprefix("##") for piece in vocabulary.tokenizer.get_vocab()} - set(
        SPECIAL
    )
    counts = Counter(text.replace(" ", ""))
    frequent = sorted(counts, key=lambda letter: (-counts[letter], letter))
    assert set(frequent[:count]) <= characters
    assert unknown_share(vocabulary, text) > 0.0005


def test_spelling_of_a_special_token_in_a_text_is_ordinary_text(
    bert: Vocabulary, tmp_path: Path
) -> None:
    own = train(f"{WORDS} [MASK] <s> " * 20, 150)
    byte_level = build_vocabulary(roberta(tmp_path), 400, list)
    for vocabulary in (bert, own, byte_level):
        spelled = [*vocabulary.special.values(), "[MASK]", "<s>", "a [CLS] b</s>", "[MASK][MASK]"]
        for ids in vocabulary.encode(spelled):
            assert len(ids)
            assert not set(ids.tolist()) & (set(range(FIRST_WORD)) - {UNK})
        for encoded in (*vocabulary.spans(spelled), *vocabulary.words([spelled])):
            assert not set(encoded.ids_T.tolist()) & (set(range(FIRST_WORD)) - {UNK})


def roberta(folder: Path) -> PretrainedTokenizer:
    """Save a byte-level BPE tokenizer with RoBERTa's special tokens through transformers."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = " ".join(f"{word}{n % 40}" for n in range(400) for word in WORDS.split())
    tokenizer.train_from_iterator([text], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    saved = RobertaTokenizerFast(vocab=model["vocab"], merges=merges)
    saved.save_pretrained(str(folder))
    return PretrainedTokenizer(kind="transformers", name=str(folder))


def bert_like(folder: Path) -> PretrainedTokenizer:
    """Save a WordPiece tokenizer with BERT's numbers: [PAD] 0, [UNK] 100, [MASK] 103."""
    names = pieces()[:104] + [piece for piece in pieces()[104:] if piece.isascii()][:3_000]
    saved = BertTokenizer(vocab={name: number for number, name in enumerate(names)})
    saved.save_pretrained(str(folder))
    return PretrainedTokenizer(kind="transformers", name=str(folder))


def load_reference(settings: PretrainedTokenizer) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(settings.name)


@pytest.mark.parametrize("make", [roberta, bert_like])
def test_tokens_of_a_saved_tokenizer_are_kept_with_special_ones_first(
    make: Any, tmp_path: Path
) -> None:
    settings = make(tmp_path / "saved")
    theirs = load_reference(settings)
    vocabulary = build_vocabulary(settings, len(theirs), list)
    assert vocabulary.special == {role: getattr(theirs, f"{role}_token") for role in ROLES}
    first = [getattr(theirs, f"{role}_token_id") for role in ROLES]
    assert vocabulary.outer_V[:FIRST_WORD].tolist() == first
    assert sorted(vocabulary.outer_V) == list(range(vocabulary.size))
    assert (np.diff(vocabulary.outer_V[FIRST_WORD:]) > 0).all(), "the other tokens keep their order"
    texts = [WORDS, "Überraschung! 漢字 🚀", "", "  two  spaces\n", "x" * 200]
    expected = [theirs(text, add_special_tokens=False)["input_ids"] for text in texts]
    ids = vocabulary.encode(texts)
    assert [vocabulary.outer_V[row].tolist() for row in ids] == expected
    vocabulary.save(tmp_path)
    again = open_vocabulary(tmp_path)
    assert [row.tolist() for row in again.encode(texts)] == [row.tolist() for row in ids]
    np.testing.assert_array_equal(again.outer_V, vocabulary.outer_V)
    assert again.fingerprint() == vocabulary.fingerprint() == tokenizer_identity(settings)


def test_outer_numbers_are_those_of_the_tokenizer(tmp_path: Path) -> None:
    vocabulary = build_vocabulary(bert_like(tmp_path), 3_104, list)
    assert vocabulary.outer_V[:FIRST_WORD].tolist() == [0, 100, 101, 102, 103]


def test_a_saved_tokenizer_without_a_special_token_is_refused(tmp_path: Path) -> None:
    roberta(tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"})
    )
    message = refused(PretrainedTokenizer(kind="transformers", name=str(tmp_path)))
    assert message.startswith(f"base.data.tokenizer.name: {tmp_path}: missing ")
    assert "mask_token" in message
    assert "pad_token" not in message


@pytest.mark.parametrize("content", [None, "{", '{"model": 3}'])
def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    message = refused(PretrainedTokenizer(kind="transformers", name=str(tmp_path)))
    assert message.startswith(f"base.data.tokenizer.name: {tmp_path}: ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\n".join([*SPECIAL, "a", "b", "a"]).encode(), "'a' occurs twice"),
        ("\n".join([*SPECIAL[:4], "a"]).encode(), "missing [MASK]"),
        ("\n".join(["a", "b"]).encode(), "missing [PAD], [UNK], [CLS], [SEP], [MASK]"),
        (b"\xff\xfe[PAD]", "not valid UTF-8"),
        (b"", "missing [PAD], [UNK], [CLS], [SEP], [MASK]"),
        (None, "No such file or directory"),
    ],
)
def test_a_bad_vocabulary_file_is_refused(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    file = tmp_path / "vocab.txt"
    if content is not None:
        file.write_bytes(content)
    message = refused(WordPieceFile(kind="wordpieces", file=str(file)))
    assert message == f"base.data.tokenizer.file: {file}: {expected}"


@pytest.mark.reported
def test_a_pipe_instead_of_a_vocabulary_file_is_refused(tmp_path: Path) -> None:
    """Opening it would wait for a writer."""
    os.mkfifo(tmp_path / "vocab.txt")
    message = refused(WordPieceFile(kind="wordpieces", file=str(tmp_path / "vocab.txt")))
    assert message.endswith("vocab.txt: not a regular file")


def test_a_vocabulary_file_may_have_any_line_ends(tmp_path: Path) -> None:
    names = [*SPECIAL, "a", "##b", "\u2028", "\x85"]
    vocabularies = []
    for number, end in enumerate(["\n", "\r\n"]):
        file = tmp_path / f"{number}.txt"
        file.write_bytes((end.join(names) + end).encode())
        settings = WordPieceFile(kind="wordpieces", file=str(file))
        vocabularies.append(build_vocabulary(settings, len(names), list).tokenizer.get_vocab())
    assert vocabularies[0] == vocabularies[1] == {name: number for number, name in enumerate(names)}


SENTENCES = ["The café isn't far.", "漢字 and 🚀 rockets", "", "Ünïcödé  wörds\tx"]


@pytest.mark.parametrize("make", [roberta, bert_like])
def test_words_and_spans_agree_with_encode(make: Any, tmp_path: Path) -> None:
    settings = make(tmp_path)
    vocabulary = build_vocabulary(settings, len(load_reference(settings)), list)
    whole = vocabulary.encode(SENTENCES)
    for text, ids, encoded in zip(SENTENCES, whole, vocabulary.spans(SENTENCES), strict=True):
        assert encoded.ids_T.tolist() == ids.tolist()
        assert encoded.span_T2.shape == (len(ids), 2)
        assert (encoded.span_T2[:, 0] <= encoded.span_T2[:, 1]).all()
        assert encoded.span_T2.size == 0 or encoded.span_T2.max() <= len(text)
        assert (np.diff(encoded.span_T2[:, 0]) >= 0).all()
    words = [text.split() for text in SENTENCES]
    for sentence, encoded in zip(words, vocabulary.words(words), strict=True):
        for number, word in enumerate(sentence):
            in_word_T = encoded.word_T == number
            alone = vocabulary.encode([word])[0].tolist()
            assert encoded.ids_T[in_word_T].tolist() == alone
            assert encoded.span_T2[in_word_T].max() <= len(word)


def test_spans_give_the_characters_of_each_token() -> None:
    text = "The CAT, über  alles!\nsat 漢字"
    vocabulary = train(f"{text} {WORDS} " * 30, 150, accents="strip")
    encoded = vocabulary.spans([text])[0]
    plain = str.maketrans("Üü", "uu")
    for spelled, (start, end) in zip(spellings(vocabulary, text), encoded.span_T2, strict=True):
        assert text[start:end].lower().translate(plain) == spelled.removeprefix("##")
