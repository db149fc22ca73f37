"""Tokens: BERT's where they are to be, the same each time, and a given tokenizer's own."""

import json
import os
import random
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


def trained(text: str, vocab: int = 300, **how: Any) -> Vocabulary:
    return build_vocabulary(TrainedTokenizer(**how), vocab, lambda: [text])


def refused(settings: Any, vocab: int = 400, text: str = WORDS) -> str:
    """Return what is said where a vocabulary is refused, which is one line."""
    with pytest.raises(UserError) as error:
        build_vocabulary(settings, vocab, lambda: [text])
    said = str(error.value)
    assert "\n" not in said
    return said


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
def test_berts_vocabulary_gives_berts_tokens(bert: Vocabulary, reference: Any, text: str) -> None:
    expected = reference(text, add_special_tokens=False)["input_ids"]
    if not any(token in text for token in SPECIAL):
        assert bert.outer_V[bert.encode([text])[0]].tolist() == expected


def test_berts_template_is_that_of_transformers(bert: Vocabulary, reference: Any) -> None:
    ours = bert.tokenizer.encode("a first one", "and a second")
    theirs = reference("a first one", "and a second")
    assert ours.ids == theirs["input_ids"]
    assert ours.type_ids == theirs["token_type_ids"]


def test_training_twice_gives_the_same_vocabulary() -> None:
    code = (
        "import random\n"
        "from lab.config.data import TrainedTokenizer\n"
        "from lab.data.tokenizers import build_vocabulary\n"
        "chance = random.Random(5)\n"
        "letters = 'aábcdeëfghijklmnoprstuvyzåäöαβγ日本語漢字かな'\n"
        "words = [''.join(chance.choices(letters, k=chance.randint(1, 6))) for _ in range(900)]\n"
        "texts = [' '.join(chance.choices(words, k=30)) for _ in range(200)]\n"
        "settings = TrainedTokenizer(accents='keep')\n"
        "made = build_vocabulary(settings, 700, lambda: iter(texts))\n"
        "print(made.fingerprint())\n"
    )
    made = [
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
    assert made[0].strip()
    assert len(set(made)) == 1


@pytest.mark.parametrize(
    ("text", "how", "expected"),
    [
        ("Äiti ÄITI", {}, {"a", "i", "t"}),
        ("Äiti ÄITI", {"accents": "keep"}, {"ä", "i", "t"}),
        ("Äiti", {"accents": "keep", "cased": True}, {"Ä", "i", "t"}),
        ("Äiti", {"accents": "strip", "cased": True}, {"A", "i", "t"}),
        ("Άλφα", {"accents": "keep"}, {"ά", "λ", "φ", "α"}),
        ("Άλφα", {}, {"α", "λ", "φ"}),
        ("Việt", {"accents": "keep"}, {"v", "i", "ệ", "t"}),
        ("Việt", {}, {"v", "i", "e", "t"}),
        ("Vie\u0323\u0302t", {"accents": "keep"}, {"v", "i", "ệ", "t"}),
        ("Ａｂ１", {"normalization": "nfkc"}, {"a", "b", "1"}),
        ("Ａｂ１", {}, {"ａ", "ｂ", "１"}),
        ("ﬁ", {"normalization": "nfkc"}, {"f", "i"}),
        ("ﬁ", {}, {"ﬁ"}),
    ],
)
def test_letters_are_kept_as_asked(text: str, how: dict[str, Any], expected: set[str]) -> None:
    rest = WORDS * 20 if how.get("cased") else WORDS.lower() * 20
    vocabulary = trained(f"{text} " * 2_000 + rest, 100, **how)
    assert {letter for word in spellings(vocabulary, text) for letter in word} - {"#"} == expected


@pytest.mark.parametrize(("ideographs", "words"), [(True, 4), (False, 1)])
def test_ideographs_are_words_where_asked(ideographs: bool, words: int) -> None:
    vocabulary = trained("東京大学 " * 30 + WORDS * 20, 100, ideographs=ideographs)
    assert len(set(vocabulary.spans(["東京大学"])[0].word_T.tolist())) == words


def test_size_is_what_was_asked_or_the_right_number_is_told() -> None:
    assert trained(WORDS * 5, 120).size == 120
    said = refused(TrainedTokenizer(), 5_000)
    assert said.startswith("data.vocab: 5000 asked for, and the text yields ")
    number = int(said.rsplit("yields ", 1)[1].partition(";")[0])
    assert trained(WORDS, number).size == number
    refused(TrainedTokenizer(), number + 1)
    said = refused(TrainedTokenizer(), 5_000, ideographs(300))
    number = int(said.rsplit("yields ", 1)[1].partition(";")[0])
    assert number > 200, "every character is a word, and so the whole vocabulary an alphabet"
    assert trained(ideographs(300), number).size == number
    bert = refused(WordPieceFile(kind="wordpieces", file=BERT), 400)
    assert bert == "data.vocab: 400 asked for, and there are 30522; write 30522"


def unknown_share(vocabulary: Vocabulary, text: str) -> float:
    """Return the share of a text's characters that are unknown, each asked for by itself."""
    counts = Counter(character for character in text if not character.isspace())
    ids = vocabulary.encode(list(counts))
    lost = sum(count for count, row in zip(counts.values(), ids, strict=True) if UNK in row)
    return lost / sum(counts.values())


def ideographs(kinds: int) -> str:
    """Return a text of so many characters, the n-th one with a share of about 1/n."""
    chance = random.Random(11)  # noqa: S311
    letters = [chr(0x4E00 + number) for number in range(kinds)]
    drawn = chance.choices(letters, [1 / (n + 1) for n in range(kinds)], k=60_000)
    return " ".join("".join(drawn[at : at + 20]) for at in range(0, len(drawn), 20))


def test_alphabet_covers_the_text() -> None:
    english = (WORDS + "\u2603") * 300
    assert unknown_share(trained(english, 150), english) <= 0.0005
    many = ideographs(3_000)
    merged = trained(many, 9_000, ideographs=False)
    assert unknown_share(merged, many) <= 0.0005


@pytest.mark.parametrize(("whole", "kept"), [(False, 497), (True, 995)])
def test_alphabet_is_the_most_frequent_where_the_vocabulary_is_full(whole: bool, kept: int) -> None:
    """Two tokens a character within words, one where each is a word."""
    text = ideographs(3_000)
    vocabulary = trained(text, 1_000, ideographs=whole)
    held = {piece.removeprefix("##") for piece in vocabulary.tokenizer.get_vocab()} - set(SPECIAL)
    counts = Counter(text.replace(" ", ""))
    frequent = sorted(counts, key=lambda letter: (-counts[letter], letter))
    assert set(frequent[:kept]) <= held
    assert unknown_share(vocabulary, text) > 0.0005


def test_text_that_spells_a_special_token_is_text(bert: Vocabulary, tmp_path: Path) -> None:
    own = trained(f"{WORDS} [MASK] <s> " * 20, 150)
    byte_level = build_vocabulary(roberta(tmp_path), 400, list)
    for vocabulary in (bert, own, byte_level):
        spelled = [*vocabulary.special.values(), "[MASK]", "<s>", "a [CLS] b</s>", "[MASK][MASK]"]
        for ids in vocabulary.encode(spelled):
            assert len(ids)
            assert not set(ids.tolist()) & (set(range(FIRST_WORD)) - {UNK})
        for found in (*vocabulary.spans(spelled), *vocabulary.words([spelled])):
            assert not set(found.ids_T.tolist()) & (set(range(FIRST_WORD)) - {UNK})


def roberta(folder: Path, **less: Any) -> PretrainedTokenizer:
    """Save a byte-level BPE with RoBERTa's special tokens, as transformers does."""
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
    """Save a WordPiece tokenizer numbered as BERT's: [PAD] is 0, [UNK] 100, [MASK] 103."""
    names = pieces()[:104] + [piece for piece in pieces()[104:] if piece.isascii()][:3_000]
    saved = BertTokenizer(vocab={name: number for number, name in enumerate(names)})
    saved.save_pretrained(str(folder))
    return PretrainedTokenizer(kind="transformers", name=str(folder))


def loaded(settings: PretrainedTokenizer) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(settings.name)


@pytest.mark.parametrize("make", [roberta, bert_like])
def test_a_saved_tokenizer_keeps_its_tokens_and_special_ones_come_first(
    make: Any, tmp_path: Path
) -> None:
    settings = make(tmp_path / "given")
    theirs = loaded(settings)
    vocabulary = build_vocabulary(settings, len(theirs), list)
    assert vocabulary.special == {role: getattr(theirs, f"{role}_token") for role in ROLES}
    first = [getattr(theirs, f"{role}_token_id") for role in ROLES]
    assert vocabulary.outer_V[:FIRST_WORD].tolist() == first
    assert sorted(vocabulary.outer_V) == list(range(vocabulary.size))
    assert (np.diff(vocabulary.outer_V[FIRST_WORD:]) > 0).all(), "the rest in its own order"
    texts = [WORDS, "Überraschung! 漢字 🚀", "", "  two  spaces\n", "x" * 200]
    expected = [theirs(text, add_special_tokens=False)["input_ids"] for text in texts]
    ids = vocabulary.encode(texts)
    assert [vocabulary.outer_V[row].tolist() for row in ids] == expected
    vocabulary.save(tmp_path)
    again = open_vocabulary(tmp_path)
    assert [row.tolist() for row in again.encode(texts)] == [row.tolist() for row in ids]
    np.testing.assert_array_equal(again.outer_V, vocabulary.outer_V)
    assert again.fingerprint() == vocabulary.fingerprint() == tokenizer_identity(settings)


def test_bert_like_numbers_are_not_the_labs(tmp_path: Path) -> None:
    vocabulary = build_vocabulary(bert_like(tmp_path), 3_104, list)
    assert vocabulary.outer_V[:FIRST_WORD].tolist() == [0, 100, 101, 102, 103]


def test_a_saved_tokenizer_without_a_special_token_is_refused(tmp_path: Path) -> None:
    roberta(tmp_path)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        (tmp_path / name).unlink(missing_ok=True)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"})
    )
    said = refused(PretrainedTokenizer(kind="transformers", name=str(tmp_path)))
    assert said.startswith(f"data.tokenizer.name: {tmp_path}: it has no ")
    assert "mask_token" in said
    assert "pad_token" not in said


