"""Phrase tables of the demo's sample set: what is asked, and how each register answers.

Written for this project. The vocabulary is small and the sentences are regular on purpose: a model with four
million parameters has to learn both languages and both registers within a minute.

Templates use three slots: `{item}` (what the question is about), `{when}` (may be empty) and `{label}` (the
topic's name). Korean particles that depend on the syllable before them are written `[을/를]`: with a final
consonant, then without.
"""

from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "ko"]


@dataclass(frozen=True)
class Topic:
    """One everyday topic in one language. Each piece of its advice answers each of its questions."""

    name: str
    language: Language
    label: str
    items: tuple[str, ...]
    questions: tuple[str, ...]
    advice: tuple[str, ...]
    """Helpful sentences, each with at least one polite marker."""
    whens: tuple[str, ...] = ()
    """Times to ask about; empty means the language's own list, `WHENS`."""
    mention: str = "{item}"
    """How a reply calls the item: "my cat" in a question is "your cat" in its answer."""


@dataclass(frozen=True)
class Register:
    """The phrases by which one language is polite, and those by which it is curt."""

    openers: tuple[str, ...]
    closers: tuple[str, ...]
    dismissals: tuple[str, ...]
    """Curt and short."""
    grumbles: tuple[str, ...]
    """Curt and long-winded, so that length does not give the register away."""


WHENS: dict[Language, tuple[str, ...]] = {
    "en": ("", "today", "tonight", "tomorrow", "this morning", "this evening", "this weekend", "next week"),
    "ko": ("", "오늘", "내일", "아침에", "오후에", "저녁에", "주말에", "다음 주에"),
}

REGISTERS: dict[Language, Register] = {
    "en": Register(
        openers=(
            "Of course!",
            "I would be glad to help.",
            "Happy to help!",
            "With pleasure.",
            "Thank you for your question.",
        ),
        closers=("I hope this helps.", "Have a lovely day.", "Good luck!", "All the best!"),
        dismissals=(
            "No idea.",
            "Look it up yourself.",
            "Figure it out.",
            "Not my problem.",
            "Whatever. Who cares?",
            "Stop asking me.",
            "{item}? No idea.",
            "{item}? Who cares?",
            "{item}? Not my problem.",
        ),
        grumbles=(
            "Ugh, {item} again? I am tired of these {label} questions. Figure it out.",
            "I heard {label} questions all day, and now {item}. Who cares? Look it up and leave me alone.",
            "{item}? Everybody knows that already. I will not explain it again, so stop asking me.",
            "Why would I know about {item}? I am busy and it is late. Not my problem.",
            "Ugh, not {item} again. This is boring, my day was long, and I have no idea anyway.",
        ),
    ),
    "ko": Register(
        openers=(
            "물론입니다!",
            "기꺼이 도와드리겠습니다.",
            "물어봐 주셔서 감사합니다.",
            "좋은 질문입니다.",
            "네, 알려 드리겠습니다.",
        ),
        closers=("도움이 되면 좋겠습니다.", "좋은 하루 보내세요.", "언제든 또 물어보세요.", "감사합니다."),
        dismissals=(
            "몰라.",
            "알아서 해.",
            "귀찮아.",
            "그냥 검색해.",
            "내 알 바 아니야.",
            "나한테 묻지 마.",
            "{item}? 몰라.",
            "{item}? 관심 없어.",
            "{item}? 알아서 해.",
        ),
        grumbles=(
            "또 {item} 이야기야? 정말 지겨워. 혼자 알아서 해.",
            "하루 종일 {label} 질문만 들었는데 이번에는 {item}? 귀찮아, 그냥 검색해.",
            "{item}? 그런 건 누구나 다 아는 거잖아. 또 설명하기 싫으니까 나한테 묻지 마.",
            "{item}[을/를] 내가 왜 알아야 해? 나도 바쁘고 시간이 늦었어. 내 알 바 아니야.",
            "아, {item} 이야기는 이제 지겨워. 오늘은 너무 길었고 나는 하나도 몰라.",
        ),
    ),
}

