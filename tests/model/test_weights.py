"""pi^3's layout in and out, without upstream's code (tests/upstream/test_pi3_parity.py has that)."""

import dataclasses
import pickle

import pytest
import torch
from safetensors.torch import load_file, save_file

from reliev3r.cli import main
from reliev3r.core.errors import UserError
from reliev3r.core.types import Views
from reliev3r.model.load import initial_network, load_model, load_network, weights_hash
from reliev3r.model.network import NetworkConfig, Reliev3R
from reliev3r.model.predict import matrices_in_bf16
from reliev3r.model.weights.pi3 import export_pi3, pi3_name

LIKE_PI3 = NetworkConfig(
    dim=32, heads=2, encoder_depth=1, decoder_depth=4, patch_size=4, encoder_grid=4, encoder_registers=3,
    decoder_registers=2, head_dim=64, head_heads=4, head_depth=2, camera_dim=16, mlp_ratio=2.0, shape="point",
)  # fmt: skip


def network(**changes) -> Reliev3R:
    """Random weights, none of which is idle."""
    torch.manual_seed(0)
    model = Reliev3R(dataclasses.replace(LIKE_PI3, **changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def views(count: int = 3) -> Views:
    return Views(image=torch.rand(1, count, 3, 12, 20, generator=torch.Generator().manual_seed(1)))


@pytest.fixture
def exported(tmp_path):
    """(network, its file in pi^3's layout)."""
    model = network()
    assert export_pi3(model, tmp_path / "model.safetensors") == []
    return model, tmp_path / "model.safetensors"


def test_sizes_are_read_off_the_tensors_and_all_but_confidence_is_the_same(exported) -> None:
    model, path = exported
    loaded = load_model(f"pi3:{path}")
    assert loaded.config == dataclasses.replace(LIKE_PI3, layer_scale=loaded.config.layer_scale, image_size=518)
    assert not loaded.training
    with torch.no_grad():
        ours, theirs = model(views()), loaded(views())
    for name in ("depth", "rays", "world_from_cam"):
        torch.testing.assert_close(getattr(theirs, name), getattr(ours, name), atol=0, rtol=0)
    assert (theirs.conf == 1).all()
    assert not (ours.conf == 1).all()
    assert torch.equal(loaded.conf_decoder.projects.weight, model.conf_decoder.projects.weight)


def test_a_loaded_network_trains_and_is_saved_as_one_of_ours(exported, tmp_path) -> None:
    loaded = load_network(f"pi3:{exported[1]}")
    prediction = loaded.train()(views())
    (
        prediction.depth.mean() + prediction.rays.mean() + prediction.conf.mean() + prediction.world_from_cam.sum()
    ).backward()
    without = {name for name, parameter in loaded.named_parameters() if parameter.grad is None}
    assert without == set()
    loaded.eval().save_pretrained(tmp_path / "ours")
    again = load_network(tmp_path / "ours")
    with torch.no_grad():
        assert torch.equal(again(views()).depth, loaded(views()).depth)


def test_known_intrinsics_replace_the_point_heads_rays(exported) -> None:
    loaded = load_network(f"pi3:{exported[1]}")
    K = torch.tensor([[20.0, 0, 10], [0, 20, 6], [0, 0, 1]]).expand(1, 3, 3, 3)
    with torch.no_grad():
        known = loaded(dataclasses.replace(views(), K=K))
        torch.testing.assert_close(known.K, K.contiguous(), atol=1e-3, rtol=1e-4)
        assert torch.equal(known.depth, loaded(views()).depth)


@pytest.mark.parametrize("wrapped", ["bare", "model", "state_dict", "module."])
def test_pytorch_files_load_too(exported, tmp_path, wrapped) -> None:
    tensors = load_file(exported[1])
    content = {f"module.{k}": v for k, v in tensors.items()} if wrapped == "module." else tensors
    content = {wrapped: content} if wrapped in ("model", "state_dict") else content
    folder = tmp_path / "folder"
    folder.mkdir()
    torch.save(content, folder / "weights.pt")
    for where in (folder / "weights.pt", folder):
        loaded = load_network(f"pi3:{where}")
        assert torch.equal(loaded.decoder[0].attn.qkv.weight, tensors["decoder.0.attn.qkv.weight"])


def test_sharded_and_half_precision_files_load_as_float32(exported, tmp_path) -> None:
    tensors = {name: value.bfloat16() for name, value in load_file(exported[1]).items()}
    folder = tmp_path / "shards"
    folder.mkdir()
    names = sorted(tensors)
    for index, part in enumerate((names[::2], names[1::2])):
        save_file({name: tensors[name] for name in part}, folder / f"model-{index}.safetensors")
    where = ",".join(f'"{name}": "model-{index % 2}.safetensors"' for index, name in enumerate(names))
    (folder / "model.safetensors.index.json").write_text(f'{{"weight_map": {{{where}}}}}')
    loaded = load_network(f"pi3:{folder}")
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.depth_head.proj.weight, tensors["point_head.proj.weight"].float())
    assert weights_hash(f"pi3:{folder}") != weights_hash(f"pi3:{exported[1]}")


def test_what_is_missing_surplus_or_misshapen_is_named(exported) -> None:
    path = exported[1]
    tensors = load_file(path)
    del tensors["point_head.proj.bias"], tensors["camera_head.fc_t.weight"]
    tensors["global_point_head.proj.weight"] = torch.zeros(2)
    tensors["decoder.1.ls1.gamma"] = torch.zeros(31)
    save_file(tensors, path)
    with pytest.raises(UserError) as caught:
        load_network(f"pi3:{path}")
    message = str(caught.value)
    assert "\n" not in message
    for told in (
        str(path), "2 missing: point_head.proj.bias, camera_head.fc_t.weight",
        "1 surplus: global_point_head.proj.weight", "1 of another shape: decoder.1.ls1.gamma 31 instead of 32",
    ):  # fmt: skip
        assert told in message


def test_many_names_are_counted(exported) -> None:
    tensors = load_file(exported[1])
    save_file({name: value for name, value in tensors.items() if not name.startswith("camera_head")}, exported[1])
    with pytest.raises(UserError, match=r"20 missing: camera_head.\S+, camera_head.\S+, camera_head.\S+, \.\.\."):
        load_network(f"pi3:{exported[1]}")


@pytest.mark.parametrize("name", ["register_token", "decoder.0.attn.q_norm.weight", "point_decoder.projects.weight"])
def test_a_tensor_that_gives_a_size_is_named_if_it_is_missing(exported, name) -> None:
    tensors = load_file(exported[1])
    del tensors[name]
    save_file(tensors, exported[1])
    with pytest.raises(UserError, match=f"{name} is missing"):
        load_network(f"pi3:{exported[1]}")


def test_unreadable_files_are_told_and_no_pickle_is_run(tmp_path) -> None:
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"register_token": Harm()}))
    torch.save({"register_token": Harm()}, tmp_path / "zip.pt")
    (tmp_path / "bad.safetensors").write_bytes(b"no tensors")
    torch.save({"epoch": 3}, tmp_path / "other.pt")
    for name in ("bad.pt", "zip.pt", "bad.safetensors", "other.pt"):
        with pytest.raises(UserError, match="not readable as weights") as caught:
            load_network(f"pi3:{tmp_path / name}")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("where", "told"),
    [("/no/such/file.pt", "not found"), ("someone/no-such-model", "hf download someone/no-such-model")],
)
def test_what_is_not_there_is_told_without_a_network(where, told) -> None:
    with pytest.raises(UserError, match=told):
        load_network(f"pi3:{where}")