@pytest.mark.parametrize("content", [None, "{", '{"model": 3}'])
def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    said = refused(PretrainedTokenizer(kind="transformers", name=str(tmp_path)))
    assert said.startswith(f"data.tokenizer.name: {tmp_path}: ")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\n".join([*SPECIAL, "a", "b", "a"]).encode(), "'a' stands twice"),
        ("\n".join([*SPECIAL[:4], "a"]).encode(), "no [MASK]"),
        ("\n".join(["a", "b"]).encode(), "no [PAD], [UNK], [CLS], [SEP], [MASK]"),
        (b"\xff\xfe[PAD]", "not UTF-8"),
        (b"", "no [PAD], [UNK], [CLS], [SEP], [MASK]"),
        (None, "No such file or directory"),
    ],
)
def test_a_bad_vocabulary_file_is_refused(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    file = tmp_path / "vocab.txt"
    if content is not None:
        file.write_bytes(content)
    said = refused(WordPieceFile(kind="wordpieces", file=str(file)))
    assert said == f"data.tokenizer.file: {file}: {expected}"


def test_a_vocabulary_file_may_end_its_lines_in_any_way(tmp_path: Path) -> None:
    names = [*SPECIAL, "a", "##b", "\u2028", "\x85"]
    made = []
    for number, end in enumerate(["\n", "\r\n"]):
        file = tmp_path / f"{number}.txt"
        file.write_bytes((end.join(names) + end).encode())
        settings = WordPieceFile(kind="wordpieces", file=str(file))
        made.append(build_vocabulary(settings, len(names), list).tokenizer.get_vocab())
    assert made[0] == made[1] == {name: number for number, name in enumerate(names)}


SENTENCES = ["The café isn't far.", "漢字 and 🚀 rockets", "", "Ünïcödé  wörds\tx"]


@pytest.mark.parametrize("make", [roberta, bert_like])
def test_words_and_spans_agree_with_encode(make: Any, tmp_path: Path) -> None:
    settings = make(tmp_path)
    vocabulary = build_vocabulary(settings, len(loaded(settings)), list)
    whole = vocabulary.encode(SENTENCES)
    for text, ids, found in zip(SENTENCES, whole, vocabulary.spans(SENTENCES), strict=True):
        assert found.ids_T.tolist() == ids.tolist()
        assert found.span_T2.shape == (len(ids), 2)
        assert (found.span_T2[:, 0] <= found.span_T2[:, 1]).all()
        assert found.span_T2.size == 0 or found.span_T2.max() <= len(text)
        assert (np.diff(found.span_T2[:, 0]) >= 0).all()
    words = [text.split() for text in SENTENCES]
    for sentence, found in zip(words, vocabulary.words(words), strict=True):
        for number, word in enumerate(sentence):
            mine_T = found.word_T == number
            alone = vocabulary.encode([word])[0].tolist()
            assert found.ids_T[mine_T].tolist() == alone
            assert found.span_T2[mine_T].max() <= len(word)


def test_spans_are_where_tokens_stand_in_the_text() -> None:
    text = "The CAT, über  alles!\nsat 漢字"
    vocabulary = trained(f"{text} {WORDS} " * 30, 150)
    found = vocabulary.spans([text])[0]
    plain = str.maketrans("Üü", "uu")
    for spelled, (start, end) in zip(spellings(vocabulary, text), found.span_T2, strict=True):
        assert text[start:end].lower().translate(plain) == spelled.removeprefix("##")
