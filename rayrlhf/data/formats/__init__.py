"""Formats: raw row → record. One module per schema; adding one is one module and one line in `FORMATS`."""

from rayrlhf.data.formats.base import GroupedRow, Row
from rayrlhf.data.formats.chat import Chat
from rayrlhf.data.formats.chat_pair import ChatPair
from rayrlhf.data.formats.dialsummeval import DialSummEval
from rayrlhf.data.formats.feedback_axis import FeedbackAxis
from rayrlhf.data.formats.feedback_comparison import FeedbackComparison
from rayrlhf.data.formats.hh_rlhf import HhRlhf
from rayrlhf.data.formats.instruction import Instruction
from rayrlhf.data.formats.kochatgpt_ranking import KochatgptRanking
from rayrlhf.data.formats.kochatgpt_sft import KochatgptSFT
from rayrlhf.data.formats.labeled_chat import LabeledChat
from rayrlhf.data.formats.labeled_completion import LabeledCompletion
from rayrlhf.data.formats.labeled_instruction import LabeledInstruction
from rayrlhf.data.formats.preference_pair import PreferencePair
from rayrlhf.data.formats.prompt_completion import PromptCompletion
from rayrlhf.data.formats.prompt_only import PromptOnly
from rayrlhf.data.formats.question_answer import QuestionAnswer
from rayrlhf.data.formats.raccoon_choice_a import RaccoonChoiceA
from rayrlhf.data.formats.raccoon_choice_b import RaccoonChoiceB
from rayrlhf.data.formats.raccoon_choice_c import RaccoonChoiceC
from rayrlhf.data.formats.raccoon_policy import RaccoonPolicy
from rayrlhf.data.formats.raccoon_prompts import RaccoonPrompts
from rayrlhf.data.formats.ranking import Ranking
from rayrlhf.data.formats.self_instruct import SelfInstruct
from rayrlhf.data.formats.songys import Songys
from rayrlhf.data.formats.text_line import TextLine
from rayrlhf.data.formats.vaiv_scores import VaivScores

FORMATS: tuple[type[Row], ...] = (
    VaivScores,
    KochatgptRanking,
    Ranking,
    RaccoonChoiceA,
    RaccoonChoiceB,
    RaccoonChoiceC,
    FeedbackComparison,
    FeedbackAxis,
    DialSummEval,
    ChatPair,
    PreferencePair,
    HhRlhf,
    LabeledCompletion,
    LabeledInstruction,
    LabeledChat,
    KochatgptSFT,
    PromptCompletion,
    SelfInstruct,
    Instruction,
    Chat,
    RaccoonPolicy,
    Songys,
    QuestionAnswer,
    PromptOnly,
    RaccoonPrompts,
    TextLine,
)
"""In order of recognition: a format comes before those whose keys are a subset of its own."""

__all__ = ["FORMATS", "GroupedRow", "Row"]
