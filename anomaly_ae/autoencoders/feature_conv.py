"""An autoencoder of what a frozen network sees in a picture."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from anomaly_ae.augmentation.synthetic_defects import plant
from anomaly_ae.augmentation.transforms import light, turns
from anomaly_ae.autoencoders.autoencoder import Autoencoder, Outputs, Prepared, Shape
from anomaly_ae.autoencoders.backbone import PACKAGED, PLACE, STAGE_REDUCTIONS, Backbone
from anomaly_ae.autoencoders.blocks import activation, conv, require_side
from anomaly_ae.autoencoders.inference import PERCEIVED_AT_ONCE, perceive_all
from anomaly_ae.autoencoders.repair import DEFECT, PLANTED
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UsageError
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.runtime.torch_state import drawn_by
from anomaly_ae.storage.pixel_values import as_bytes, as_float

SEEN, RESTORED = (
    "features",
    "restored features",
)  # heads: what was seen, and what is given back, (N, D, h, w)
SMALL, PAINTED = (
    "small picture",
    "painted picture",
)  # heads: (N, C·16, h, w), 4×4 pixels for each place
PHOTO_CHANNELS = 1, 3  # of pictures that a network trained on photographs knows what to make of
CODER_WIDTH = 32  # channels between the features and the latent
TELLER_WIDTH = 24  # channels of what tells defects
FEATURE_LATENT_MAPS = 32  # of the latent
PIXELS_A_PLACE = 4  # a side, of the small picture for each place
HIDDEN = 0.2  # share of the features that it has to do without in training, so that it cannot copy
PLANTED_SHARE = 0.8  # of the copies of training images that are spoiled, of which it learns to tell defects
CROP_PLACES = 16  # places a side of what it is trained on, cut out of the maps at random
VARIED_COPIES = 4  # of the training images, where they may be varied
FAINTEST = 1e-2  # deviation of a channel, and variance before whitening, so that what hardly varies is not blown up


class FeatureAutoencoder(Autoencoder):
    """`feature-conv`: convolutions from the whitened feature maps of a frozen backbone to 32 maps of half their
    size, the latent, and back; beside it a way back to the picture, for people, that the others do not learn from,
    and a few convolutions that tell for each place whether it is defective, which learn from planted defects.

    That the features of a network trained on photographs are what is reconstructed: DFR, Yang et al. 2020,
    https://arxiv.org/abs/2012.07122. That they are whitened first, so that a direction in which normal images vary
    little counts as much as one in which they vary much: as in Rippel et al. 2020,
    https://arxiv.org/abs/2005.14140. It is trained on crops of what the backbone makes of the images, which is made
    once, and of what it makes of them with defects.
    """

    side = 256
    objective = "features"
    learning_rate = 1e-2
    batch_size = 8
    steps = 75
    cheap_folds = True
    goes_on = False  # features are whitened by the images, and its weights are for these alone

    def __init__(self, shape: Shape, config: RunConfig) -> None:
        super().__init__(shape, config)
        require_side(shape, max(STAGE_REDUCTIONS))
        if shape[0] not in PHOTO_CHANNELS:
            raise UsageError(
                "autoencoder feature-conv sees pictures in gray or in colour, with 1 or 3 channels, and these have "
                f"{shape[0]}; leave the others out, or take {setting('autoencoder', 'conv')}"
            )
        self.seed = config.seed
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
        places = tuple(math.ceil(side / PLACE) for side in shape[1:])
        half = tuple(math.ceil(side / 2) for side in places)
        self.latent_shape = (_latent_maps(config.latent, math.prod(half)), *half)
        # Channels of features and small pictures, and in training of features with defects, where these are, and of
        # which features it may see.
        self.places, self.depths = places, (depth, small, depth, 1, depth)
        self.hidden = config.dropout or HIDDEN
        self.perceived_shape = depth + small, *places
        self.encoder = nn.Sequential(
            look,
            Whitening(depth),
            _stage(nn.Conv2d(depth, CODER_WIDTH, 1), config),
            _stage(nn.Conv2d(CODER_WIDTH, CODER_WIDTH, 3, stride=2, padding=1), config),
            conv(CODER_WIDTH, self.latent_shape[0]),
            nn.Flatten(),
        )
        self.restorer = nn.Sequential(
            nn.Unflatten(1, self.latent_shape),
            _stage(conv(self.latent_shape[0], CODER_WIDTH), config),
            nn.Upsample(scale_factor=2, mode="bilinear"),
            Cut(places),
            _stage(nn.Conv2d(CODER_WIDTH, CODER_WIDTH, 1), config),
            nn.Conv2d(CODER_WIDTH, depth, 1),
        )
        self.segmentation = nn.Sequential(
            _stage(nn.Conv2d(depth, TELLER_WIDTH, 1), config),
            _stage(conv(TELLER_WIDTH, TELLER_WIDTH), config),
            nn.Conv2d(TELLER_WIDTH, 1, 1),
        )
        self.decoder = nn.Sequential(
            nn.Unflatten(1, self.latent_shape),
            _stage(conv(self.latent_shape[0], CODER_WIDTH), config),
            nn.Conv2d(CODER_WIDTH, 4 * small, 1),
            nn.Sigmoid(),
            nn.PixelShuffle(2),
            Cut(places),
            nn.PixelShuffle(PIXELS_A_PLACE),
            nn.Upsample(size=shape[1:], mode="bilinear"),
        )

    def begin(self, config: RunConfig) -> None:
        look: nn.Module = self.encoder[0]
        if isinstance(look, Look):
            look.backbone.load_pretrained(config.backbone_weights, config.download)

    def borrow(self, other: Autoencoder) -> None:
        self.encoder[0] = Borrowed(other.encoder[0])

    @torch.no_grad()
    def prepare(self, fit: Tensor, validation: Tensor) -> Prepared:
        look = self.encoder[0]
        assert isinstance(look, Look)
        unvaried = len(fit) // self.copies
        look.rescale(as_float(fit[: min(PERCEIVED_AT_ONCE, unvaried)]))
        with drawn_by(self.seed):
            seen, seen_validation = (
                perceive_all(self, images, self.perceive_spoiled) for images in (fit, validation)
            )
        self.settle(seen, torch.arange(len(seen)))
        return Prepared(fit, seen, seen_validation, self._crop)

    @torch.no_grad()
    def settle(self, prepared: Tensor, rows: Tensor) -> None:
        whitening = self.encoder[1]
        assert isinstance(whitening, Whitening)
        whitening.fit(prepared[:, : self.depths[0]], rows)

    def perceive(self, images: Tensor) -> Tensor:
        """Features and small pictures, float (N, D + C·16, h, w), of images (N, C, H, W) in [0, 1]."""
        size = [PIXELS_A_PLACE * side for side in self.places]
        small = functional.interpolate(images, size, mode="area")
        return torch.cat([self.encoder[0](images), functional.pixel_unshuffle(small, PIXELS_A_PLACE)], dim=1)

    def perceive_spoiled(self, images: Tensor) -> Tensor:
        """What `perceive` gives, and then the features of the images with planted defects, and in which places these
        are, 0 or 1, (N, D + C·16 + D + 1, h, w).
        """
        # What is planted in an image is made of itself, for its fold may not know another.
        sound = images.cpu()
        each = [plant(image, PLANTED_SHARE, light(light(turns(image)))) for image in torch.split(sound, 1)]
        spoiled, planted = (torch.cat(parts) for parts in zip(*each, strict=True))
        where = functional.adaptive_max_pool2d(planted, self.places).to(images.device)
        perceived, changed = self.perceive(images), (spoiled != sound).flatten(1).any(dim=1)
        seen = perceived[:, : self.depths[0]].clone()
        if changed.any():  # the others were looked at already
            seen[changed.to(seen.device)] = self.encoder[0](as_float(as_bytes(spoiled[changed])).to(images.device))
        return torch.cat([perceived, seen, where], dim=1)

    def _crop(self, seen: Tensor) -> Tensor:
        """The same random part of maps (N, D', h, w), and after it which of their features may be seen, 0 or a little
        above 1, the same in all, for drawing random numbers takes longer than all else here.
        """
        down, right = (int(torch.randint(max(1, side - CROP_PLACES + 1), ())) for side in seen.shape[2:])
        part = seen[:, :, down : down + CROP_PLACES, right : right + CROP_PLACES].float()
        kept = functional.dropout(torch.ones_like(part[:1, : self.depths[0]]), self.hidden)
        return torch.cat([part, kept.expand(len(part), -1, -1, -1)], dim=1)

    def encode(self, images: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        features: Tensor = self.encoder[0](images)
        latent: Tensor = self.encoder[1:](features)
        return latent, (features,)

    def forward(self, images: Tensor) -> Outputs:
        """images: or what was seen of them"""
        outputs, maps = self._given_back(images)
        painted = self.decoder[1:-2](maps.detach().contiguous())  # as `decode` has them
        finish = self.decoder[-2:-1] if self.training else self.decoder[-2:]  # the whole picture is for people alone
        return outputs._replace(reconstruction=finish(painted), heads={**outputs.heads, PAINTED: painted})

    def undecoded(self, images: Tensor) -> Outputs:
        return self._given_back(images)[0]

    def _given_back(self, images: Tensor) -> tuple[Outputs, Tensor]:
        """What it makes of images, or of what was seen of them, but for the picture, and its latent maps."""
        seen = self.perceive(images) if images.shape[1:] == self.shape else images
        kinds = [*itertools.accumulate(self.depths)].index(seen.shape[1]) + 1
        features, small, *more = torch.split(seen, [*self.depths[:kinds]], dim=1)
        spoiled, planted, kept = [*more, None, None, None][:3]
        features = features.contiguous(memory_format=torch.channels_last)  # once for all who go through them
        white = self.encoder[1](features)
        maps = self.encoder[2:-1](_hide(white, kept))  # without flattening, for these may be crops
        picture = torch.empty(images.shape[0], *self.shape, device="meta")  # not painted yet
        heads = {SEEN: white, RESTORED: self.restorer[1:](maps), SMALL: small}
        heads[DEFECT] = self.segmentation(white if spoiled is None else _hide(self.encoder[1](spoiled), kept))
        if planted is not None:
            heads[PLANTED] = planted
        return Outputs(picture, maps.flatten(1), (features,), heads), maps


class Look(nn.Module):
    """Images (N, C, H, W) in [0, 1] to the features that a backbone has for each place, (N, D, h, w), each channel
    about of mean 0 and deviation 1, so that float16 holds them.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, backbone: str) -> None:
        super().__init__()
        self.backbone = Backbone(backbone)
        self.register_buffer("centre", torch.zeros(self.backbone.channels, 1, 1))
        self.register_buffer("spread", torch.ones(self.backbone.channels, 1, 1))

    def rescale(self, images: Tensor) -> None:
        """Go by these images."""
        maps = self.backbone(images.to(self.centre.device))
        deviation, mean = torch.std_mean(maps, dim=(0, 2, 3))
        self.centre.copy_(mean[:, None, None])
        self.spread.copy_(deviation[:, None, None].clamp_min(FAINTEST))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images)
        return (features - self.centre) / self.spread


