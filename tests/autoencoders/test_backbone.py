from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import timm
import torch
from safetensors.torch import save, save_file
from sklearn.datasets import load_sample_image
from torch.nn import functional

from anomaly_ae.autoencoders import backbone as backbones
from anomaly_ae.autoencoders.backbone import AT_ONCE, PACKAGED, Backbone
from anomaly_ae.errors import UnknownName, UsageError

PLACE_ON_THE_HUB = "/{repo_id}/resolve/{revision}/{filename}"


@pytest.fixture(scope="module")
def flower() -> torch.Tensor:
    """A photo, float (1, 3, 320, 480) in [0, 1]."""
    pixels = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)[None].float() / 255
    return functional.interpolate(pixels, (320, 480), mode="area")


def by_timm_s_names(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The packaged weights, as many as the network has."""
    names = [key for key in network.state_dict() if not key.endswith(backbones.COUNTER)]
    return network.state_dict() | dict(zip(names, backbones._packaged().values(), strict=False))


def test_the_packaged_weights_know_a_flower(flower: torch.Tensor) -> None:
    whole = timm.create_model(PACKAGED).eval()
    whole.load_state_dict(by_timm_s_names(whole))
    with torch.inference_mode():
        best = whole(2 * functional.interpolate(flower, (224, 224)) - 1).argmax()
    assert int(best) == 985  # daisy, of the thousand classes of ImageNet


@pytest.mark.parametrize("size", [(40, 48), (41, 50), (63, 22)])
def test_the_packaged_network_is_timm_s(flower: torch.Tensor, size: tuple[int, int]) -> None:
    stages = timm.create_model(PACKAGED, features_only=True, out_indices=(1, 2, 3)).eval()
    stages.load_state_dict(by_timm_s_names(stages))
    backbone = Backbone(PACKAGED)
    backbone.load_pretrained()
    images = 2 * functional.interpolate(flower, size) - 1
    for ours, theirs in zip(backbone.stages(images), stages(images), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_the_packaged_network_takes_weights_by_timm_s_names(flower: torch.Tensor, tmp_path: Path) -> None:
    ours, theirs = Backbone(PACKAGED), Backbone(PACKAGED)
    ours.load_pretrained()
    weights = by_timm_s_names(timm.create_model(PACKAGED))
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "lite.safetensors")
    theirs.load_pretrained(str(tmp_path / "lite.safetensors"))
    assert torch.equal(ours(flower), theirs(flower))


def test_features_are_means_of_both_ways_and_3x3_places_side_by_side(flower: torch.Tensor) -> None:
    backbone = Backbone(PACKAGED)
    backbone.load_pretrained()
    with torch.inference_mode():
        upright, turned = (backbone.stages(2 * each - 1) for each in (flower, flower.flip(2, 3)))
        finest, fine, coarse = ((each + other.flip(2, 3)) / 2 for each, other in zip(upright, turned, strict=True))
        seen = backbone.train()(flower)  # which changes nothing in it
    assert seen.shape == (1, 24 + 40 + 112, 40, 60)
    about = fine[0, :, 6:9, 8:11].mean(dim=(1, 2))
    torch.testing.assert_close(seen[0, 24:64, 7, 9], about, rtol=1e-4, atol=1e-4)
    quarter = functional.avg_pool2d(functional.avg_pool2d(finest, 3, 1, 1), 2)
    torch.testing.assert_close(seen[:, :24], quarter, rtol=1e-4, atol=1e-4)
    pooled = functional.avg_pool2d(coarse, 3, 1, 1)
    enlarged = functional.interpolate(pooled, (40, 60), mode="bilinear")
    torch.testing.assert_close(seen[:, 64:], enlarged, rtol=1e-4, atol=1e-4)
    gray = flower[:, :1]
    assert torch.equal(backbone(gray), backbone(gray.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("size", [(64, 96), (65, 90)])
def test_a_picture_rotated_by_180_degrees_has_the_same_features_rotated(
    flower: torch.Tensor, size: tuple[int, int]
) -> None:
    backbone = Backbone(PACKAGED)
    backbone.load_pretrained()
    pictures = torch.cat([flower[:, :, i : i + size[0], : size[1]] for i in range(AT_ONCE + 1)])
    with torch.inference_mode():
        seen = backbone(pictures)
        torch.testing.assert_close(backbone(pictures.flip(2, 3)), seen.flip(2, 3), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(backbone(pictures[-1:]), seen[-1:], rtol=1e-4, atol=1e-4)


def test_weights_of_another_network_are_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match="unknown backbone 'resnet19'"):
        Backbone("resnet19")
    with pytest.raises(
        UsageError, match="swin_tiny_patch4_window7_224 has its feature maps with the channels last; name"
    ):
        Backbone("swin_tiny_patch4_window7_224")
    with pytest.raises(
        UsageError, match="do not come with this tool; name a safetensors file of them with backbone_w"
    ):
        Backbone("resnet18").load_pretrained()
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    Backbone("resnet18").load_pretrained(str(tmp_path / "resnet18.safetensors"))
    with pytest.raises(UsageError, match=r"are not those of the backbone asked for: they lack conv_stem\.weight"):
        Backbone(PACKAGED).load_pretrained(str(tmp_path / "resnet18.safetensors"))
    (tmp_path / "text.safetensors").write_text("hello")
    for name, reason in (("text", "no safetensors file"), ("none", "cannot be read")):
        with pytest.raises(UsageError, match=reason):
            Backbone(PACKAGED).load_pretrained(str(tmp_path / f"{name}.safetensors"))
    monkeypatch.setattr(backbones, "PACKAGED_SHA256", "0" * 64)
    with pytest.raises(UsageError, match="is not the file that was published"):
        Backbone(PACKAGED).load_pretrained()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[str], dict[str, bytes]]]:
    """A server on this machine in place of the Hugging Face hub: what it was asked for, and the files that it has."""
    asked, files = list[str](), dict[str, bytes]()

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            content = files.get(self.path, b"")
            self.send_response(200 if content else 404)
            for name, value in (("ETag", f'"{len(content)}"'), ("X-Repo-Commit", "0" * 40)):
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + PLACE_ON_THE_HUB)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield asked, files
    server.shutdown()
    server.server_close()


def test_weights_are_downloaded_when_that_was_asked_for_alone(hub: tuple[list[str], dict[str, bytes]]) -> None:
    asked, files = hub
    with pytest.raises(UsageError, match="downloaded with download=True"):
        Backbone("resnet10t").load_pretrained()
    assert asked == []
    with pytest.raises(UsageError, match="of backbone resnet10t could not be downloaded"):
        Backbone("resnet10t").load_pretrained(download=True)
    published = timm.create_model("resnet10t").state_dict()
    files["/timm/resnet10t.c3_in1k/resolve/main/model.safetensors"] = save(published)
    backbone = Backbone("resnet10t")
    backbone.load_pretrained(download=True)
    own = backbone.stages.state_dict()
    assert all(torch.equal(value, published[name]) for name, value in own.items() if name in published)
    assert "conv1.0.weight" in own