def test_a_folder_of_several_files_asks_which_one(exported, tmp_path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.pt", "b.pt"):
        torch.save({}, folder / name)
    with pytest.raises(UserError, match="holds 2 files of weights"):
        load_network(f"pi3:{folder}")


def test_without_a_confidence_branch_the_point_decoder_is_copied(exported) -> None:
    tensors = load_file(exported[1])
    save_file({name: value for name, value in tensors.items() if not name.startswith("conf_")}, exported[1])
    loaded = load_network(f"pi3:{exported[1]}")
    points, confidence = loaded.depth_decoder.state_dict(), loaded.conf_decoder.state_dict()
    assert all(torch.equal(points[name], confidence[name]) for name in points)
    assert points["projects.weight"].data_ptr() != confidence["projects.weight"].data_ptr()
    with torch.no_grad():
        assert (loaded(views()).conf == 1).all()


def test_export_brings_the_first_confidence_back(exported, tmp_path) -> None:
    _, path = exported
    loaded = load_network(f"pi3:{path}")
    with torch.no_grad():
        for parameter in loaded.parameters():
            parameter.add_(1.0)
    before = path.read_bytes()
    export_pi3(loaded, tmp_path / "adapted.safetensors", confidence_of=path)
    assert path.read_bytes() == before
    original, adapted = load_file(path), load_file(tmp_path / "adapted.safetensors")
    assert original.keys() == adapted.keys()
    same = {name for name in original if torch.equal(original[name], adapted[name])}
    assert same == {name for name in original if name.startswith("conf_")} | {"image_mean", "image_std"}
    export_pi3(loaded, path)  # over the file that it was loaded from
    assert torch.equal(load_file(path)["conf_head.proj.bias"], torch.ones(16))


def test_what_pi3_has_no_place_for_is_left_out_and_told(tmp_path) -> None:
    left_out = export_pi3(network(fov="shared"), tmp_path / "out.safetensors")
    assert left_out == ["camera_head.fc_fov.bias", "camera_head.fc_fov.weight"]
    assert not any("fov" in name for name in load_file(tmp_path / "out.safetensors"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"shape": "depth"}, "a depth head"),
        ({"guided": True}, "guided pixel heads"),
        ({"camera_contrast": True, "guided": True}, "guided pixel heads and camera_contrast"),
        ({"head_heads": 2}, "not as wide"),
    ],
)
def test_networks_that_pi3_cannot_compute_are_refused(tmp_path, changes, told) -> None:
    with pytest.raises(UserError, match=told):
        export_pi3(network(**changes), tmp_path / "out.safetensors")
    assert not list(tmp_path.iterdir())