class Borrowed(nn.Module):
    """A part of another network, with whose weights its own are saved."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        vars(self)["part"] = part  # past `nn.Module`, which would give every weight a second name

    def forward(self, images: Tensor) -> Tensor:
        given: Tensor = vars(self)["part"](images)
        return given


class Whitening(nn.Module):
    """Maps (N, D, h, w) less their mean, and mixed so that over training images no channel varies with another."""

    mixing: Tensor
    offset: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mixing", torch.zeros(channels, channels))
        self.register_buffer("offset", torch.zeros(channels))

    def fit(self, maps: Tensor, rows: Tensor) -> None:
        """Go by those rows, int64 (M,), of maps (N, D, h, w), a few at a time, for there may be many."""
        count, parts = len(rows) * math.prod(maps.shape[2:]), torch.split(rows, PERCEIVED_AT_ONCE)
        mean = torch.stack([maps[part].float().sum(dim=(0, 2, 3)) for part in parts]).sum(dim=0) / count
        covariance = torch.zeros_like(self.mixing)
        for part in parts:
            values = maps[part].float().permute(0, 2, 3, 1).flatten(0, 2) - mean  # (B·h·w, D)
            covariance += (values.T @ values / count).to(covariance)
        scale = covariance.diagonal().sqrt().clamp_min(FAINTEST)  # so that it matters not how they are scaled already
        variance, directions = torch.linalg.eigh(covariance / scale / scale[:, None])
        self.mixing.copy_((directions / (variance.clamp_min(0) + FAINTEST).sqrt()).T / scale)
        self.offset.copy_(-self.mixing @ mean.to(covariance))

    def forward(self, maps: Tensor) -> Tensor:
        # of one layout, the faster one, so that images and what was perceived of them come to the same bits
        same = maps.contiguous(memory_format=torch.channels_last)
        return functional.conv2d(same, self.mixing[:, :, None, None], self.offset)


class Cut(nn.Module):
    """Maps without what they have beyond height and width."""

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.height, self.width = size

    def forward(self, maps: Tensor) -> Tensor:
        return maps[:, :, : self.height, : self.width]


def _hide(maps: Tensor, kept: Tensor | None) -> Tensor:
    """Maps without what is not kept of them, if anything is hidden."""
    return maps if kept is None else maps * kept


def _stage(convolution: nn.Conv2d, config: RunConfig) -> nn.Sequential:
    return nn.Sequential(convolution, *activation(convolution.out_channels, config))


def _latent_maps(latent: int | None, places: int) -> int:
    """How many maps have so many latent dimensions. Raises `UsageError` for a number that is not whole."""
    if latent and latent % places:
        raise UsageError(
            f"the latent of autoencoder feature-conv is made of maps of {places} places, and "
            f"{setting('latent', latent)} was asked; leave it out, or name a multiple of {places}"
        )
    return latent // places if latent else FEATURE_LATENT_MAPS
