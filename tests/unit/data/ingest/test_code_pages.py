"""Wrong code pages: damage is made by really decoding with them, and healthy text of many kinds stays healthy."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayrlhf.data.ingest.code_pages import wrong_code_page

KOREAN = [
    "안녕하세요",
    "고마워요. 내일 만나요!",
    "오늘 날씨 어때? 3시에 보자",
    "조선시대에 대해 알려줘",
    "AI 언어 모델이 뭐야?\n“정말” 궁금해…",
]

OTHERS = [
    "naïve café",
    "Das Wetter ist schön, Grüße aus Köln",
    "¿Dónde está la biblioteca?",
    "“Curly quotes” – it’s fine…",
    "I love it 😀👍",
    "Привет, как дела?",
    "東京に行きたいです",
    "我不知道",
]

HEALTHY = [
    *KOREAN,
    *OTHERS,
    "",
    "plain ASCII, for x in y: print(f'{x!r}')",
    "네",
    "뭐해?",
    "됬어 ㅋㅋ 앜 왘 뷁 똠방각하",
    "키 커? 카드 처 체 책 USB키 PC책 3천 원",
    "?가? 나? 다? 라? 정말? 왜? 응? 뭐?",
    "大韓民國은 民主共和國이다.",
    "國 家 와 人 民 이 다",
    "春眠不覺曉，處處聞啼鳥。",
    "「はい」と言った。カタカナもＡＢＣも…？",
    "Le cœur déçu mais l’âme plutôt naïve, Louÿs rêva de crapaüter en canoë",
    "À É È Ê Ç Ù, ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏ, créée, ÊTRE AIMÉE À NOËL",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. ÄÖÜ äöüß",
    "¿Él viene? ¡Ángel! ¿Última? El pingüino Wenceslao hizo kilómetros: «¡qué año!»",
    "À noite, vovô Kowalsky vê o ímã cair no pé do pinguim. ÇÃO ÇÕES NÃO",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία",
    "Съешь ещё этих мягких французских булок",
    "Trăm năm trong cõi người ta, chữ tài chữ mệnh khéo là ghét nhau. ĐÂY LÀ HÀ NỘI",
    "Pchnąć w tę łódź jeża lub ośm skrzyń fig. Příliš žluťoučký kůň. Çığ düştü.",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ≤ β², 3 × 4 ÷ 2 ± ½ ≠ ¾, 20°C, 5µm, m²·s⁻¹, √2 ≈ 1.41",
    "100€ – “quote” ‘single’ • bullet … ™ © ® §5 ¶ † ‡ £5 ¥100",
    "👩‍👩‍👧‍👦 ❤️ 🇰🇷 ¯\\_(ツ)_/¯ (╯°□°）╯︵ ┻━┻ ʕ•ᴥ•ʔ ಠ_ಠ",
    "s = 'é'.encode('utf-8')  # → b'\\xc3\\xa9'",
    "zero\u200bwidth\ufeff and\xa0no-break",
    "유지합니다.\ufffd\n2. 역동적인 성격",
    "\ufffd나\ufffd \ufffd",
]


@pytest.mark.parametrize("text", HEALTHY)
def test_healthy_text_is_left_alone(text):
    assert wrong_code_page(text) is None


@pytest.mark.parametrize("page", ["latin-1", "sloppy-windows-1252"])
@pytest.mark.parametrize("text", [*KOREAN, *OTHERS, "네"])
def test_utf8_read_as_a_western_code_page_is_found_and_read_again(text, page):
    import ftfy.bad_codecs  # noqa: F401 - registers the page as browsers read it, with no byte undefined

    found = wrong_code_page(text.encode().decode(page))
    assert found is not None and found.startswith("UTF-8 read as ")
    assert text[-2:] in found


@pytest.mark.parametrize("text", [*KOREAN, *OTHERS])
def test_utf8_read_as_cp1252_with_losses_is_found(text):
    assert wrong_code_page(text.encode().decode("cp1252", errors="replace"))


@pytest.mark.parametrize("page", ["latin-1", "cp1252"])
@pytest.mark.parametrize("text", KOREAN)
def test_korean_cp949_read_as_a_western_code_page_is_found_and_read_again(text, page):
    found = wrong_code_page(text.encode("cp949").decode(page))
    assert found is not None and found.startswith("CP949 read as ")
    assert text[-2:] in found


@pytest.mark.parametrize("text", KOREAN)
def test_korean_utf8_read_as_cp949_is_found(text):
    found = wrong_code_page(text.encode().decode("cp949", errors="replace"))
    assert found == "UTF-8 read as cp949, with characters lost"


def test_korean_utf8_that_cp949_could_read_without_losses_is_read_again():
    whole = "뭐해? 뭐해? 뭐해?"
    assert wrong_code_page(whole.encode().decode("cp949")) == f"UTF-8 read as cp949: reads {whole!r} when decoded again"


def test_losses_that_were_written_as_question_marks_are_seen_through():
    damaged = KOREAN[0].encode().decode("cp949", errors="replace").replace("\ufffd", "?")
    assert wrong_code_page(damaged) == "UTF-8 read as cp949, with characters lost"


def test_damage_to_a_part_of_healthy_text_is_found():
    damaged = "다음 문장을 번역해줘: she said itâ€™s fine"
    assert wrong_code_page(damaged) == "UTF-8 read as cp1252 in parts: reads 'it’s fine' when decoded again"


def test_ascii_and_hangul_are_decided_without_ftfy(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)  # to import it raises
    assert [wrong_code_page(text) for text in ("plain", *KOREAN)] == [None] * (len(KOREAN) + 1)


@given(st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3) | st.sampled_from(" .,?!ㅋㅠaZ09\n")))
def test_no_hangul_is_taken_for_damage(text):
    assert wrong_code_page(text) is None


@given(st.text())
def test_any_text_is_judged_without_an_error_and_always_alike(text):
    assert wrong_code_page(text) == wrong_code_page(text)


def test_lost_characters_are_no_wrong_code_page():
    assert wrong_code_page("유지합니다.\ufffd\n2. 역동적인\ufffd\ufffd 성격") is None
