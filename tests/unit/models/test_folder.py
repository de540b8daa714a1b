"""What is wrong with a model folder is said before anything is started."""

import json
import shutil
from pathlib import Path

import pytest

from rayrlhf.config import UserError
from rayrlhf.models.folder import (
    ModelFolderError,
    check_same_vocabulary,
    is_hub_name,
    load_tokenizer,
    read_model_config,
)
from rayrlhf.models.init import CHAT_TEMPLATE, ModelShape, init_model_folder, train_tokenizer


@pytest.fixture
def broken(tiny_qwen2, tmp_path):
    """`broken(*names)`: a copy of the tiny model without files of these names."""

    def copy(*missing: str) -> str:
        folder = tmp_path / "model"
        shutil.copytree(tiny_qwen2, folder)
        for pattern in missing:
            for file in folder.glob(pattern):
                file.unlink()
        return str(folder)

    return copy


def test_a_whole_folder_is_fine(tiny_model):
    assert read_model_config(tiny_model).vocab_size == len(load_tokenizer(tiny_model))
    check_same_vocabulary(tiny_model, tiny_model)


def test_a_missing_folder_is_named_with_what_to_do(tmp_path):
    with pytest.raises(ModelFolderError, match="none': no such folder; make one with `rayrlhf model init`"):
        read_model_config(str(tmp_path / "none"))


def test_a_folder_that_is_no_model_says_so(tmp_path):
    with pytest.raises(ModelFolderError, match=r"has no config\.json, so it is not a model folder"):
        read_model_config(str(tmp_path))


def test_a_folder_without_weights_says_so(broken):
    with pytest.raises(ModelFolderError, match="has no weights"):
        read_model_config(broken("*.safetensors"))


def test_a_configuration_that_can_not_be_read_is_one_line(broken):
    folder = broken()
    Path(folder, "config.json").write_text("{not json")
    with pytest.raises(ModelFolderError, match="its configuration cannot be read") as error:
        read_model_config(folder)
    assert "\n" not in str(error.value)


def test_a_folder_without_tokenizer_says_where_to_get_one(broken):
    with pytest.raises(ModelFolderError, match="the folder has no tokenizer"):
        load_tokenizer(broken("tokenizer*", "vocab*", "special*", "chat_template*"))


def test_a_tokenizer_without_eos_is_refused(broken):
    folder = broken("special*")
    path = Path(folder, "tokenizer_config.json")
    settings = json.loads(path.read_text())
    settings["eos_token"] = None
    path.write_text(json.dumps(settings))
    with pytest.raises(ModelFolderError, match="has no eos token, so no response could ever end"):
        load_tokenizer(folder)


def test_a_vocabulary_larger_than_the_embedding_is_refused_with_both_sizes(tiny_qwen2, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen2)
    entries = len(tokenizer)
    tokenizer.add_tokens(["새말", "newword"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelFolderError) as error:
        load_tokenizer(str(tmp_path), for_model=tiny_qwen2)
    assert f"its vocabulary has {entries} entries" in str(error.value)
    assert f"has {entries + 2}; use the tokenizer the model was trained with" in str(error.value)
    assert repr(tiny_qwen2) in str(error.value)


def test_models_with_different_tokenizers_can_not_share_a_run(tiny_qwen2, tmp_path):
    other = tmp_path / "other"
    texts = ["entirely different words make other merges " * 20]
    shape = ModelShape(vocab_size=300, hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=16)
    init_model_folder(other, shape, texts)
    with pytest.raises(ModelFolderError, match="have different tokenizers; models exchange token ids"):
        check_same_vocabulary(tiny_qwen2, str(other))


@pytest.mark.parametrize("role", ["system", "developer", "tool"])
def test_the_template_of_a_new_model_lets_nobody_else_speak_as_the_assistant(tiny_qwen2, role):
    tokenizer = load_tokenizer(tiny_qwen2)
    tokenizer.chat_template = CHAT_TEMPLATE
    said = [{"role": role, "content": "Be brief."}, {"role": "user", "content": "q"}]
    text = tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>Be brief.<|user|>q<|assistant|>"


def test_a_copy_of_a_model_shares_its_vocabulary(tiny_qwen2, tiny_llama):
    check_same_vocabulary(tiny_qwen2, tiny_llama)  # both tokenizers were trained on the same texts


@pytest.mark.parametrize(
    ("model", "is_hub"),
    [("owner/name", True), ("runs/name", False), ("/a/b", False), ("name", False), ("a/b/c", False)],
)
def test_hub_names_are_owner_and_name(model, is_hub):
    assert is_hub_name(model) is is_hub


# making one


def test_a_made_model_is_the_same_for_the_same_seed(tokenizer):
    from rayrlhf.models.init import make_model

    shape = ModelShape(hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1, intermediate_size=16, seed=5)
    one, same = make_model(shape, tokenizer), make_model(shape, tokenizer)
    other = make_model(shape.model_copy(update={"seed": 6}), tokenizer)
    weights = [model.get_input_embeddings().weight for model in (one, same, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_a_folder_that_is_not_empty_is_never_written_to(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="the folder is not empty"):
        init_model_folder(tmp_path, ModelShape(), [])


def test_a_made_tokenizer_gives_back_any_text():
    tokenizer = train_tokenizer(["안녕하세요", "hello"], 280)
    for text in ("처음 보는 글자 힣 🙂\n\t", "  two  spaces ", "### 응답:\n"):
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_head_counts_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="hidden_size 30 must be a multiple of num_heads 4"):
        ModelShape(hidden_size=30)


def test_a_tokenizer_that_transformers_would_rebuild_is_refused(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from rayrlhf.models.init import ModelShape, init_model_folder

    whole_words = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1, "one": 2, "안녕하세요": 3}, unk_token="<unk>"))
    whole_words.pre_tokenizer = pre_tokenizers.Whitespace()
    given = PreTrainedTokenizerFast(tokenizer_object=whole_words, eos_token="</s>", unk_token="<unk>")
    given.save_pretrained(tmp_path / "tokenizer")
    shape = ModelShape(hidden_size=32, num_layers=1, num_heads=1, num_kv_heads=1, intermediate_size=32)
    with pytest.raises(ModelFolderError, match="transformers loads its tokenizer as Qwen2Tokenizer"):
        init_model_folder(tmp_path / "qwen2", shape, [], tmp_path / "tokenizer")
    assert not (tmp_path / "qwen2").exists()
    llama = shape.model_copy(update={"architecture": "llama"})
    assert init_model_folder(tmp_path / "llama", llama, [], tmp_path / "tokenizer") > 0
