"""Sentences with measured figures agree with the file that docs/measure.py wrote."""

import json
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
MEASURED = json.loads((DOCS / "measurements.json").read_text())
SHARE = MEASURED["occlusion_agreement"]["share"]
MEMORY, MASKS, BEAMS = MEASURED["memory"], MEASURED["masks"], MEASURED["beams"]


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def pair(name: str) -> tuple[str, str]:
    """A map's shares for colour words and shape words."""
    return percent(SHARE["colour"][name]), percent(SHARE["shape"][name])


LAST, ALL = pair("layer 3"), pair("all layers")
UNSEEN = f"other {MEMORY['unseen']} the model gets {MEMORY['unseen_right']} exactly right"
CHANCE = percent(1 / MEASURED["occlusion_agreement"]["patches"])
EMPTY = MEASURED["occlusion_agreement"]["empty"]["shape"]["layer 3"]
PICTURES, WORDS = (MEASURED["occlusion_agreement"][key] for key in ("pictures", "words"))
RIGHT, LOGPROB = BEAMS["right"], BEAMS["mean_logprob"]
METRICS = MEASURED["metrics"]
SCORES, CIDER_OF_RIGHT = METRICS["model"], METRICS["right captions"]["cider_d"]
LOG = map(json.loads, (DOCS / "drawing" / "quick_log.jsonl").read_text().splitlines())
EXACT = {line["step"]: f"{line['captions exact']:.1f} %" for line in LOG if len(line) == 2}
SENTENCES = [
    ("13-map", f"for {ALL[0]} of the colour words and {ALL[1]} of the shape words"),
    ("13-map", f"Random patches would agree for {CHANCE}."),
    ("13-map", f"agrees for {LAST[0]} of the colour words, and for {LAST[1]} of the shape words"),
    ("13-map", f"for {percent(EMPTY)} of the shape words its highest patch is empty"),
    ("13-map", f"for {PICTURES} of {WORDS['shape']}, {percent(PICTURES / WORDS['shape'])}."),
    ("13-map", "the other way round, {} and {}.".format(*pair("layer 1"))),
    ("13-map", "**Rollout is worse here**: {} and {}.".format(*pair("rollout"))),
    ("2-encoder", "none of 300 changes"),
    ("9-search", f"same text for {BEAMS['images'] - BEAMS['differ']} of 200 images"),
    ("9-search", f"{RIGHT['beams 3']} against {RIGHT['greedy']} may be chance"),
    ("9-search", f"the {LOGPROB['greedy']:.3f} of greedy search"),
    ("11-training", f"{percent(MEMORY['seen'] / MEMORY['captions'])} were seen"),
    ("11-training", UNSEEN),
    ("11-training", f"the {MEMORY['training_captions']:,} captions of images"),
    ("11-training", f"{EXACT[1000]} were exactly right after 1,000 steps"),
    ("11-training", f"{EXACT[2000]} after 2,000 and {EXACT[3000]} at the end"),
    ("12-evaluation", f"On {METRICS['captions']} held-out captions"),
    ("12-evaluation", f"{SCORES['exact']:.1f} % exact matches, BLEU-4 {SCORES['bleu_4']:.2f}"),
    ("12-evaluation", f"and CIDEr-D {SCORES['cider_d']:.1f}."),
    ("12-evaluation", f"would get {CIDER_OF_RIGHT:.1f}, not 1,000: {METRICS['of three words']} of"),
    ("12-evaluation", f"about one caption of {100 / (100 - SCORES['exact']):.0f} is false"),
]


@pytest.mark.parametrize(("page", "sentence"), SENTENCES)
def test_a_sentence_has_the_figure_that_was_measured(page: str, sentence: str) -> None:
    assert sentence in " ".join((DOCS / "walkthrough" / f"{page}.md").read_text().split())


def test_the_figures_behind_sentences_without_a_number_hold() -> None:
    assert MEASURED["gelu"] == {"captions": 300, "changed": 0}
    themselves = MASKS["image tokens attend to themselves only"]
    assert 0.4 < themselves / 300 < 0.6  # "about half of the captions fail"
    assert max(MASKS, key=MASKS.__getitem__) == "prefix mask"
    assert BEAMS["only_beams_right"] - BEAMS["only_greedy_right"] == 1
