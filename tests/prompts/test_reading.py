"""What a vocabulary lacks and a context cuts is refused or said before anything is scored."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vclip_jax import prompts
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.prompts import own, reading


@pytest.fixture(scope="module")
def english():
    sets = [prompts.load(name) for name in prompts.known() if not name.startswith("zh")]
    return WordPiece.from_captions(text for s in sets for texts in s.prompts for text in texts)


def asked(*texts):
    return prompts.from_phrases({text: text for text in texts})


@pytest.mark.parametrize("name", prompts.known())
def test_the_packages_sets_are_read_in_their_language_and_refused_in_the_other(
    name, chinese, english
):
    right, wrong = (chinese, english) if name.startswith("zh") else (english, chinese)
    assert reading.check_prompts(prompts.load(name), right, 77) == []
    assert own.reads(prompts.load(name), right, 77)
    assert not own.reads(prompts.load(name), wrong, 77)
    if name == "zh/refuge":  # the cup's ratio is digits
        assert "lacks 9" in reading.check_prompts(prompts.load(name), wrong, 77)[-1]
    else:
        with pytest.raises(ValueError, match="are the same to this model: its vocabulary lacks"):
            reading.check_prompts(prompts.load(name), wrong, 77)


@pytest.mark.parametrize(
    "texts",
    [
        ("Glaucoma", "Cataract"),
        ("no glaucoma", "glaucoma"),  # two unknown words and one
        ("糖尿病視網膜病變", "糖尿病視網膜病變者"),
        ("青光眼", "青 光 眼"),
        ("青光眼" * 20, "青光眼" * 20 + "白内障"),
    ],
)
def test_classes_that_read_the_same_are_refused(texts, chinese):
    with pytest.raises(ValueError, match="are the same to this model") as error:
        reading.check_prompts(asked(*texts), chinese, 52)
    assert "\n" not in str(error.value)


def test_what_the_context_cuts_is_named_with_its_length(chinese):
    first, second = "青光眼" * 20, "青光眼" * 20 + "白内障"
    with pytest.raises(ValueError, match=r"after the 50 tokens .* context has 52.* 60 and 63"):
        reading.check_prompts(asked(first, second), chinese, 52)
    (note,) = reading.check_prompts(asked(first, "正常眼底"), chinese, 52)
    assert "1 of 2 prompts are cut after 50 tokens" in note
    assert reading.check_prompts(asked(first, second), chinese, 77) == []


def test_some_unknown_words_are_said_with_their_share(chinese):
    (note,) = reading.check_prompts(asked("青光眼", "白内障 Cataract"), chinese, 52)
    assert note.startswith("phrases: the model's vocabulary lacks 14% of the prompts' tokens")
    assert note.endswith("most in '白内障 Cataract'")


def test_a_class_whose_words_are_all_unknown_is_refused(chinese):
    with pytest.raises(ValueError, match="knows no word of 'Cataract'"):
        reading.check_prompts(asked("青光眼", "Cataract"), chinese, 52)


def test_a_prompt_without_any_token_is_refused(chinese):
    with pytest.raises(ValueError, match="reads nothing in"):
        reading.check_prompts(asked("\u200b", "青光眼"), chinese, 52)


@given(st.lists(st.text("青光眼白内障Aa龘x ", min_size=1, max_size=6), min_size=2, max_size=4))
def test_what_is_accepted_differs_in_known_tokens(chinese, texts):
    assume(all(text.strip() for text in texts) and len(set(texts)) == len(texts))
    try:
        reading.check_prompts(asked(*texts), chinese, 6)
    except ValueError:
        return
    rows = [tuple(p for p in chinese.pieces(text)[:4] if p != chinese.unknown_id) for text in texts]
    assert len(set(rows)) == len(rows)


def test_one_prompt_of_several_that_unknown_words_make_the_same_is_said(chinese):
    mild, severe = ["轻度病变", "Roth spots", "青光眼"], ["重度病变", "Drusen", "正常"]
    found = prompts.from_phrases({"mild": mild, "severe": severe})
    alike, lacking = reading.check_prompts(found, chinese, 52)
    assert "'Roth spots' (of the class 'mild') and 'Drusen' (of the class 'severe')" in alike
    assert "lacks 2 of 2 and 1 of 1 of their tokens" in alike
    assert "vocabulary lacks" in lacking
    both = prompts.from_phrases({"mild": [*mild, "病变"], "severe": [*severe, "病变"]})
    with pytest.raises(ValueError, match="are the same to this model: their tokens are"):
        reading.check_prompts(both, chinese, 52)


def test_a_class_all_of_whose_prompts_read_as_anothers_is_refused(chinese):
    found = prompts.from_phrases({"a": ["Roth spots", "青光眼 Drusen"], "b": ["Drusen"]})
    with pytest.raises(ValueError, match="are the same to this model: its vocabulary lacks"):
        reading.check_prompts(found, chinese, 52)


def test_captions_of_another_language_are_refused_for_training(chinese, english):
    captions = ["糖尿病视网膜病变。", "正常眼底。"]
    assert reading.check_captions(captions, chinese, 0.1) == []
    with pytest.raises(ValueError, match=r"lacks 100% of the captions' tokens, more than config"):
        reading.check_captions(["no glaucoma"], chinese, 0.1)
    (note,) = reading.check_captions([*captions * 10, "龘"], chinese, 0.1)
    assert "lacks" in note


def test_bytes_spell_every_word():
    """CLIP's own tokenizer: no token stands for what it lacks."""
    import tokenizers
    from tokenizers import models, pre_tokenizers, processors

    from vclip_jax.data.text.tokenizer_json import FastTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {letter: index for index, letter in enumerate([*letters, "<s>", "<e>"])}
    made = tokenizers.Tokenizer(models.BPE(ids, [], unk_token="<e>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.add_special_tokens(["<s>", "<e>"])
    made.post_processor = processors.RobertaProcessing(("<e>", ids["<e>"]), ("<s>", ids["<s>"]))
    spelling = FastTokenizer(made.to_str())
    assert spelling.unknown_id is None
    assert reading.check_prompts(asked("糖尿病", "Glaucoma"), spelling, 52) == []
