import copy
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from anomaly_ae.autoencoders import AUTOENCODERS, Autoencoder, Outputs, Shape, build_autoencoder, image_size
from anomaly_ae.autoencoders.inference import map_images, map_latents
from anomaly_ae.autoencoders.tiling import OVERLAP, Grid, Tiled, inner_network, random_crops, shares, tile_starts
from anomaly_ae.config.run_config import RunConfig
from anomaly_ae.errors import UsageError

TILE = (16, 12)
IMAGES = [(16, 13), (17, 12), (33, 40), (64, 47), (91, 25)]  # H and W


class Unchanged(Autoencoder):
    """What gives back every tile; its heads are a map, a vector and a number of each tile."""

    def __init__(self, shape: Shape, options: RunConfig) -> None:
        super().__init__(shape, options)
        self.latent_shape = shape
        self.encoder = nn.Sequential(nn.Flatten())
        self.decoder = nn.Sequential(nn.Unflatten(1, shape))

    def forward(self, images: Tensor) -> Outputs:
        outputs = super().forward(images)
        means = images.mean(dim=(2, 3))  # (N, C)
        return outputs._replace(heads={"squares": images.square(), "means": means, "first": means[:, 0]})


def tiled(name: str, image: tuple[int, int], channels: int = 1) -> Tiled:
    torch.manual_seed(0)
    inner = build_autoencoder(name, (channels, *TILE), RunConfig(latent=5))
    return Tiled(inner, (channels, *image), TILE).eval()


@pytest.mark.parametrize("tile", [1, 2, 3, 16, 27, 64])
def test_tiles_cover_a_side_exactly_evenly_and_with_overlap(tile: int) -> None:
    for side in range(tile, 5 * tile + 3):
        starts = tile_starts(side, tile)
        steps = [after - before for before, after in zip(starts, starts[1:], strict=False)]
        assert (starts[0], starts[-1] + tile) == (0, side)
        assert all(type(start) is int for start in starts)
        assert all(0 < step <= max(1, (1 - OVERLAP) * tile) for step in steps)
        assert max(steps, default=1) - min(steps, default=1) <= 1
        # one tile less would overlap too little
        assert len(starts) <= 2 or (side - tile) / (len(starts) - 2) > (1 - OVERLAP) * tile - 1


def test_tiles_stand_where_they_are_expected() -> None:
    assert tile_starts(240, 96) == [0, 72, 144]
    assert tile_starts(96, 96) == [0]
    assert tile_starts(97, 96) == [0, 1]
    assert tile_starts(10, 4) == [0, 3, 6]
    with pytest.raises(UsageError, match="no tiles of 9×9"):
        tile_starts(8, 9)


def test_what_a_tile_counts_falls_linearly_to_its_border_and_is_never_nothing() -> None:
    (alone,) = shares([0], 5, 5)
    assert alone.tolist() == [1, 1, 1, 1, 1]
    left, right = shares([0, 3], 5, 8)  # 1 2 3 2 1, twice, two pixels shared
    assert left.tolist() == pytest.approx([1, 1, 1, 2 / 3, 1 / 3])
    assert right.tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    assert bool((shares(tile_starts(1000, 64), 64, 1000) > 0.01).all())


@pytest.mark.parametrize("image", IMAGES, ids=str)
def test_a_network_that_changes_nothing_gives_the_image_and_its_maps_back(image: tuple[int, int]) -> None:
    network, images = Tiled(Unchanged((3, *TILE), RunConfig()), (3, *image), TILE).eval(), torch.rand(2, 3, *image)
    outputs = network(images)
    torch.testing.assert_close(outputs.reconstruction, images, rtol=0, atol=1e-6)
    torch.testing.assert_close(outputs.heads["squares"], images.square(), rtol=0, atol=1e-6)
    assert outputs.features == ()