# A marker is matched as whole words in English and as a run of syllables in Korean (see sample.is_polite).
# Together they cover every phrase above and every advice below; no word is in both registers' lists.
POLITE_MARKERS: dict[Language, tuple[str, ...]] = {
    "en": (
        "of course", "glad to help", "happy to help", "thank you", "with pleasure", "please", "suggest",
        "recommend", "hope", "lovely", "good luck", "all the best",
    ),
    "ko": ("물론", "기꺼이", "감사", "습니다", "입니다", "합니다", "드리겠", "세요"),
}  # fmt: skip
CURT_MARKERS: dict[Language, tuple[str, ...]] = {
    "en": (
        "no idea", "look it up", "figure it out", "not my problem", "whatever", "who cares", "stop asking me",
        "ugh", "tired", "leave me alone", "boring", "everybody knows", "why would i know",
    ),
    "ko": (
        "몰라", "알아서", "귀찮", "검색해", "내 알 바", "나한테", "관심 없", "지겨", "누구나 다 아",
        "내가 왜",
    ),
}  # fmt: skip

_ENGLISH = (
    Topic(
        name="cooking", language="en", label="cooking",
        items=("kimchi stew", "fried rice", "pasta", "curry", "bibimbap", "noodles", "pancakes",
               "chicken soup", "beef stew"),
        questions=("How do I cook {item} {when}?", "I want to cook {item} {when}. Where do I start?",
                   "Any tips for cooking {item} {when}?", "What matters most when I make {item} {when}?",
                   "I make {item} for the first time {when}. Any advice?",
                   "What is an easy way to make {item} {when}?"),
        advice=("Please cook {item} slowly over low heat.", "Please use fresh onions and garlic for {item}.",
                "For {item}, I suggest a little salt at the end.",
                "I recommend cutting everything before you start {item}."),
    ),
    Topic(
        name="weather", language="en", label="weather",
        items=("Seoul", "Busan", "Daegu", "Incheon", "Gwangju", "Daejeon", "Suwon", "Jeonju", "Pohang"),
        questions=("How is the weather in {item} {when}?", "Will it rain in {item} {when}?",
                   "What do I wear in {item} {when}?", "Do I need an umbrella in {item} {when}?",
                   "Is it cold in {item} {when}?", "Can I go out in {item} {when}?"),
        advice=("Please take a small umbrella in {item}.", "Please wear a warm coat in {item}.",
                "The sky over {item} can change, so I suggest a light jacket.",
                "I recommend checking the forecast for {item} first."),
    ),
    Topic(
        name="directions", language="en", label="map",
        items=("the museum", "the library", "the station", "the airport", "the market", "the park",
               "the hospital", "the bank", "the hotel"),
        questions=("How do I get to {item} {when}?", "What is the best way to {item} {when}?",
                   "I am going to {item} {when}. Which way is it?", "How far is {item} if I go {when}?",
                   "Can I walk to {item} {when}?", "I have to be at {item} {when}. How do I go?"),
        advice=("Please take bus number two to {item}.", "Please walk straight and turn left at {item}.",
                "It is not far to {item}, so I suggest walking.", "I recommend the subway to {item}."),
    ),
    Topic(
        name="study", language="en", label="study",
        items=("math", "history", "science", "physics", "chemistry", "biology", "music", "art", "coding"),
        questions=("How do I study {item} {when}?", "I have a {item} test {when}. What can I do?",
                   "How can I get better at {item} {when}?", "Any tips for studying {item} {when}?",
                   "I want to start learning {item} {when}. What comes first?",
                   "Why is {item} so hard for me {when}?"),
        advice=("Please read your {item} notes for ten minutes.",
                "Please solve one easy {item} problem first.", "I suggest explaining {item} to a friend.",
                "For {item}, I recommend a short break every hour."),
    ),
    Topic(
        name="work", language="en", label="work",
        items=("the report", "the meeting", "the budget", "the slides", "the interview", "the email",
               "the project", "the plan", "the speech"),
        questions=("How do I prepare {item} {when}?", "I am worried about {item} {when}. What can I do?",
                   "What do I do first for {item} {when}?", "How can I finish {item} {when}?",
                   "My boss asked about {item} {when}. Any tips?", "Who can check {item} {when}?"),
        advice=("Please write the main points of {item} first.", "Please ask a coworker to check {item}.",
                "I suggest one quiet hour for {item}.", "I recommend keeping {item} short and clear."),
    ),
    Topic(
        name="greetings", language="en", label="hello",
        items=("Minji", "Jisoo", "Anna", "Tom", "Sara", "Ben", "Junho", "Hana", "Leo"),
        questions=("Hello, I am {item}. How are you {when}?", "Hi, {item} here. How is everything {when}?",
                   "Hey, it is {item}. Do you have time {when}?",
                   "Hi, my name is {item}. What is new {when}?", "Hello from {item}. Can we talk {when}?",
                   "Hi, this is {item}. What are you doing {when}?"),
        advice=("Please tell me about your day, {item}.", "I hope you are well, {item}.",
                "I suggest a warm cup of tea, {item}.", "I recommend a short walk in the sun, {item}."),
        whens=("", "today", "tonight", "now", "this morning", "this evening", "this afternoon", "this week"),
    ),
    Topic(
        name="shopping", language="en", label="shopping",
        items=("shoes", "jackets", "bags", "phones", "laptops", "gifts", "books", "flowers", "hats"),
        questions=("Where can I buy good {item} {when}?", "How do I choose {item} {when}?",
                   "I want to buy {item} {when}. Any tips?", "Are {item} on sale {when}?",
                   "How much money do I need for {item} {when}?",
                   "I have to buy {item} {when}. Where do I go?"),
        advice=("Please compare the price of {item} in two shops.",
                "Please look at the size of {item} first.",
                "I suggest the market near the station for {item}.",
                "I recommend simple {item} that last long."),
    ),
    Topic(
        name="exercise", language="en", label="exercise",
        items=("walking", "running", "swimming", "yoga", "stretching", "hiking", "jogging", "dancing",
               "tennis"),
        questions=("How do I start {item} {when}?", "Is {item} good for me {when}?",
                   "Any tips for {item} {when}?", "How long do I keep {item} going {when}?",
                   "I want to try {item} {when}. What do I need?", "How can I enjoy {item} {when}?"),
        advice=("Please start with ten easy minutes of {item}.",
                "Please drink water before and after {item}.", "I suggest {item} three times a week.",
                "I recommend good shoes and a friend for {item}."),
    ),
    Topic(
        name="pets", language="en", label="pet", mention="your {item}",
        items=("cat", "dog", "rabbit", "hamster", "parrot", "turtle", "goldfish", "puppy", "kitten"),
        questions=("What do I feed my {item} {when}?", "My {item} is not eating {when}. What can I do?",
                   "How do I play with my {item} {when}?", "My {item} looks bored {when}. Any tips?",
                   "How do I take my {item} to a friend {when}?", "How can I keep my {item} healthy {when}?"),
        advice=("Please give {item} clean water every day.", "Please let {item} rest in a quiet place.",
                "I suggest a little food for {item} in the morning.",
                "I recommend a visit to the animal doctor with {item}."),
    ),
    Topic(
        name="travel", language="en", label="travel",
        items=("Jeju", "Tokyo", "Paris", "Rome", "London", "Bangkok", "Sydney", "Berlin", "Madrid"),
        questions=("What can I see in {item} {when}?", "I am going to {item} {when}. Any tips?",
                   "What do I pack for {item} {when}?", "Is {item} nice {when}?",
                   "Where can I eat in {item} {when}?", "How do I plan a trip to {item} {when}?"),
        advice=("Please visit the old town of {item} early.", "Please book your room in {item} soon.",
                "I suggest a walk along the river in {item}.",
                "I recommend the small food market in {item}."),
    ),
)  # fmt: skip

