"""A checkpoint's generation_config.json is obeyed: the texts are those of `generate`."""

import dataclasses
import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from parity_models import config_of
from PIL import Image
from tiny import bite
from transformers import BertTokenizer, GenerationConfig, GitForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from git_model import GIT, GITError
from git_model.captioner import Captioner
from git_model.config import DecodingOptions, GITConfig
from git_model.generation.generate import generate
from weights_convert import convert
from weights_convert.generation_config import SAMPLING, read_generation, write_generation
from weights_convert.huggingface import read_folder

EOS = (2, 9, 17)
PROMPTS = [[1, 7, 3], [1, 30, 5]]
SMALL = {
    "vocab_size": 50,
    "vision_image_size": 16,
    "vision_patch_size": 8,
    "num_image_with_embedding": None,
    "num_hidden_layers": 2,
}


@cache
def tiny_model(seed: int) -> GitForCausalLM:
    """With random weights."""
    return bite(GitForCausalLM(config_of(seed, **SMALL)), seed).eval()


def folder_with(folder: Path, seed: int = 3, **generation: Any) -> Path:
    """A tiny random model with a generation_config.json, both written by Transformers."""
    model = tiny_model(seed)
    usual = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    # without do_sample Transformers 5 reads these, but only Transformers 4 wrote them
    sampling = {key: generation[key] for key in SAMPLING if key in generation}
    idle = {} if generation.get("do_sample") else sampling
    rest = {key: value for key, value in generation.items() if key not in idle}
    model.generation_config = GenerationConfig(**usual | rest)
    model.save_pretrained(folder)
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | idle))
    return folder


def reference(folder: Path) -> GitForCausalLM:
    """The folder's model in Transformers, with the attention that this project computes."""
    model = GitForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    model.config.vision_config._attn_implementation = "sdpa"
    return model


def texts_of_transformers(
    model: GitForCausalLM, pixels: torch.Tensor, prompts: list[list[int]] | None
) -> tuple[list[list[int]], list[float] | None]:
    """The new tokens of each returned sequence, without padding, and the beams' scores."""
    eos = model.generation_config.eos_token_id
    output = model.generate(
        pixel_values=pixels,
        input_ids=None if prompts is None else torch.tensor(prompts),
        return_dict_in_generate=True,
        output_scores=True,
    )
    n_prompt = 1 if prompts is None else len(prompts[0])
    texts = []
    for row in output.sequences[:, n_prompt:].tolist():
        ends = [
            n for n, token in enumerate(row) if token in (eos if isinstance(eos, list) else [eos])
        ]
        texts.append(row[: ends[0] + 1] if ends else row)
    scores = getattr(output, "sequences_scores", None)
    return texts, None if scores is None else scores.tolist()


def our_model(folder: Path) -> GIT:
    """The folder's model in this project."""
    return Captioner.from_pretrained(folder, dtype=torch.float64).model


def our_texts(
    model: GIT, pixels: torch.Tensor, prompts: list[list[int]] | None
) -> tuple[list[list[int]], list[float]]:
    """The same of this project, with nothing but the checkpoint's own options."""
    starts = prompts or [[model.config.bos_id]] * len(pixels)
    rows = generate(model, model.see(pixels), starts, model.config.decoding)
    return [text.tokens for row in rows for text in row], [
        text.score for row in rows for text in row
    ]


