"""A training with nothing left open: every default filled, every name looked up, everything made once."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from anomaly_ae.augmentation.transforms import Augment, build_augmentation, find_augmentations
from anomaly_ae.autoencoders import Autoencoder, build_autoencoder, find_autoencoder, require_room
from anomaly_ae.autoencoders.folds import latent_size
from anomaly_ae.autoencoders.inference import pick_device
from anomaly_ae.autoencoders.restoring import RESTORE
from anomaly_ae.config.run_config import CROSS, RunConfig
from anomaly_ae.errors import UsageError, one_line
from anomaly_ae.escaping import times
from anomaly_ae.images.preprocessing import Preprocessing
from anomaly_ae.objectives import Objective, build_objective, parse_objective
from anomaly_ae.objectives.perceptual import Features
from anomaly_ae.runtime.messages import logger
from anomaly_ae.runtime.spelling import setting
from anomaly_ae.scorers import Scorer, build_scorer, find_scorers
from anomaly_ae.scorers.prototypes import AlignedPrototypes
from anomaly_ae.scorers.restoration import RestorationError
from anomaly_ae.scorers.surface import DefectProbability


@dataclass(frozen=True, eq=False)
class Experiment:
    """What is trained, on what it sees, and how.

    config:          with nothing left open but the number of epochs, which goes by that of the images
    classes, normal: the names of all classes, and of the normal ones
    network:         on `device`, with the weights that training begins with
    scorer:          that has learned nothing yet
    """

    config: RunConfig
    classes: tuple[str, ...]
    normal: tuple[str, ...]
    preprocessing: Preprocessing
    network: Autoencoder
    scorer: Scorer
    objective: Objective
    augment: Augment
    device: torch.device

    @classmethod
    def build(
        cls,
        config: RunConfig,
        preprocessing: Preprocessing,
        classes: tuple[str, ...],
        normal: tuple[str, ...],
        features: Features | None = None,
    ) -> "Experiment":
        """Make all that a config names; features: what the objective `perceptual` compares.

        torch's random state is that of the config's seed then. Raises `UnknownName`, and `UsageError` where what is
        named does not go together.
        """
        config = fill_defaults(config)
        device = pick_device(config.device)
        require_room(preprocessing.shape, config)
        torch.manual_seed(config.seed)
        network = build_autoencoder(str(config.autoencoder), preprocessing.shape, config).to(device)
        network.begin(config)
        experiment = cls(
            config=dataclasses.replace(config, latent=latent_size(network)),
            classes=classes,
            normal=normal,
            preprocessing=preprocessing,
            network=network,
            scorer=build_scorer(str(config.scorer), config.top_fraction, config.folds),
            objective=build_objective(str(config.objective), features),
            augment=build_augmentation(config.augment),
            device=device,
        )
        experiment._try_one_image()
        return experiment

    @torch.no_grad()
    def _try_one_image(self) -> None:
        """Put an empty image through network, scorer and objective. Raises `UsageError` if they do not fit."""
        images = torch.zeros(1, *self.preprocessing.shape, device=self.device)
        outputs = self.network.eval()(images)
        for part in self.scorer.iter_parts():
            part.check(outputs)
        try:
            self.objective(images, outputs.members[0] if outputs.members else outputs)
        except RuntimeError as error:
            size = times(self.preprocessing.shape)
            raise UsageError(
                f"objective {self.config.objective} cannot be taken of images {size} ({one_line(error)}); "
                f"name another objective, or a larger {setting('image_size')}"
            ) from error


def say_what_prototypes_lack(scorers: Iterable[str], autoencoder: str) -> None:
    """Say where a scorer compares with images decoded from latents, which an autoencoder with skips draws worse."""
    if find_autoencoder(autoencoder).skips and any(AlignedPrototypes in find_scorers(name) for name in scorers):
        logger.info(
            f"aligned-prototypes compares with what latents alone decode to, without what the skips of {autoencoder} "
            f"carry; {setting('autoencoder', 'conv')} has no skips"
        )


def fill_defaults(config: RunConfig) -> RunConfig:
    """The config with what its preset, then its autoencoder, have of their own where nothing was named.

    Raises `UnknownName`.
    """
    entry = find_autoencoder(str(config.filled().autoencoder))
    config = dataclasses.replace(
        config, batch_size=config.batch_size or entry.batch_size, steps=config.steps or entry.steps
    ).filled()
    return dataclasses.replace(
        config,
        objective=config.objective or entry.objective,
        learning_rate=config.learning_rate or entry.learning_rate,
        defects=entry.defects if config.defects is None else config.defects,
    )


def check_names(config: RunConfig) -> None:
    """Look up every name of a filled config but those of data and classes, before any data are read.

    Raises `UnknownName`, and `UsageError` where two settings do not go together.
    """
    scorers = find_scorers(str(config.scorer), config.top_fraction)
    find_augmentations(config.augment)
    objectives = [name for _, name in parse_objective(str(config.objective))]
    if (config.autoencoder == "feature-conv") != (objectives == ["features"]):
        raise UsageError(
            f"autoencoder feature-conv and objective features go together alone, and {config.autoencoder} and "
            f"{config.objective} were given; leave {setting('objective')} out"
        )
    if DefectProbability in scorers and not {"repair", "features"} & {*objectives}:
        raise UsageError(
            "scorer defect reads what objectives repair and features teach, and the objective is "
            f"{config.objective}; take {setting('autoencoder', 'repair')} or feature-conv with the objective of its "
            "own, or name repair with others, as in repair+ssim"
        )
    if RestorationError in scorers and RESTORE not in objectives:
        raise UsageError(
            f"scorer restoration reads what objective restore teaches, and the objective is {config.objective}; name "
            f"{setting('objective', RESTORE)}"
        )
    if {"repair", RESTORE} <= {*objectives}:
        raise UsageError(
            "objective repair says where defects are in an image as it is, and restore turns it; leave one of the "
            "two out"
        )
    if "repair" in objectives and not config.defects:
        raise UsageError(
            f"objective repair needs defects to repair, and defects is 0; leave {setting('defects')} out"
        )
    if config.folds and config.guarantee != CROSS:
        raise UsageError(f"folds are those of the guarantee cross; name {setting('guarantee', CROSS)}, too")
    if config.guarantee == CROSS and (config.trim_training or config.contamination):
        name = "trim_training" if config.trim_training else "contamination"
        raise UsageError(
            f"the guarantee cross takes all images for normal, and {setting(name, getattr(config, name))} does not; "
            "leave one of the two out"
        )
    if ("perceptual" in objectives) == (config.perceptual is None):
        raise UsageError(
            "objective perceptual and setting perceptual go together, and one was given without the other; name the "
            f"network whose features to compare with {setting('perceptual')}=: a finished run, a detector's folder, "
            "or a torchvision network with its weights file, as in vgg16:vgg16.pth"
        )
