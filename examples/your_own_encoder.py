"""Your own image encoder: any module from pixels (B, 3, H, W) to tokens (B, I, D).

    pip install 'git-model[clip]'
    python examples/your_own_encoder.py

Here it is a ResNet of open_clip, which has no patches at all. Its weights are random, and twenty
steps are few; create_model(…, pretrained="openai") would load CLIP's. For clips, the model's
`temporal` needs rows of D numbers, too.
"""

import open_clip
from torch import Tensor, nn, optim

from git_model import Captioner
from git_model.data.loader import LoaderConfig, StepLoader
from git_model.shapes.source import ShapesData
from git_model.training.loss import batch_loss


class Grid(nn.Module):
    """A CLIP ResNet's last grid of features, place by place."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.tower = open_clip.create_model(name).visual

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, I, D)"""
        for part in ("stem", "layer1", "layer2", "layer3", "layer4"):
            x = getattr(self.tower, part)(x)  # (B, channels, rows, columns)
        return x.flatten(2).mT


def main(steps: int = 20) -> None:
    """Put it into the built-in model, and teach the two to understand each other."""
    git = Captioner.from_pretrained("demo")
    git.model.encoder = Grid("RN50")
    git.model.projector.linear = nn.Linear(2048, git.model.config.decoder.width)
    data = ShapesData(tasks=("captions",), size=8 * steps)
    feed = StepLoader(data.open(), git.tokenizer, git.model.config, LoaderConfig(batch_size=8))
    optimizer = optim.AdamW(git.model.train().parameters(), lr=1e-3)
    for step, [batch] in enumerate(feed.steps(1, steps), 1):
        loss = batch_loss(git.model, batch) / batch.n_predicted
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: loss {loss.item():.2f}")


if __name__ == "__main__":
    main()