CASES: dict[str, dict[str, Any]] = {
    "nothing": {},
    "3 beams, max_length, no repeated 2-grams": {
        "num_beams": 3,
        "max_length": 12,
        "no_repeat_ngram_size": 2,
    },
    "early stopping": {"num_beams": 3, "early_stopping": True, "max_new_tokens": 10},
    "early stopping, several texts": {
        "num_beams": 4,
        "num_return_sequences": 3,
        "early_stopping": True,
        "eos_token_id": list(EOS),
        "max_new_tokens": 9,
    },
    "never, long texts": {
        "num_beams": 3,
        "early_stopping": "never",
        "length_penalty": 1.5,
        "eos_token_id": list(EOS),
        "max_length": 14,
    },
    "never, short texts": {
        "num_beams": 4,
        "early_stopping": "never",
        "length_penalty": -0.5,
        "max_new_tokens": 12,
    },
    "several end tokens, beams": {
        "num_beams": 4,
        "num_return_sequences": 2,
        "eos_token_id": list(EOS),
        "length_penalty": 0.7,
    },
    "several end tokens, greedy": {"eos_token_id": [17, 2, 9], "max_new_tokens": 15},
    "minimum lengths": {"eos_token_id": list(EOS), "min_length": 8, "max_length": 15},
    "both minimum lengths": {
        "eos_token_id": list(EOS),
        "min_length": 11,
        "min_new_tokens": 4,
        "max_new_tokens": 14,
    },
    "both maximum lengths": {"max_length": 6, "max_new_tokens": 9},
    "penalties": {"repetition_penalty": 1.4, "suppress_tokens": [5, 6, 7], "num_beams": 2},
    "what only sampling reads": {"temperature": 0.1, "top_k": 1, "top_p": 0.3, "num_beams": 2},
    "options without effect": {
        "diversity_penalty": 0.0,
        "typical_p": 1.0,
        "num_beam_groups": 1,
        "forced_eos_token_id": None,
        "use_cache": True,
        "renormalize_logits": False,
    },
}


