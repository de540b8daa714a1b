"""Formats: raw row → record. One module per schema; adding one is one module and one line in `FORMATS`."""

from rayrlhf.data.formats.alpaca_farm import AlpacaFarm
from rayrlhf.data.formats.auto_j import AutoJ
from rayrlhf.data.formats.base import GroupedRow, Row
from rayrlhf.data.formats.chat import Chat
from rayrlhf.data.formats.chat_completion import ChatCompletion
from rayrlhf.data.formats.chat_pair import ChatPair
from rayrlhf.data.formats.chat_prompt import ChatPrompt
from rayrlhf.data.formats.dialogue_pair import DialoguePair
from rayrlhf.data.formats.dialsummeval import DialSummEval
from rayrlhf.data.formats.feedback_axis import FeedbackAxis
from rayrlhf.data.formats.feedback_comparison import FeedbackComparison
from rayrlhf.data.formats.helpsteer import HelpSteer
from rayrlhf.data.formats.helpsteer_preference import HelpSteerPreference
from rayrlhf.data.formats.hh_rlhf import HhRlhf
from rayrlhf.data.formats.implicit_prompt import ImplicitPrompt
from rayrlhf.data.formats.instruction import Instruction
from rayrlhf.data.formats.kochatgpt_ranking import KochatgptRanking
from rayrlhf.data.formats.kochatgpt_sft import KochatgptSFT
from rayrlhf.data.formats.labeled_chat import LabeledChat
from rayrlhf.data.formats.labeled_completion import LabeledCompletion
from rayrlhf.data.formats.labeled_instruction import LabeledInstruction
from rayrlhf.data.formats.nectar import Nectar
from rayrlhf.data.formats.preference_pair import PreferencePair
from rayrlhf.data.formats.prompt_completion import PromptCompletion
from rayrlhf.data.formats.prompt_only import PromptOnly
from rayrlhf.data.formats.prompt_response import PromptResponse
from rayrlhf.data.formats.question_answer import QuestionAnswer
from rayrlhf.data.formats.raccoon_choice_a import RaccoonChoiceA
from rayrlhf.data.formats.raccoon_choice_b import RaccoonChoiceB
from rayrlhf.data.formats.raccoon_choice_c import RaccoonChoiceC
from rayrlhf.data.formats.raccoon_policy import RaccoonPolicy
from rayrlhf.data.formats.raccoon_prompts import RaccoonPrompts
from rayrlhf.data.formats.ranking import Ranking
from rayrlhf.data.formats.rated_generations import RatedGenerations
from rayrlhf.data.formats.safe_rlhf import SafeRlhf
from rayrlhf.data.formats.self_instruct import SelfInstruct
from rayrlhf.data.formats.shp import Shp
from rayrlhf.data.formats.songys import Songys
from rayrlhf.data.formats.stepwise import Stepwise
from rayrlhf.data.formats.text import Text
from rayrlhf.data.formats.text_line import TextLine
from rayrlhf.data.formats.ultrafeedback import UltraFeedback
from rayrlhf.data.formats.vaiv_scores import VaivScores
from rayrlhf.data.formats.webgpt import WebGpt

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
    DialoguePair,
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
    AlpacaFarm,
    AutoJ,
    ChatCompletion,
    ChatPrompt,
    HelpSteer,
    HelpSteerPreference,
    ImplicitPrompt,
    Nectar,
    PromptResponse,
    RatedGenerations,
    SafeRlhf,
    Shp,
    Stepwise,
    Text,
    UltraFeedback,
    WebGpt,
    TextLine,
)
"""In any order: `recognition` finds the one that a row fits best."""

__all__ = ["FORMATS", "GroupedRow", "Row"]