def test_heads_that_are_no_maps_are_averaged_over_the_tiles() -> None:
    network, images = Tiled(Unchanged((2, 4, 4), RunConfig()), (2, 4, 7), (4, 4)), torch.rand(3, 2, 4, 7)
    heads = network(images).heads
    expected = (images[..., :4].mean(dim=(2, 3)) + images[..., 3:].mean(dim=(2, 3))) / 2
    torch.testing.assert_close(heads["means"], expected)
    torch.testing.assert_close(heads["first"], expected[:, 0])


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0])
def test_a_constant_stays_constant_and_in_range(value: float) -> None:
    for image, tile in [*((image, TILE) for image in IMAGES), ((118, 118), (64, 64))]:  # the last rounds to 1 + 2e-7
        network, images = (
            Tiled(Unchanged((1, *tile), RunConfig()), (1, *image), tile),
            torch.full((1, 1, *image), value),
        )
        blended, decoded = network(images).reconstruction, network.decode(network.encode(images)[0])
        assert float((blended - value).abs().max()) <= 3e-7
        assert torch.equal(decoded, blended)
        functional.binary_cross_entropy(blended, torch.ones_like(blended))  # refuses what is above 1


def test_no_seam_shows_between_tiles_that_disagree() -> None:
    grid = Grid((16, 28), (16, 16))  # at 0 and 12
    tiles = torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)])
    row = grid.blend(tiles)[0, 0, 0]
    torch.testing.assert_close(row[11:17], torch.tensor([0, 0.2, 0.4, 0.6, 0.8, 1]))


@pytest.mark.parametrize("name", ["conv", "vae", "vanilla", "strided-32", "dense-bottleneck-64"])
def test_decoding_what_was_encoded_is_the_reconstruction(name: str) -> None:
    network, images = tiled(name, (33, 40), channels=3), torch.rand(2, 3, 33, 40)
    outputs = network(images)
    latent, features = network.encode(images)
    assert outputs.reconstruction.shape == images.shape
    assert latent.shape == (2, network.latent_size) == (2, math.prod(network.latent_shape)) == (2, 3 * 5 * 5)
    assert features == ()
    assert torch.equal(latent, outputs.latent)
    assert torch.equal(network.decode(latent), outputs.reconstruction)
    assert torch.equal(network.encoder(images), latent)
    assert torch.equal(network.decoder(latent), outputs.reconstruction)


def test_the_latent_has_the_tiles_latents_row_by_row() -> None:
    network, images = tiled("conv", (16, 21)), torch.rand(2, 1, 16, 21)
    left, right = (network.inner.encode(images[..., x : x + 12])[0] for x in (0, 9))
    torch.testing.assert_close(network.encode(images)[0], torch.cat([left, right], dim=1))


def test_maps_of_latents_are_taken_as_they_are_flattened() -> None:
    inner = build_autoencoder("conv-pool", (1, *TILE))
    network, images = Tiled(inner, (1, 33, 40), TILE).eval(), torch.rand(2, 1, 33, 40)
    assert network.latent_shape == (15, 64, 2, 1)
    assert torch.equal(network.decode(network.encode(images)[0]), network(images).reconstruction)


def test_an_image_s_outputs_do_not_depend_on_the_others() -> None:
    network, images = tiled("vae", (91, 25)), torch.rand(5, 1, 91, 25)
    together = network(images)
    for i, image in enumerate(images):
        alone = network(image[None])
        torch.testing.assert_close(alone.reconstruction[0], together.reconstruction[i], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.latent[0], together.latent[i], rtol=0, atol=1e-6)
        torch.testing.assert_close(alone.heads["mean"][0], together.heads["mean"][i], rtol=0, atol=1e-6)


