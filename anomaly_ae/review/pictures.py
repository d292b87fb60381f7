"""The pictures of a review: files decoded by processes of their own, what the detector makes of them, and the
training images that are most like them.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from anomaly_ae.datasets.catalogue import open_data
from anomaly_ae.errors import AnomalyAEError, DataDamaged, one_line
from anomaly_ae.escaping import printable, shown
from anomaly_ae.images.decode import Pixels, put_back, size_inside
from anomaly_ae.images.decode_pool import Decoders
from anomaly_ae.images.decode_worker import Records
from anomaly_ae.images.image_set import ImageSet
from anomaly_ae.images.listing import NOT_KNOWN
from anomaly_ae.images.preprocessing import Images, Preprocessed
from anomaly_ae.reporting.figures.saving import as_pixels, encoded
from anomaly_ae.review.session import Session
from anomaly_ae.scorers.scorer import sample
from anomaly_ae.scoring.marks import state_of
from anomaly_ae.scoring.previews import picture_decoders, picture_of
from anomaly_ae.workflows.find_model import find_model

THUMBNAIL_SIDE, PICTURE_SIDE = 192, 1_280  # pixels at the most
KEPT_BYTES = 2**26  # of thumbnails that are kept
DARK = (0, 0, 0, 170)  # red, green, blue, alpha: a third is seen, as in heat maps
MOST_SIMILAR = 5  # training images that are shown
MOST_LATENTS = 2**26  # numbers, of training images to choose from


@dataclass(frozen=True)
class Neighbor:
    """A training image: its position among those that are compared, its name, and how far its latent is."""

    index: int
    name: str
    distance: float


@dataclass(eq=False)
class TrainingImages:
    """Training images, and their latents (M, D); or, without any, why there are none."""

    images: ImageSet | None
    latents: Tensor
    why_none: str = ""


@dataclass(eq=False)
class Pictures:
    """Makes the pictures that the page asks for, from any thread. To be closed, or used in a `with`."""

    session: Session
    _kept: "OrderedDict[object, bytes]" = field(default_factory=OrderedDict)  # thumbnails, the last used at the end
    _held: int = 0  # bytes of these
    _keeping: threading.Lock = field(default_factory=threading.Lock)
    _network: threading.Lock = field(default_factory=threading.Lock)
    _opening: threading.Lock = field(default_factory=threading.Lock)
    _training: TrainingImages | None = None

    def __post_init__(self) -> None:
        source, detector = self.session.source, self.session.detector
        self._small, self._large = (
            picture_decoders(detector, source, side) for side in (THUMBNAIL_SIDE, PICTURE_SIDE)
        )
        self._exact = detector.preprocessing.decoders(source, 1)

    def __enter__(self) -> "Pictures":
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._small, self._large, self._exact):
            each.close()

    def thumbnail(self, index: int) -> bytes:
        """A small picture of a file, WebP. Raises `DataDamaged` when it cannot be decoded."""
        key = index, state_of(self.session.source, self.session.path(index))
        with self._keeping:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        content = _webp(picture_of(self._decode(self._small, index)))
        with self._keeping:
            self._kept[key] = content
            self._held += len(content)
            while self._held > KEPT_BYTES:
                self._held -= len(self._kept.popitem(last=False)[1])
        return content

    def picture(self, index: int) -> bytes:
        """The picture of a file, WebP. Raises `DataDamaged` when it cannot be decoded."""
        return _webp(picture_of(self._decode(self._large, index)))

    def rebuilt(self, index: int) -> bytes:
        """What the detector rebuilds of it, PNG."""
        return _png(as_pixels(self._run(index, self.session.detector.reconstruct)[0].numpy()))

    def heat(self, index: int) -> bytes | None:
        """The anomaly map as colours over the picture, clear where it is 0, and dark where nothing is looked at, PNG;
        None where the scorer has none.
        """
        record = self._decode(self._exact, index)
        detector = self.session.detector
        with self._network:
            maps = detector.anomaly_map(Preprocessed(torch.from_numpy(record["pixels"].copy())[None]))
        if maps is None:
            return None
        width, height = size_inside((int(record["width"]), int(record["height"])), (PICTURE_SIDE, PICTURE_SIDE))
        whole = put_back(maps[0].numpy(), (width, height), detector.preprocessing.target)
        colours = _colours(whole, max(float(whole.max()), detector.heat_level or 0.0))
        if detector.preprocessing.roi:
            colours[~detector.preprocessing.roi.mask((width, height))] = DARK
        return _png(colours)

    def neighbors(self, index: int) -> list[Neighbor]:
        """The training images whose latents are nearest. Raises `DataMissing` or what else there is in the way."""
        training = self.training
        if training.images is None:
            raise DataDamaged(training.why_none)
        latent = self._run(index, self.session.detector.encode)
        distances = torch.cdist(latent, training.latents)[0]
        nearest = distances.topk(min(MOST_SIMILAR, len(distances)), largest=False)
        names = training.images.names
        return [
            Neighbor(i, printable(shown(names[i])) if names else f"image {i}", float(distances[i]))
            for i in nearest.indices.tolist()
        ]

    def training_picture(self, index: int) -> bytes:
        """One of the training images, as the detector sees it, PNG."""
        images = self.training.images
        if images is None or not 0 <= index < len(images):
            raise DataDamaged(f"there is no training image {index}")
        return _png(as_pixels(images.images[index].numpy() / 255))

    @property
    def training(self) -> TrainingImages:
        """An even sample of what the detector was trained on, if it is still there; read when first asked for."""
        with self._opening:
            self._training = self._training or self._find_training()
            return self._training

    def _find_training(self) -> TrainingImages:
        session, detector = self.session, self.session.detector
        _, run = find_model(session.home, session.model)
        config = run.config if run else detector.config
        try:
            images = detector.take("fit", open_data(str(config.dataset), config.data_dir))
        except AnomalyAEError as error:
            return TrainingImages(None, torch.zeros(0, 0), f"the training images are not at hand: {one_line(error)}")
        images = images.take(sample(len(images), max(1, MOST_LATENTS // detector.network.latent_size)))
        with self._network:
            return TrainingImages(images, detector.encode(Preprocessed(images.images)))

    def _run(self, index: int, make: Callable[[Images], Tensor]) -> Tensor:
        """What the detector makes of a file, (1, …)."""
        pixels = torch.from_numpy(self._decode(self._exact, index)["pixels"].copy())[None]
        with self._network:
            return make(Preprocessed(pixels))

    def _decode(self, decoders: Decoders, index: int) -> Records:
        (record,) = next(decoders.map([([self.session.path(index)], np.full(1, NOT_KNOWN))]))
        if record["error"]:
            raise DataDamaged(record["error"].decode())
        found: Records = record
        return found


def _colours(heat: "np.typing.NDArray[np.float32]", highest: float) -> Pixels:
    """A map (H, W) as colours with transparency, (H, W, 4): clear where it is 0."""
    from anomaly_ae.reporting.figures.image_grids import heat_colours  # here, for matplotlib is not needed to begin

    share, colours = heat_colours(heat, highest)
    coloured: Pixels = np.rint(np.dstack([colours, 255 * share])).astype(np.uint8)
    return coloured


def _png(pixels: Pixels) -> bytes:
    return encoded(pixels, "PNG", compress_level=1)


def _webp(pixels: Pixels) -> bytes:
    return encoded(pixels, "WEBP", quality=85, method=0)
