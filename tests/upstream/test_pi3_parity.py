"""pi^3's own class with random weights against ours, through its checkpoint file and back.

RELIEV3R_PI3 names a checkout of github.com/yyfz/Pi3. The small network is made of upstream's own class and parts with
fewer blocks; the slow test takes it as it is.
"""

import functools

import pytest
import torch
from safetensors.torch import load_file, save_file

from reliev3r.core.types import Views
from reliev3r.model.load import load_model
from reliev3r.model.network import Reliev3R
from reliev3r.model.weights.pi3 import export_pi3

pytestmark = pytest.mark.usefixtures("pi3")


def upstream(monkeypatch, *, small: bool):
    """Random weights, those that start near nothing among them moved so that every tensor matters."""
    from pi3.models import pi3
    from pi3.models.dinov2.models.vision_transformer import DinoVisionTransformer

    # upstream leaves bf16 by autocast("cuda", enabled=False), which on a CPU leaves nothing (its SVD then fails)
    monkeypatch.setattr(torch.amp, "autocast", lambda device_type, **rest: torch.autocast("cpu", **rest))
    torch.manual_seed(0)
    if small:
        encoder = functools.partial(
            DinoVisionTransformer, img_size=70, patch_size=14, embed_dim=384, depth=2, num_heads=6, init_values=1.0,
            block_chunks=0, num_register_tokens=4, interpolate_antialias=True, interpolate_offset=0.0,
        )  # fmt: skip
        monkeypatch.setattr(pi3, "dinov2_vitl14_reg", lambda pretrained: encoder())
        monkeypatch.setattr(pi3, "TransformerDecoder", functools.partial(pi3.TransformerDecoder, depth=1))
        model = pi3.Pi3(decoder_size="small").eval()
        model.decoder = model.decoder[:4]
    else:
        model = pi3.Pi3().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("norm", "bias", "gamma", "token", "pos_embed")):
                spread = 0.2 if "gamma" in name or "norm" in name else 0.05
                parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return model


def images(views: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(1, views, 3, height, width, generator=torch.Generator().manual_seed(views))


def largest_gap(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Norm of the difference over the norm of the whole."""
    return float((ours - theirs).norm() / theirs.norm())


def gaps(ours: Reliev3R, theirs: torch.nn.Module, image: torch.Tensor, *, bf16: bool) -> dict[str, float]:
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        reference = theirs(image)
        prediction = ours(Views(image=image))
    return {
        "points": largest_gap(prediction.points_world, reference["points"]),
        "local_points": largest_gap(prediction.points_cam, reference["local_points"]),
        "depth": largest_gap(prediction.depth, reference["local_points"][..., 2]),
        "camera_poses": largest_gap(prediction.world_from_cam, reference["camera_poses"]),
    }


SHAPES = [(2, 56, 56), (3, 42, 70), (5, 70, 56)]


@pytest.fixture(scope="module")
def saved(pi3, tmp_path_factory):
    """(upstream's network, its checkpoint)."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        model = upstream(monkeypatch, small=True)
        path = tmp_path_factory.mktemp("pi3") / "model.safetensors"
        save_file(model.state_dict(), path)
        yield model, path


@pytest.fixture(scope="module")
def ours(saved):
    return load_model(f"pi3:{saved[1]}")


@pytest.mark.parametrize(("bf16", "bound"), [(False, 1e-4), (True, 2e-2)], ids=["float32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_small_networks_agree(saved, ours, shape, bf16, bound) -> None:
    found = gaps(ours, saved[0], images(*shape), bf16=bf16)
    print(found)
    assert max(found.values()) < bound, found


@pytest.mark.parametrize(
    "name", ["register_token", "encoder.pos_embed", "decoder.0.ls1.gamma", "decoder.3.attn.q_norm.weight"]
)
def test_parity_is_sensitive_to(saved, ours, name) -> None:
    # tensors that start near nothing, or act on what nearly does: were they idle, any mapping would pass
    parameter = ours.get_parameter(name)
    kept = parameter.data.clone()
    parameter.data += 0.5 * torch.randn(kept.shape, generator=torch.Generator().manual_seed(0))
    changed = gaps(ours, saved[0], images(3, 56, 56), bf16=False)
    parameter.data = kept
    assert max(changed.values()) > 1e-3, changed


def test_what_is_exported_loads_strictly_upstream(saved, monkeypatch, tmp_path) -> None:
    theirs, path = saved
    ours = load_model(f"pi3:{path}")
    with torch.no_grad():
        ours.depth_head.proj.weight.mul_(1.5)  # as if adapted
    assert export_pi3(ours, tmp_path / "adapted.safetensors", confidence_of=path) == []
    again = upstream(monkeypatch, small=True)
    again.load_state_dict(load_file(tmp_path / "adapted.safetensors"), strict=True)
    image = images(2, 56, 70)
    assert max(gaps(ours, again, image, bf16=False).values()) < 1e-4
    with torch.no_grad():  # pi^3's own confidence, untouched
        torch.testing.assert_close(again(image)["conf"], theirs(image)["conf"])


@pytest.mark.slow
def test_the_full_network_agrees_and_comes_back(pi3, monkeypatch, tmp_path) -> None:
    theirs = upstream(monkeypatch, small=False)
    path = tmp_path / "model.safetensors"
    save_file(theirs.state_dict(), path)
    assert len(load_file(path)) == 1210
    ours = load_model(f"pi3:{path}")
    for shape in [(2, 112, 112), (3, 70, 112), (5, 84, 56)]:
        for bf16, bound in ((False, 1e-4), (True, 2e-2)):
            found = gaps(ours, theirs, images(*shape), bf16=bf16)
            print(shape, "bf16" if bf16 else "float32", found)
            assert max(found.values()) < bound, (shape, bf16, found)
    export_pi3(ours, path, confidence_of=path)
    theirs.load_state_dict(load_file(path), strict=True)
    assert max(gaps(ours, theirs, images(2, 56, 70), bf16=False).values()) < 1e-4