def test_the_inner_network_sees_so_many_tiles_at_a_time_but_in_training_all(monkeypatch: pytest.MonkeyPatch) -> None:
    network, images, seen = tiled("conv", (33, 40)), torch.rand(3, 1, 33, 40), list[int]()
    whole = network(images)
    monkeypatch.setattr("anomaly_ae.autoencoders.tiling.batch_size", lambda *_: 7)
    for part in (network.inner.encoder, network.inner.decoder):
        part[0].register_forward_hook(lambda _, given, __: seen.append(len(given[0])))
    in_portions = network(images)
    torch.testing.assert_close(in_portions.reconstruction, whole.reconstruction, rtol=0, atol=1e-6)
    torch.testing.assert_close(network.decode(network.encode(images)[0]), whole.reconstruction, rtol=0, atol=1e-6)
    assert max(seen) == 7
    seen.clear()
    network.train()(images)
    assert seen == [45, 45]


@pytest.mark.parametrize("mode", [True, False])
def test_images_of_a_tile_s_size_go_straight_through(mode: bool) -> None:
    network, images = tiled("conv", (33, 40)).train(mode), torch.rand(4, 1, *TILE)
    passed, inner = network(images), copy.deepcopy(network.inner)(images)
    assert torch.equal(passed.reconstruction, inner.reconstruction)
    assert torch.equal(passed.latent, inner.latent)
    assert len(passed.features) == len(inner.features) == len(network.encode(images)[1]) > 0
    network.eval()
    latent = network.encode(images)[0]
    assert torch.equal(network.encoder(images), latent)
    assert torch.equal(network.decode(latent), network(images).reconstruction)


def test_other_sizes_and_tiles_larger_than_the_image_are_refused() -> None:
    network = tiled("conv", (33, 40))
    for attempt in (network, network.encode):
        with pytest.raises(UsageError, match="images of 33×40 pixels, or of 16×12, and these are 40×40"):
            attempt(torch.rand(1, 1, 40, 40))
    with pytest.raises(RuntimeError):
        network.decode(torch.rand(1, 2 * network.latent_size))
    with pytest.raises(UsageError, match="images of 33×8 pixels have no tiles of 16×12"):
        Tiled(network.inner, (1, 33, 8), TILE)


def test_it_has_what_the_inner_network_has() -> None:
    for name in AUTOENCODERS:
        inner = build_autoencoder(name, (1, 28, 28))
        network = Tiled(inner, (1, 40, 50), (28, 28))
        assert network.parameter_counts() == inner.parameter_counts()
        for told in ("span", "objective", "learning_rate"):
            assert getattr(network, told) == getattr(inner, told)
        assert network.latent_size == len(network.grid) * inner.latent_size == 6 * inner.latent_size


def test_what_it_has_learned_can_be_saved_and_loaded(tmp_path: Path) -> None:
    network, images = tiled("vae", (33, 40)), torch.rand(2, 1, 33, 40)
    network.train()(images)  # batch norm learns
    save_file(network.eval().state_dict(), tmp_path / "all")  # refuses a weight with two names
    torch.manual_seed(1)
    other = Tiled(build_autoencoder("vae", (1, *TILE), RunConfig(latent=5)), (1, 33, 40), TILE).eval()
    assert not torch.equal(other(images).reconstruction, network(images).reconstruction)
    other.load_state_dict(load_file(tmp_path / "all"))
    assert torch.equal(other(images).reconstruction, network(images).reconstruction)
    assert torch.equal(other(images).heads["log_variance"], network(images).heads["log_variance"])
    assert torch.equal(other.encoder(images), network.encoder(images))


def test_its_parts_can_be_saved_and_loaded_alone(tmp_path: Path) -> None:
    network, images = tiled("conv", (33, 40)), torch.rand(2, 1, 33, 40)
    torch.manual_seed(1)
    other = Tiled(build_autoencoder("conv", (1, *TILE), RunConfig(latent=5)), (1, 33, 40), TILE).eval()
    for name in ("encoder", "decoder"):
        save_file(getattr(network, name).state_dict(), tmp_path / name)
        getattr(other, name).load_state_dict(load_file(tmp_path / name))
    assert torch.equal(other.decoder(other.encoder(images)), network(images).reconstruction)


