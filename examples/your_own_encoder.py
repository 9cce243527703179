"""Your own image encoder: any module from pixels (B, 3, H, W) to tokens (B, I, D).

    pip install 'git-model[clip]'
    python examples/your_own_encoder.py

GIT counts image tokens from the tensor, so the encoder may return any number of them. Nothing else
of the model changes but the projector's input width. Here the encoder is a ResNet of open_clip,
which has no patches. Its weights are random, and twenty steps are few; create_model(…,
pretrained="openai") would load CLIP's. For clips, `model.temporal_embedding` needs D columns, too.

config.json describes only the built-in encoder, so `save_pretrained` does not fit here. Save the
weights with `safetensors.torch.save_model(model, path)`, and load them with `load_model` into a
model that `replace_encoder` has changed.
"""

import open_clip
import torch
from torch import Tensor, nn, optim

from git_model import GIT, Captioner
from git_model.data.loader import LoaderConfig, StepLoader
from git_model.shapes.source import ShapesData
from git_model.training.loss import batch_loss


class ResNetTokens(nn.Module):
    """The last feature map of a CLIP ResNet, one token per position."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.resnet = open_clip.create_model(name).visual

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, I, D)"""
        x = pixels
        for stage in ("stem", "layer1", "layer2", "layer3", "layer4"):
            x = getattr(self.resnet, stage)(x)  # (B, D, rows, columns)
        return x.flatten(2).mT


@torch.no_grad()
def replace_encoder(model: GIT, encoder: nn.Module) -> None:
    """Give a model another encoder, and a projector for its width."""
    size = model.config.encoder.image_size
    width = encoder.eval()(torch.zeros(1, 3, size, size)).shape[-1]
    model.encoder = encoder
    model.projector.linear = nn.Linear(width, model.config.decoder.width)


def main(steps: int = 20) -> None:
    """Train the built-in model's decoder with a new encoder on captions of the shapes world."""
    captioner = Captioner.from_pretrained("demo")
    model = captioner.model
    replace_encoder(model, ResNetTokens("RN50"))
    source = ShapesData(tasks=("captions",), size=8 * steps).open()
    loader = StepLoader(source, captioner.tokenizer, model.config, LoaderConfig(batch_size=8))
    optimizer = optim.AdamW(model.train().parameters(), lr=1e-3)
    for step, [batch] in enumerate(loader.steps(1, steps), start=1):
        loss = batch_loss(model, batch) / batch.n_predicted
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: loss {loss.item():.2f}")


if __name__ == "__main__":
    main()