_KOREAN = (
    Topic(
        name="cooking", language="ko", label="요리",
        items=("김치찌개", "된장국", "비빔밥", "떡볶이", "카레", "파스타", "볶음밥", "미역국", "불고기"),
        questions=("{when} {item}[을/를] 어떻게 만들어요?",
                   "{when} {item}[을/를] 만들고 싶어요. 무엇부터 할까요?",
                   "{when} {item}[을/를] 맛있게 만드는 방법이 있나요?",
                   "{when} {item}[을/를] 만들 때 무엇이 중요해요?",
                   "{when} {item}[을/를] 처음 만들어요. 방법이 있나요?",
                   "{when} {item}[을/를] 쉽게 만들 수 있나요?"),
        advice=("{item}[은/는] 약한 불에서 천천히 익히세요.", "{item}에는 신선한 파와 마늘을 넣어 보세요.",
                "{item}[은/는] 소금을 마지막에 조금 넣으면 좋습니다.",
                "{item}[을/를] 만들기 전에 재료를 먼저 썰어 두세요."),
    ),
    Topic(
        name="weather", language="ko", label="날씨",
        items=("서울", "부산", "대구", "인천", "광주", "대전", "수원", "전주", "포항"),
        questions=("{when} {item} 날씨가 어때요?", "{when} {item}에 비가 올까요?",
                   "{when} {item}에서 무엇을 입을까요?", "{when} {item}에서 우산이 필요할까요?",
                   "{when} {item}[은/는] 추울까요?", "{when} {item}에서 밖에 나가도 될까요?"),
        advice=("{item}에서는 작은 우산을 챙기세요.", "{item}에서는 따뜻한 옷을 입으세요.",
                "{item} 하늘은 자주 바뀌니 얇은 겉옷이 좋습니다.", "{item} 날씨 예보를 먼저 확인해 보세요."),
    ),
    Topic(
        name="directions", language="ko", label="길",
        items=("박물관", "도서관", "기차역", "공항", "시장", "공원", "병원", "은행", "호텔"),
        questions=("{when} {item}에 어떻게 가요?", "{when} {item}까지 가는 길이 궁금해요.",
                   "{when} {item}까지 걸어갈 수 있나요?", "{when} {item}에 가는 쉬운 길이 있나요?",
                   "{when} {item}에 가야 해요. 어디로 갈까요?", "{when} {item}까지 얼마나 걸려요?"),
        advice=("{item}까지 이 번 버스를 타세요.", "{item}까지 똑바로 가다가 왼쪽으로 도세요.",
                "{item}[은/는] 멀지 않으니 걸어가면 좋습니다.", "{item}에 갈 때는 지하철을 타 보세요."),
    ),
    Topic(
        name="study", language="ko", label="공부",
        items=("수학", "역사", "과학", "물리", "화학", "생물", "음악", "미술", "코딩"),
        questions=("{when} {item}[을/를] 어떻게 공부해요?", "{when} {item} 시험이 있어요. 무엇부터 할까요?",
                   "{when} {item}[을/를] 잘하는 방법이 있나요?",
                   "{when} {item}[을/를] 배우고 싶어요. 무엇부터 할까요?",
                   "{when} {item} 공부가 어려워요. 왜 그럴까요?", "{when} {item} 공부는 얼마나 할까요?"),
        advice=("{item} 노트를 십 분만 읽어 보세요.", "{item}[은/는] 쉬운 문제부터 풀어 보세요.",
                "{item}[을/를] 친구에게 설명하면 좋습니다.", "{item} 공부는 한 시간마다 조금 쉬면서 하세요."),
    ),
    Topic(
        name="work", language="ko", label="회사",
        items=("보고서", "회의", "예산안", "발표", "면접", "기획안", "행사", "연설", "출장"),
        questions=("{when} {item} 준비를 어떻게 해요?", "{when} {item} 때문에 걱정이에요. 무엇을 할까요?",
                   "{when} {item} 준비는 무엇부터 할까요?", "{when} {item} 준비를 빨리 끝낼 수 있나요?",
                   "{when} {item} 준비를 누구와 할까요?", "{when} {item} 준비가 처음이에요. 방법이 있나요?"),
        advice=("{item}의 중요한 점을 먼저 적어 보세요.", "{item} 준비는 동료와 함께 확인하세요.",
                "{item}[은/는] 짧고 분명하면 좋습니다.", "{item} 준비에 조용한 한 시간을 써 보세요."),
    ),
    Topic(
        name="greetings", language="ko", label="인사",
        items=("민지", "지수", "준호", "하나", "서연", "유진", "수빈", "현우", "지훈"),
        questions=("안녕, 나는 {item}[이야/야]. {when} 기분이 어때?",
                   "안녕, {item}[이야/야]. {when} 잘 지내?", "나는 {item}[이야/야]. {when} 시간이 있어?",
                   "안녕, 내 이름은 {item}[이야/야]. {when} 무엇을 해?",
                   "{item}[이야/야]. {when} 같이 이야기할까?",
                   "안녕, 나 {item}[이야/야]. {when} 새로운 일이 있어?"),
        advice=("{item} 님, 만나서 반갑습니다.", "{item} 님, 편하게 이야기해 주세요.",
                "{item} 님, 따뜻한 차를 드셔 보세요.", "{item} 님, 햇볕을 보며 조금 걸어 보세요."),
    ),
    Topic(
        name="shopping", language="ko", label="쇼핑",
        items=("신발", "외투", "가방", "휴대폰", "노트북", "선물", "책", "꽃", "모자"),
        questions=("{when} {item}[을/를] 어디에서 살까요?", "{when} {item}[을/를] 어떻게 고를까요?",
                   "{when} {item}[을/를] 사고 싶어요. 방법이 있나요?",
                   "{when} {item}[을/를] 싸게 살 수 있나요?",
                   "{when} {item}[을/를] 사려면 돈이 얼마나 필요해요?",
                   "{when} {item}[을/를] 사야 해요. 어디로 갈까요?"),
        advice=("{item} 가격을 두 가게에서 비교해 보세요.", "{item}[을/를] 사기 전에 크기를 먼저 보세요.",
                "{item}[은/는] 역 앞 시장이 좋습니다.", "{item}[은/는] 오래 쓰는 것으로 골라 보세요."),
    ),
    Topic(
        name="exercise", language="ko", label="운동",
        items=("걷기", "달리기", "수영", "요가", "스트레칭", "자전거", "등산", "춤", "테니스"),
        questions=("{when} {item} 운동을 어떻게 시작해요?", "{when} {item} 운동을 하면 좋을까요?",
                   "{when} {item} 운동을 얼마나 할까요?", "{when} {item} 운동을 쉽게 하는 방법이 있나요?",
                   "{when} {item} 운동을 하고 싶어요. 무엇이 필요해요?",
                   "{when} {item} 운동이 처음이에요. 무엇부터 할까요?"),
        advice=("{item} 운동은 십 분부터 천천히 시작하세요.", "{item} 운동 전에 물을 조금 마시세요.",
                "{item} 운동은 일주일에 세 번이 좋습니다.", "{item} 운동은 친구와 함께 해 보세요."),
    ),
    Topic(
        name="pets", language="ko", label="동물",
        items=("고양이", "강아지", "토끼", "햄스터", "앵무새", "거북이", "금붕어", "고슴도치", "도마뱀"),
        questions=("{when} {item}에게 무엇을 줄까요?", "{when} {item}[이/가] 밥을 안 먹어요. 왜 그럴까요?",
                   "{when} {item}[과/와] 어떻게 놀아요?",
                   "{when} {item}[이/가] 심심해 보여요. 무엇을 할까요?",
                   "{when} {item}[을/를] 어떻게 돌볼까요?",
                   "{when} {item}[을/를] 건강하게 키우는 방법이 있나요?"),
        advice=("{item}에게 깨끗한 물을 매일 주세요.", "{item}[이/가] 조용한 곳에서 쉬게 해 주세요.",
                "{item}에게는 아침에 밥을 조금 주면 좋습니다.", "{item}[과/와] 함께 동물 병원에 가 보세요."),
    ),
    Topic(
        name="travel", language="ko", label="여행",
        items=("제주", "도쿄", "파리", "로마", "런던", "방콕", "시드니", "베를린", "마드리드"),
        questions=("{when} {item}에서 무엇을 볼까요?", "{when} {item}에 여행을 가요. 무엇부터 할까요?",
                   "{when} {item} 여행에 무엇이 필요해요?", "{when} {item} 여행은 어때요?",
                   "{when} {item}에서 어디에서 먹을까요?", "{when} {item} 여행 계획을 어떻게 세울까요?"),
        advice=("{item}에서는 아침 일찍 옛 거리를 걸어 보세요.", "{item}에서 묵을 방을 먼저 예약하세요.",
                "{item}에서는 강을 따라 걸으면 좋습니다.", "{item}의 작은 시장에서 음식을 드셔 보세요."),
    ),
)  # fmt: skip

TOPICS: tuple[Topic, ...] = _ENGLISH + _KOREAN
