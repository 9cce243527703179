"""Files in, text out."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny_config, tiny_model

from git_model import Captioner, DecodingOptions
from git_model.captioner import PictureScene
from git_model.config import GITError
from git_model.model import GIT
from git_model.tokenizer import Tokenizer

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"word{n}" for n in range(36))]


def picture(seed: int, size: tuple[int, int] = (20, 30)) -> Image.Image:
    pixels = torch.randint(
        0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed)
    )
    return Image.fromarray(pixels.to(torch.uint8).numpy())


@pytest.fixture
def git() -> Captioner:
    return Captioner(tiny_model().float(), Tokenizer.from_vocab(WORDS))


@pytest.fixture
def clips() -> Captioner:
    return Captioner(tiny_model(frames=3).float(), Tokenizer.from_vocab(WORDS))


def test_one_picture_gives_one_caption_and_a_list_gives_a_list(git: Captioner) -> None:
    one = git.caption(picture(0))
    assert one.text == " ".join(WORDS[token] for token in one.tokens if token > 3)
    assert one.logprob == pytest.approx(sum(one.token_logprobs))
    several = git.caption([picture(0), picture(1)])
    assert isinstance(several, list)
    assert several[0].tokens == one.tokens


def test_a_path_and_its_picture_are_the_same(git: Captioner, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(3).save(path)
    for name in (path, str(path)):
        assert git.caption(name) == git.caption(picture(3))
    assert git.caption([path, str(path)]) == [git.caption(path)] * 2


def test_a_scene_is_read_once_and_asked_often(git: Captioner) -> None:
    scene = git.see(picture(0))
    assert isinstance(scene, PictureScene)
    first = git.caption(scene)
    longer = git.caption(scene, DecodingOptions(max_new_tokens=23))
    assert longer.tokens[: len(first.tokens)] == first.tokens


def test_several_captions_come_best_first(git: Captioner) -> None:
    (found,) = git.captions(git.see(picture(0)), DecodingOptions(beams=3, sequences=3))
    assert len(found) == 3
    assert git.caption(picture(0), DecodingOptions(beams=3)).tokens == found[0].tokens


def test_a_list_of_frames_is_one_clip_where_the_model_knows_clips(clips: Captioner) -> None:
    frames = [picture(n) for n in range(3)]
    assert not isinstance(clips.caption(frames), list)
    assert clips.see(frames).n_tokens == 15
    two = clips.caption([frames, frames[::-1]])
    assert isinstance(two, list)
    assert len(two) == 2


def test_clips_of_different_length_do_not_form_a_batch(clips: Captioner) -> None:
    with pytest.raises(GITError, match="differ in their number of frames"):
        clips.see([[picture(0)], [picture(1), picture(2)]])


def test_nothing_to_see_is_an_error(git: Captioner) -> None:
    with pytest.raises(GITError, match="no picture was given"):
        git.see([])


def test_the_microsoft_style_searches_with_four_beams(git: Captioner) -> None:
    model = GIT.from_state(git.model.config.with_style("microsoft"), git.model.state_dict(), "x")
    originals = Captioner(model, git.tokenizer)
    assert model.decoder.norm.eps == 1e-8
    caption = originals.caption(picture(0))
    four = DecodingOptions(beams=4, length_penalty=0.6, dialect="microsoft", max_new_tokens=23)
    assert caption == originals.caption(picture(0), four)


def test_a_model_without_a_vocabulary_says_what_is_missing() -> None:
    with pytest.raises(GITError, match=r"no vocabulary.*--tokenizer FOLDER"):
        Captioner(tiny_model().float(), None).caption(picture(0))


def test_half_precision_gives_finite_captions() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        git = Captioner(tiny_model().to(dtype), Tokenizer.from_vocab(WORDS))
        assert git.caption(picture(0)).logprob > -200


def test_the_built_in_model_opens_by_its_name() -> None:
    git = Captioner.from_pretrained("demo")
    assert git.tokenizer.token_id("[CLS]") == git.model.config.bos_id
    assert git.tokenizer.token_id("[SEP]") == git.model.config.eos_id
    assert len(git.tokenizer) == git.model.config.decoder.vocab_size


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int8"}, "dtype is 'int8', expected one of float32, bfloat16"),
        ({"style": "meta"}, "style is 'meta', expected one of huggingface, microsoft"),
    ],
)
def test_unknown_ways_to_open_a_model_are_refused(options: dict, message: str) -> None:
    with pytest.raises(GITError, match=message):
        Captioner.from_pretrained("demo", **options)


def test_a_model_that_is_nowhere_is_one_line() -> None:
    with pytest.raises(GITError, match="no such folder") as error:
        Captioner.from_pretrained("/nowhere/at/all")
    assert "\n" not in str(error.value)


def test_the_tiny_model_is_what_it_says() -> None:
    assert GIT(tiny_config()).config.decoder.vocab_size == len(WORDS)