PIXELS = torch.randn(2, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@cache
def usual_texts(seed: int) -> tuple[list[list[int]], list[float]]:
    """Captions of the folder whose file has no option."""
    with TemporaryDirectory() as folder:
        return our_texts(our_model(folder_with(Path(folder), seed)), PIXELS, None)


@pytest.mark.parametrize("seed", [3, pytest.param(11, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_texts_and_scores_are_those_of_generate_on_the_same_folder(
    case: str, seed: int, tmp_path: Path
) -> None:
    folder = folder_with(tmp_path / "hf", seed, **CASES[case])
    theirs, ours = reference(folder), our_model(folder)
    for prompts in (None, PROMPTS):  # captions, answers
        texts, scores = texts_of_transformers(theirs, PIXELS, prompts)
        result, our_scores = our_texts(ours, PIXELS, prompts)
        assert result == texts
        if scores is not None:  # of beams, which Transformers computes in float32
            torch.testing.assert_close(our_scores, scores, rtol=1e-5, atol=1e-5)
        if prompts is None:  # else the comparison would pass with the file ignored
            without_effect = case in ("nothing", "options without effect")
            assert ((result, our_scores) == usual_texts(seed)) is without_effect


QUICK = (
    "nothing",
    "early stopping, several texts",
    "never, short texts",
    "both minimum lengths",
    "penalties",
)


@pytest.mark.parametrize(
    "case",
    [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES],
)
def test_options_travel_to_our_format_and_back(case: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "hf", **CASES[case])
    convert(str(folder), tmp_path / "ours")
    convert(str(tmp_path / "ours"), tmp_path / "back", to="hf")
    assert read_folder(tmp_path / "back").config == read_folder(folder).config
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    expected = texts_of_transformers(reference(folder), pixels, PROMPTS)
    assert texts_of_transformers(reference(tmp_path / "back"), pixels, PROMPTS) == expected
    assert our_texts(our_model(tmp_path / "ours"), pixels, PROMPTS)[0] == expected[0]


def test_a_captioner_obeys_the_file_by_itself(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, eos_token_id=[2, 9], num_beams=3, no_repeat_ngram_size=1)
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{n}" for n in range(46))]
    (folder / "vocab.txt").write_text("\n".join(words))
    images = {"image_processor_type": "CLIPImageProcessor", "size": 16, "crop_size": 16}
    (folder / "preprocessor_config.json").write_text(json.dumps(images))
    picture = Image.effect_noise((40, 30), 90).convert("RGB")
    model = GitForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    processor = CLIPImageProcessorPil.from_pretrained(folder)
    pixels = processor(picture, return_tensors="pt").pixel_values.double()
    tokenizer = BertTokenizer.from_pretrained(folder)
    captioner = Captioner.from_pretrained(folder, dtype=torch.float64)
    (tokens,) = model.generate(pixel_values=pixels).tolist()
    assert captioner.caption(picture).text == tokenizer.decode(tokens, skip_special_tokens=True)
    prompt = torch.tensor([[1, 8, 12]])
    (tokens,) = model.generate(pixel_values=pixels, input_ids=prompt).tolist()
    answer = tokenizer.decode(tokens[3:], skip_special_tokens=True)
    assert captioner.ask(picture, "w4 w8").text == answer


def test_sampling_has_the_defaults_of_generate(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, do_sample=True, temperature=0.7)
    expected = DecodingOptions(do_sample=True, temperature=0.7, top_k=50)
    assert read_folder(folder).config.decoding == expected
    written = write_generation(read_folder(folder).config)
    assert (written["do_sample"], written["temperature"], written["top_k"]) == (True, 0.7, 50)


def test_all_tokens_are_sampled_where_top_k_is_off(tmp_path: Path) -> None:
    config = read_folder(folder_with(tmp_path, do_sample=True, top_k=0)).config
    assert config.decoding.top_k == 0
    assert write_generation(config)["top_k"] == 0


def test_sampled_texts_have_the_probabilities_of_generate(tmp_path: Path) -> None:
    """The first tokens of 4,000 samples, within 5 standard deviations."""
    changes = {"do_sample": True, "temperature": 1.3, "top_k": 4, "max_new_tokens": 1}
    folder = folder_with(tmp_path, **changes)
    pixels = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    n = 4000
    theirs = reference(folder).generate(pixel_values=pixels, num_return_sequences=n)[:, 1]
    model = Captioner.from_pretrained(folder, dtype=torch.float64).model
    options = dataclasses.replace(model.config.decoding, num_return_sequences=n)
    (texts,) = generate(model, model.see(pixels), [[1]], options)
    ours = torch.tensor([text.tokens[0] for text in texts])
    shares = [torch.bincount(tokens, minlength=50) / n for tokens in (ours, theirs)]
    assert set(ours.tolist()) == set(theirs.tolist())
    assert len(set(ours.tolist())) == 4
    assert (shares[0] - shares[1]).abs().max() < 5 * (2 * 0.25 / n) ** 0.5


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_beam_groups", 2),
        ("diversity_penalty", 0.5),
        ("bad_words_ids", [[5]]),
        ("forced_eos_token_id", 2),
        ("typical_p", 0.9),
        ("encoder_repetition_penalty", 1.2),
        ("encoder_no_repeat_ngram_size", 2),
        ("renormalize_logits", True),
        ("guidance_scale", 1.5),
        ("min_p", 0.1),
        ("stop_strings", ["cat"]),
        ("watermarking_config", {"bias": 2.5}),
        ("num_beams", "three"),
        ("early_stopping", "sometimes"),
        ("early_stopping", 1),
        ("suppress_tokens", 5),
        ("eos_token_id", "[SEP]"),
        ("eos_token_id", []),
        ("do_sample", "yes"),
    ],
)
def test_an_option_that_this_project_does_not_have_is_named(
    key: str, value: Any, tmp_path: Path
) -> None:
    folder = folder_with(tmp_path / "hf")
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(GITError) as error:
        convert(str(folder), tmp_path / "ours")
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in ("generation_config.json", key, str(value)[:10]))
    assert not (tmp_path / "ours").exists()


def test_sampling_and_beams_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(GITError, match=r"generation_config.json: decoding: do_sample is True"):
        read_folder(folder_with(tmp_path, do_sample=True, num_beams=2))


@pytest.mark.parametrize("text", ["{", "[]", '"x"'])
def test_a_damaged_file_is_named(text: str, tmp_path: Path) -> None:
    (folder_with(tmp_path) / "generation_config.json").write_text(text)
    with pytest.raises(GITError, match=r"generation_config\.json"):
        read_folder(tmp_path)


def test_without_the_file_options_in_config_json_count(tmp_path: Path) -> None:
    """Transformers 4 kept them there; Transformers 5 still reads them."""
    folder = folder_with(tmp_path)
    (folder / "generation_config.json").unlink()
    path = folder / "config.json"
    settings = json.loads(path.read_text()) | {"num_beams": 3, "max_length": 9}
    path.write_text(json.dumps(settings))
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    texts, scores = texts_of_transformers(reference(folder), pixels, PROMPTS)
    result, our_scores = our_texts(our_model(folder), pixels, PROMPTS)
    assert result == texts
    torch.testing.assert_close(our_scores, scores, rtol=1e-5, atol=1e-5)
    assert read_folder(folder).config.decoding.num_beams == 3


def test_the_end_token_of_training_stays_the_first(tmp_path: Path) -> None:
    config = read_folder(folder_with(tmp_path, eos_token_id=[17, 2, 9])).config
    assert config.eos_ids == (2, 17, 9)
    assert config.eos_id == 2


def test_without_an_end_token_in_the_file_that_of_config_json_ends_a_text(tmp_path: Path) -> None:
    folder = folder_with(tmp_path)
    (folder / "generation_config.json").write_text('{"num_beams": 2}')
    config = read_folder(folder).config
    assert (config.eos_ids, config.bos_id, config.decoding.num_beams) == ((2,), 1, 2)


def test_special_ids_of_the_file_replace_those_of_config_json(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, bos_token_id=4, eos_token_id=[9, 17], pad_token_id=6)
    config = read_folder(folder).config
    assert (config.bos_id, config.eos_ids, config.pad_id) == (4, (9, 17), 6)
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    expected = texts_of_transformers(reference(folder), pixels, None)
    assert our_texts(our_model(folder), pixels, None)[0] == expected[0]


def test_a_prompt_as_long_as_max_length_is_refused_as_in_transformers(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, max_length=3)
    pixels = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    with pytest.raises(ValueError, match="max_length"):
        texts_of_transformers(reference(folder), pixels, PROMPTS)
    with pytest.raises(GITError, match="a prompt has 3 tokens, but max_length is 3"):
        our_texts(our_model(folder), pixels, PROMPTS)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"no_repeat_token": True}, "no_repeat_token is True"),
        ({"style": "microsoft"}, "style is 'microsoft'"),
        ({"max_length": 30, "max_new_tokens": 5}, "max_length and max_new_tokens"),
        ({"min_length": 9, "min_new_tokens": 5}, "min_length and min_new_tokens"),
    ],
)
def test_an_option_that_transformers_does_not_have_is_not_written(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(GITError, match=words):
        write_generation(GITConfig(decoding=DecodingOptions(**options)))


def test_two_limits_are_written_as_one_where_they_mean_the_same() -> None:
    both = DecodingOptions(max_length=10, max_new_tokens=12, min_length=4, min_new_tokens=3)
    written = write_generation(GITConfig(decoding=both))
    assert written["max_length"] == 10
    assert written["min_new_tokens"] == 3
    assert not {"max_new_tokens", "min_length"} & written.keys()


def test_an_empty_list_of_suppressed_tokens_is_kept_for_a_large_model() -> None:
    """Its captions would contain [unused0], so without a list it suppresses that token."""
    base = GITConfig()
    encoder = dataclasses.replace(base.encoder, width=1024, layers=24, heads=16)
    config = dataclasses.replace(base, encoder=encoder)
    written = write_generation(config)
    assert written["suppress_tokens"] == ()
    assert read_generation(written | {"suppress_tokens": []}, "x", config) == config
