"""What a detector makes of test images, in one pass of its network where these are few."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.inference import map_jointly
from anomaly_ae.detector.detector import Detector
from anomaly_ae.images.preprocessing import Preprocessed
from anomaly_ae.metrics.ranking import Floats
from anomaly_ae.scorers import SCORERS
from anomaly_ae.scorers.fold_scorer import score_and_map

MSE = "mse"
PLAIN = (MSE, "relative")  # reconstruction errors without learning, to see what the scorer adds to them
KEPT_IMAGES, KEPT_VALUES = 500, 2**25  # the most images that all is kept of, and values in these, of 4 bytes each


class AllOutputs(NamedTuple):
    """Latents, float32 (N, D), reconstructions, (N, C, H, W), and anomaly maps, (N, H, W), if there are any."""

    latents: Tensor
    reconstructions: Tensor
    maps: Tensor | None = None


@dataclass(frozen=True, eq=False)
class DetectorOutputs:
    """What a detector makes of images at its size, (N, C, H, W), uint8 or float in [0, 1].

    scores: float32 (N,), bit for bit those of `Detector.score`
    errors: plain reconstruction errors, float32 (N,), by the names of their scorers
    kept:   all else, of a few images where that is wanted; of others it is made anew when it is asked for
    """

    detector: Detector
    images: Tensor
    scores: Tensor
    errors: dict[str, Floats]
    kept: AllOutputs | None

    @classmethod
    def of(cls, detector: Detector, images: Tensor, keep: bool = True) -> "DetectorOutputs":
        """Look at images. keep: whether more than scores and errors will be asked for"""
        scorer, plain = detector.scorer, [SCORERS[name].build() for name in PLAIN]
        is_kept = keep and len(images) <= KEPT_IMAGES and images.numel() <= KEPT_VALUES
        is_mapped = is_kept and detector.map_scorer is not None

        def read(pixels: Tensor, outputs: Outputs) -> list[Tensor]:
            scores, *maps = score_and_map(scorer, pixels, outputs) if is_mapped else [scorer.score(pixels, outputs)]
            kept = [outputs.latent, outputs.reconstruction, *maps] if is_kept else []
            return [scores, *(each.score(pixels, outputs) for each in plain), *kept]

        scores, mse, relative, *kept = map_jointly(detector.network, images, read)
        errors = dict(zip(PLAIN, (mse.numpy(), relative.numpy()), strict=True))
        return cls(detector, images, scores, errors, AllOutputs(*kept) if kept else None)

    def encode(self, rows: Tensor) -> Tensor:
        """`Detector.encode` of the images at `rows`, int64 (M,)."""
        if self.kept is None:
            return self.detector.encode(Preprocessed(self.images[rows]))
        return self.kept.latents[rows]

    def anomaly_map(self, rows: Tensor) -> Tensor | None:
        """`Detector.anomaly_map` of these."""
        if self.kept is None:
            return self.detector.anomaly_map(Preprocessed(self.images[rows]))
        return None if self.kept.maps is None else self.kept.maps[rows]

    def reconstruct_and_map(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """`Detector.reconstruct_and_map` of these."""
        if self.kept is None:
            return self.detector.reconstruct_and_map(Preprocessed(self.images[rows]))
        return self.kept.reconstructions[rows], self.anomaly_map(rows)
