"""Image encoders by kind: this project's, those of the library timm, and those that you
register."""

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor, nn

from git_model.config import EncoderConfig, TowerConfig
from git_model.model.encoder import Encoder
from git_model.utils.errors import ConfigError, GITError

T = TypeVar("T", bound=Callable[[TowerConfig], nn.Module])


def build_encoder(config: EncoderConfig | TowerConfig) -> nn.Module:
    """The image encoder of a configuration: pixels (B, 3, H, W) to tokens (B, I, D), with random
    weights."""
    return Encoder(config) if isinstance(config, EncoderConfig) else TOWERS[config.kind](config)


def register_encoder(kind: str) -> Callable[[T], T]:
    """Make `TowerConfig(kind=kind, …)` build your encoder. A decorator for a class or a function.

    The class or function gets the `TowerConfig` and returns a module that turns pixels (B, 3, H, W)
    into tokens (B, I, `config.width`), for any I. The module draws its own initial weights. If its
    first tokens stand for no position of the image (class tokens), its attribute `n_prefix` gives
    their number. A checkpoint with such an encoder opens if the kind was registered before.

    Raises:
        ConfigError: the kind exists already.
    """
    if kind in ("clip", "siglip", *TOWERS):
        raise ConfigError(f"there is an encoder of kind {kind!r} already, expected another name")

    def register(build: T) -> T:
        TOWERS[kind] = build
        TowerConfig.KINDS.add(kind)
        return build

    return register


class TimmEncoder(nn.Module):
    """A model of the library timm (PyTorch Image Models) without its head.

    A vision transformer gives its tokens; another model gives a token for each position of its last
    feature map.
    Batch norms always use their stored statistics, so that an image's tokens do not depend on the
    rest of its batch.

    Raises:
        ConfigError: the library is missing, has no such model, or cannot build it.
    """

    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        timm = import_timm()
        require_timm_model(config.name)
        settings = timm.get_pretrained_cfg(config.name)
        self.name, self.image_size = config.name, config.image_size
        self.is_fixed = bool(settings and settings.fixed_input_size)  # takes one size only
        size = {"img_size": config.image_size} if self.is_fixed else {}
        self.trunk: Any = _build_trunk(timm, config.name, size)
        self.n_prefix = int(getattr(self.trunk, "num_prefix_tokens", 0))

    @property
    def blocks(self) -> Any:
        """The transformer blocks, if the model has any; for activation checkpointing and
        sharding."""
        return getattr(self.trunk, "blocks", ())

    def train(self, mode: bool = True) -> "TimmEncoder":
        """As in torch, but batch norms stay in eval mode."""
        super().train(mode)
        for module in self.trunk.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, I, D)

        Raises:
            GITError: the model takes pixels of another size, or gives no tokens.
        """
        height, width = pixels.shape[-2:]
        if self.is_fixed and (height, width) != (self.image_size, self.image_size):
            raise GITError(
                f"pixels are {height} x {width}, but timm's {self.name} was built for "
                f"{self.image_size} x {self.image_size} only"
            )
        features = self.trunk.forward_features(pixels)
        if not isinstance(features, Tensor) or features.ndim not in (3, 4):
            raise GITError(
                f"timm's {self.name} gives {_description(features)}, expected tokens or a feature "
                "map: use another model of that library"
            )
        if features.ndim == 3:
            return features
        rows_first = getattr(self.trunk, "output_fmt", "NCHW") == "NHWC"
        return features.flatten(1, 2) if rows_first else features.flatten(2).mT


TOWERS: dict[str, Callable[[TowerConfig], nn.Module]] = {"timm": TimmEncoder}


def import_timm() -> Any:
    """Import the library timm.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import timm
    except ImportError:
        raise ConfigError(
            "this model's encoder needs timm: pip install 'git-model[timm]'"
        ) from None
    return timm


def require_timm_model(name: str) -> None:
    """Refuse a name that is not that of a model in timm, without a tag. A name that leads to the
    hub, such as "hf-hub:…", is refused, too."""
    timm = import_timm()
    if not timm.is_model(name) or "." in name or ":" in name:
        similar = timm.list_models(f"*{name[:20].partition('.')[0]}*")[:3]
        hint = f", expected one such as {', '.join(similar)}" if similar else ""
        raise ConfigError(f"encoder: timm has no model {name[:40]!r}{hint} (see timm.list_models)")


def _build_trunk(timm: Any, name: str, size: dict[str, int]) -> nn.Module:
    """The model without its head, and without pooling if it has that option."""
    error: Exception | None = None
    for pooling in ({"global_pool": ""}, {}):
        try:
            trunk: nn.Module = timm.create_model(name, num_classes=0, **pooling, **size)
            return trunk
        except Exception as refusal:  # of many kinds: a model checks its arguments in its own way
            error = refusal
    raise ConfigError(f"encoder: timm cannot build {name}: {' '.join(str(error).split())}")


def _description(features: Any) -> str:
    if isinstance(features, Tensor):
        return f"a tensor of shape {tuple(features.shape)}"
    return f"a {type(features).__name__}"
