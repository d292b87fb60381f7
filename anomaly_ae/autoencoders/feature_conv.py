"""An autoencoder of what a frozen network sees in a picture."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomaly_ae.augmentation.transforms import Augment
from anomaly_ae.autoencoders.autoencoder import Autoencoder, Outputs, Prepared, Shape
from anomaly_ae.autoencoders.backbone import PACKAGED, STAGE_REDUCTIONS, Backbone
from anomaly_ae.autoencoders.blocks import activation, require_side
from anomaly_ae.autoencoders.inference import as_float
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.storage.memmap import room_for

SEEN, RESTORED = (
    "features",
    "restored features",
)  # heads: what was seen, and what is given back, (N, D, h, w)
SMALL, PAINTED = (
    "small picture",
    "painted picture",
)  # heads: (N, C·16, h, w), 4×4 pixels for each place
CODER_WIDTHS = (92, 64)  # channels between the features and the latent
FEATURE_LATENT_MAPS = 32  # of the latent
PIXELS_A_PLACE = 4  # a side, of the small picture for each place
HIDDEN = 0.2  # share of the features that it has to do without in training, so that it cannot copy
VARIED_COPIES = 4  # of the training images, where they may be varied
BACKBONE_BATCH = 16  # images at a time
FAINTEST = 1e-3  # spread of a channel that does not change


class FeatureAutoencoder(Autoencoder):
    """`feature-conv`: convolutions from the standardised feature maps of a frozen backbone to 32 maps, the latent,
    and back; beside it a way back to the picture, for people, that the others do not learn from.

    That the features of a network trained on photographs are what is reconstructed: DFR, Yang et al. 2020,
    https://arxiv.org/abs/2012.07122. It is trained on what the backbone makes of the images, which is made once.
    """

    side = 256
    objective = "features"
    learning_rate = 4e-3
    batch_size = 8
    steps = 300

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        require_side(shape, max(STAGE_REDUCTIONS))
        for name in ("defects", "masked", "noise", "tile"):
            if value := getattr(config, name):
                raise UsageError(
                    "autoencoder feature-conv is trained on features of whole images, and sees none with "
                    f"{setting(name, value)}; leave it out"
                )
        self.shape = shape
        self.copies = 1 if config.augment in (None, "as-is") else VARIED_COPIES
        look = Look(config.backbone or PACKAGED)
        depth, small = look.backbone.channels, shape[0] * PIXELS_A_PLACE**2
        size = tuple(math.ceil(side / STAGE_REDUCTIONS[0]) for side in shape[1:])
        self.latent_shape = (_maps(config.latent, math.prod(size)), *size)
        self.depths = (depth, small)
        widths = (depth, *CODER_WIDTHS)
        back = (self.latent_shape[0], *reversed(CODER_WIDTHS))
        self.encoder = nn.Sequential(
            look,
            nn.Dropout(config.dropout or HIDDEN),
            *(_stage(i, o, config) for i, o in zip(widths, widths[1:], strict=False)),
            nn.Conv2d(widths[-1], self.latent_shape[0], 3, padding=1),
            nn.Flatten(),
        )
        self.restorer = nn.Sequential(
            nn.Unflatten(1, self.latent_shape),
            *(_stage(i, o, config) for i, o in zip(back, back[1:], strict=False)),
            nn.Conv2d(back[-1], depth, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Unflatten(1, self.latent_shape),
            _stage(back[0], back[1], config),
            nn.Conv2d(back[1], small, 3, padding=1),
            nn.Sigmoid(),
            nn.PixelShuffle(PIXELS_A_PLACE),
            nn.Upsample(size=shape[1:], mode="bilinear"),
        )

    @property
    def look(self) -> "Look":
        """The encoder's first stage, which learns nothing."""
        first = self.encoder[0]
        assert isinstance(first, Look)
        return first

    def begin(self, config: RunConfig) -> None:
        self.look.backbone.load_pretrained(config.backbone_weights)

    @torch.no_grad()
    def prepare(self, fit: Tensor, validation: Tensor, augment: Augment) -> Prepared:
        look = self.look
        look.centre.zero_()
        look.spread.fill_(1)
        device = look.centre.device
        few = look(as_float(fit[:BACKBONE_BATCH].to(device)))
        look.rescale(*_moments([few]))  # about right at first, so that float16 holds what follows
        seen = self._see_all(fit.repeat(self.copies, 1, 1, 1), augment)
        features = torch.split(seen[:, : self.depths[0]], BACKBONE_BATCH)
        mean, deviation = _moments(features)
        for part in features:
            part.copy_((part.float() - mean) / deviation)
        look.rescale(mean, deviation)
        return Prepared(seen, self._see_all(validation, lambda images: images), lambda maps: maps)

    def _see_all(self, images: Tensor, augment: Augment) -> Tensor:
        """What the network sees of all images, uint8 or float (N, C, H, W), float16 (N, D + C·16, h, w)."""
        size = self.latent_shape[1:]
        room = room_for((len(images), sum(self.depths), size[0], 2 * size[1])).view(torch.float16)
        device = self.look.centre.device
        for part, seen in zip(torch.split(images, BACKBONE_BATCH), torch.split(room, BACKBONE_BATCH), strict=True):
            seen.copy_(self._see(augment(as_float(part.to(device)))))
        return room

    def _see(self, images: Tensor) -> Tensor:
        """Features and small pictures, float (N, D + C·16, h, w), of images (N, C, H, W) in [0, 1]."""
        size = [PIXELS_A_PLACE * side for side in self.latent_shape[1:]]
        small = functional.interpolate(images, size, mode="area")
        return torch.cat([self.look(images), functional.pixel_unshuffle(small, PIXELS_A_PLACE)], dim=1)

    def encode(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features: Tensor = self.look(images)
        latent: Tensor = self.encoder[1:](features)
        return latent, (features,)

    def forward(self, images: Tensor) -> Outputs:
        """images: or what was seen of them"""
        seen = self._see(images) if images.shape[1:] == self.shape else images
        features, small = seen[:, : self.depths[0]], seen[:, self.depths[0] :]
        latent = self.encoder[1:](features)
        painted = self.decoder[:-2](latent.detach())
        heads = {
            SEEN: features,
            RESTORED: self.restorer(latent),
            SMALL: small,
            PAINTED: painted,
        }
        return Outputs(self.decoder[-2:](painted), latent, (features,), heads)


class Look(nn.Module):
    """Images (N, C, H, W) in [0, 1] to the features that a backbone has for each place, each channel less its mean
    over the training images and divided by its deviation, (N, D, h, w).
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = Backbone(backbone)
        self.register_buffer("centre", torch.zeros(self.backbone.channels, 1, 1))
        self.register_buffer("spread", torch.ones(self.backbone.channels, 1, 1))

    def rescale(self, mean: Tensor, deviation: Tensor) -> None:
        """Take mean and deviation, (D, 1, 1), of what it gives so far out of what it gives from now on."""
        self.centre += mean.to(self.centre) * self.spread
        self.spread *= deviation.to(self.spread)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images)
        return (features - self.centre) / self.spread


def _moments(parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel, float32 (D, 1, 1), over parts of maps, (B, D, h, w) each."""
    places = sum(len(part) for part in parts) * math.prod(parts[0].shape[2:])
    mean = torch.stack([part.float().sum(dim=(0, 2, 3)) for part in parts]).sum(dim=0)[:, None, None] / places
    squares = [(part.float() - mean).square().sum(dim=(0, 2, 3)) for part in parts]
    return mean, (torch.stack(squares).sum(dim=0)[:, None, None] / places).sqrt().clamp_min(FAINTEST)


def _stage(channels_in: int, channels_out: int, config: RunConfig) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=config.batch_norm is False)
    return nn.Sequential(convolution, *activation(channels_out, config))


def _maps(latent: int | None, places: int) -> int:
    """How many maps have so many latent dimensions. Raises `UsageError` for a number that is not whole."""
    if latent and latent % places:
        raise UsageError(
            f"the latent of autoencoder feature-conv is made of maps of {places} places, and "
            f"{setting('latent', latent)} was asked; leave it out, or name a multiple of {places}"
        )
    return latent // places if latent else FEATURE_LATENT_MAPS
