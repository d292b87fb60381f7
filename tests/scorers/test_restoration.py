import pytest
import torch

import anomaly_ae
from anomaly_ae.autoencoders import Outputs
from anomaly_ae.autoencoders.restoring import RESTORATIONS
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.detector.detector import Detector
from anomaly_ae.errors import UsageError
from anomaly_ae.runs.store import RunStore
from anomaly_ae.scorers import build_scorer
from anomaly_ae.scorers.restoration import RestorationError
from anomaly_ae.workflows.find_model import find_model
from tests.scorers.conftest import batches


def test_each_copy_s_error_is_relative_to_its_mean_over_the_validation_normals() -> None:
    g = torch.Generator().manual_seed(0)
    images, restored = torch.rand(6, 3, 5, 4, generator=g), torch.rand(6, 2, 3, 5, 4, generator=g)
    restored[:, 1] *= 0.1  # one copy is much worse than the other
    outputs = Outputs(images, torch.zeros(6, 1), heads={RESTORATIONS: restored.flatten(1, 2)})
    scorer = RestorationError()
    scorer.fit(batches((images, outputs)), batches((images[:4], outputs.first(4))))
    relative = build_scorer("relative")
    errors = torch.stack([relative.score(images, Outputs(each, torch.zeros(6, 1))) for each in restored.unbind(1)], 1)
    usual = errors[:4].mean(dim=0)
    expected = (errors / usual).mean(dim=1)
    torch.testing.assert_close(scorer.score(images, outputs), expected)
    torch.testing.assert_close(scorer.score(images, outputs)[:4].mean(), torch.tensor(1.0))
    torch.testing.assert_close(scorer.anomaly_map(images, outputs).mean(dim=(1, 2)), expected)


def test_twice_the_ink_is_not_twice_the_anomaly(generator: torch.Generator) -> None:
    images, restored = torch.rand(2, 6, 1, 8, 8, generator=generator)
    both = [
        (images * ink, Outputs(restored, torch.zeros(6, 1), heads={RESTORATIONS: restored * ink})) for ink in (1, 0.5)
    ]
    scorer = build_scorer("restoration")
    scorer.fit(batches(both[0]), batches(both[0]))
    full, faint = (scorer.score(*each) for each in both)
    assert ((full / faint) < 1.1).all()  # 1 but for the floor of the energy; of absolute errors 2


def test_a_network_that_restores_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match='restores gray and turned images; take objective="restore"'):
        build_scorer("restoration").check(Outputs(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1)))


@pytest.mark.parametrize("told", [{}, {"autoencoder": "conv", "objective": "restore", "image_size": "8x10"}])
def test_a_detector_of_it_is_trained_saved_and_loaded(told: dict[str, str], home: RunStore) -> None:
    config = {"normal": "0", "autoencoder": "skip-conv", "scorer": "restoration", "epochs": 60, **told}
    result = anomaly_ae.train(RunConfig.build(config), home=home, tracking=False)
    evaluation = anomaly_ae.evaluate(home=home)
    assert evaluation.auroc is not None
    assert evaluation.auroc > 0.9
    detector = Detector.load(find_model(home, result.run_id)[0])
    copies = 2 if told else 4
    assert detector.scorer.state()["usual_error"].shape == (copies,)
    maps = detector.anomaly_map(torch.rand(2, *detector.preprocessing.shape))
    assert maps is not None
    assert maps.shape[1:] == detector.preprocessing.shape[1:]