def test_a_copy_has_weights_of_its_own() -> None:
    network, images = tiled("conv", (33, 40)), torch.rand(1, 1, 33, 40)
    other = copy.deepcopy(network)
    nn.init.zeros_(next(network.encoder.parameters()))
    assert torch.equal(other.encoder(images), other(images).latent)
    assert not torch.equal(other.encoder(images), network.encoder(images))


@pytest.mark.parametrize("size", [(33, 40), TILE])
def test_gradients_reach_every_weight_and_a_step_helps(size: tuple[int, int]) -> None:
    network, images = tiled("conv", (33, 40)).train(), torch.rand(2, 1, *size)
    optimizer, losses = torch.optim.AdamW(network.parameters(), lr=1e-2), []
    for _ in range(5):
        loss = functional.mse_loss(network(images).reconstruction, images)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        assert all(weights.grad is not None and bool(weights.grad.any()) for weights in network.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


def test_gradients_are_those_of_the_blended_image() -> None:
    network = Tiled(Unchanged((1, *TILE), RunConfig()), (1, 33, 40), TILE)
    images, weights = torch.rand(1, 1, 33, 40, requires_grad=True), torch.rand(1, 1, 33, 40)
    torch.autograd.backward((network(images).reconstruction * weights).sum())
    torch.testing.assert_close(images.grad, weights, rtol=0, atol=1e-6)


def test_it_is_mapped_over_images_and_latents_as_any_other() -> None:
    network = tiled("conv", (33, 40))
    images = torch.randint(0, 256, (3, 1, 33, 40), dtype=torch.uint8)
    latents = map_images(network, images, lambda _, outputs: outputs.latent)
    rebuilt = map_images(network, images, lambda _, outputs: outputs.reconstruction)
    torch.testing.assert_close(map_latents(network, latents, (1, 33, 40)), rebuilt, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crops_are_parts_of_their_own_image_at_places_that_vary(dtype: torch.dtype) -> None:
    height, width, size = 9, 11, (4, 6)
    place = torch.arange(height * width).view(1, height, width)  # a pixel's value tells its position
    images = torch.stack([torch.cat([place, place + 100 + i]) for i in range(50)]).to(dtype)  # (N, 2, H, W)
    crops = random_crops(images, size)
    assert crops.dtype == dtype
    assert crops.shape == (50, 2, *size)
    seen = set()
    for image, crop in zip(images, crops, strict=True):
        y, x = divmod(int(crop[0, 0, 0]), width)
        assert torch.equal(crop, image[:, y : y + size[0], x : x + size[1]])
        seen.add((y, x))
    assert {y for y, _ in seen} == set(range(6))  # the first and last place too
    assert {x for _, x in seen} == set(range(6))
    assert len(seen) > 15  # height and width are drawn apart


def test_crops_follow_the_seed_and_whole_images_stay_as_they_are() -> None:
    images, drawn = torch.rand(8, 1, 20, 20), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(random_crops(images, (7, 20)))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert random_crops(images, (20, 20)) is images
    with pytest.raises(UsageError, match="images of 20×20 pixels have no tiles of 7×21"):
        random_crops(images, (7, 21))


def test_heads_of_the_latent_s_shape_lie_side_by_side_so_that_the_elbo_counts_every_tile() -> None:
    network = build_autoencoder("vae", (1, 20, 30), RunConfig(latent=3, tile=(16, 16))).eval()
    outputs = network(torch.rand(2, 1, 20, 30))
    tiles = network.latent_size // 3
    assert outputs.heads["mean"].shape == outputs.heads["log_variance"].shape == (2, 3 * tiles)
    assert torch.equal(outputs.heads["mean"], outputs.latent)


def test_the_catalogue_builds_tiles_and_their_size_is_the_tile_s() -> None:
    network = build_autoencoder("strided-32", (1, 60, 40), RunConfig(tile=(28, 28)))
    assert isinstance(network, Tiled)
    assert inner_network(network).latent_size == 32
    assert image_size("strided-32", None, (60, 40)) == (28, 28)
    assert image_size("strided-32", None, (60, 40), tiled=True) == (60, 40)
