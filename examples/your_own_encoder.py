"""Your own image encoder: any module from pixels (B, 3, H, W) to tokens (B, I, D).

    pip install 'git-model[clip]'
    python examples/your_own_encoder.py FOLDER

GIT counts image tokens from the tensor, so the encoder may return any number of them.
`register_encoder` gives it a name; from then on a configuration can have it, and a checkpoint with
it is saved, loaded, trained and explained like any other. Here the encoder is a ResNet of
open_clip, which has no patches. Its weights are random, and twenty steps are few;
create_model(…, pretrained="openai") would load CLIP's. The last line makes this file a command line
that knows the encoder:

    python examples/your_own_encoder.py caption -m FOLDER/model photo.jpg
"""

import dataclasses
import sys
from pathlib import Path

import open_clip
import torch
from torch import Tensor, nn, optim

from git_model import GIT, Captioner
from git_model.checkpoints.native import TOKENIZER, write_checkpoint
from git_model.cli.main import main as git_model
from git_model.config import TowerConfig
from git_model.data.loader import LoaderConfig, StepLoader
from git_model.model.towers import register_encoder
from git_model.shapes.source import ShapesData
from git_model.training.loss import batch_loss


@register_encoder("open_clip_resnet")
class ResNetTokens(nn.Module):
    """The last feature map of a CLIP ResNet, one token per position."""

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.resnet = open_clip.create_model(config.name).visual

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, I, D)"""
        for stage in ("stem", "layer1", "layer2", "layer3", "layer4"):
            pixels = getattr(self.resnet, stage)(pixels)  # (B, D, rows, columns)
        return pixels.flatten(2).mT


def main(folder: Path, steps: int = 20) -> None:
    """Train the built-in model's size with another encoder on captions of the shapes world."""
    demo = Captioner.from_pretrained("demo")
    size = demo.model.config.encoder.image_size
    encoder = TowerConfig(kind="open_clip_resnet", name="RN50", image_size=size, width=2048)
    torch.manual_seed(0)
    model = GIT(dataclasses.replace(demo.model.config, encoder=encoder)).train()
    source = ShapesData(tasks=("captions",), size=8 * steps).open()
    loader = StepLoader(source, demo.tokenizer, model.config, LoaderConfig(batch_size=8))
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    for step, [batch] in enumerate(loader.steps(1, steps), start=1):
        loss = batch_loss(model, batch) / batch.n_predicted
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: loss {loss.item():.2f}")
    files = {TOKENIZER: demo.tokenizer.to_json()}
    write_checkpoint(folder / "model", model.config, model.tensors(), files)
    print(Captioner.from_pretrained(folder / "model"))  # it opens again


if __name__ == "__main__":
    git_model() if len(sys.argv) > 2 else main(Path(sys.argv[1]))