def test_names_are_pi3s() -> None:
    assert pi3_name("depth_decoder.blocks.0.attn.qkv.weight") == "point_decoder.blocks.0.attn.qkv.weight"
    assert pi3_name("depth_head.proj.bias") == "point_head.proj.bias"
    assert pi3_name("register_token") == "register_token"


def test_the_verb_exports_and_keeps_what_is_there(exported, tmp_path, capsys) -> None:
    network(fov="shared").save_pretrained(tmp_path / "checkpoint")
    out = tmp_path / "pi3.safetensors"
    assert main(["export-weights", "--model", str(tmp_path / "checkpoint"), "--out", str(out)]) == 0
    assert "no place for camera_head.fc_fov.bias" in capsys.readouterr().out
    assert load_file(out).keys() == load_file(exported[1]).keys()
    assert main(["export-weights", "--model", str(tmp_path / "checkpoint"), "--out", str(out)]) == 2
    assert main(["export-weights", "--model", f"pi3:{exported[1]}", "--out", str(out), "--overwrite"]) == 0
    assert main(["export-weights", "--model", f"pi3:{exported[1]}", "--out", str(tmp_path / "pi3.pt")]) == 2


def test_a_training_starts_from_it(exported) -> None:
    spec = f"pi3:{exported[1]}"
    assert initial_network(spec, dataclasses.replace(LIKE_PI3, dim=64)).config.dim == 32
    assert initial_network("random", LIKE_PI3).config == LIKE_PI3


@pytest.mark.parametrize("extras", [{}, {"camera_contrast": True, "fov": "shared"}])
def test_heads_a_few_views_at_a_time_give_the_same(extras) -> None:
    model = network(**extras)
    with torch.no_grad():
        few, all_at_once = (predict_at_once(model, count) for count in (2, 100))
    with_gradient = model(views(5))
    for name in ("depth", "rays", "conf", "world_from_cam"):
        torch.testing.assert_close(getattr(few, name), getattr(all_at_once, name), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(getattr(with_gradient, name), getattr(all_at_once, name), atol=1e-6, rtol=1e-5)


def predict_at_once(model, count):
    model.views_at_once = count
    return model(views(5))


def test_matrices_in_bf16_change_nothing_under_autocast() -> None:
    model = network()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        before = model(views())
        size = sum(p.numel() * p.element_size() for p in model.parameters())
        after = matrices_in_bf16(model)(views())
    for name in ("depth", "rays", "conf", "world_from_cam"):
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    assert sum(p.numel() * p.element_size() for p in model.parameters()) < 0.65 * size
