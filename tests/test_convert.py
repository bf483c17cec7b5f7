"""Conversion of the released layouts: both of Wan2.1's, every key accounted for, nothing written that does not fit."""

import json

import pytest
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file, save_file
from transformers import UMT5EncoderModel

from astra_gym.cli import main
from astra_gym.convert import ConvertArgs, convert
from astra_gym.models.transformer import AstraTransformer
from tests import tiny_astra


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return tiny_astra.write_original(tmp_path_factory.mktemp("wan") / "original")


@pytest.fixture(scope="module")
def diffusers_layout(tmp_path_factory):
    return tiny_astra.write_diffusers(tmp_path_factory.mktemp("wan") / "diffusers")


def arguments(wan, output, astra=tiny_astra.ASTRA_CHECKPOINT, **others) -> ConvertArgs:
    return ConvertArgs(astra=astra, wan=wan, output=output, num_heads=tiny_astra.NUM_HEADS, **others)


def refuses(wan, output, *words, astra=tiny_astra.ASTRA_CHECKPOINT, **others) -> None:
    """Conversion ends in one error that names ``words``, and leaves no folder behind."""
    with pytest.raises(ValueError) as error:
        convert(arguments(wan, output, astra, **others))
    assert all(word in str(error.value) for word in words), error.value
    assert not output.exists()


@pytest.mark.parametrize("layout", ["original", "diffusers_layout"])
def test_both_layouts_of_wan(layout, request, tmp_path):
    wan = request.getfixturevalue(layout)
    assert str(tmp_path / "astra") in convert(arguments(wan, tmp_path / "astra"))
    folder = tmp_path / "astra"
    index = json.loads((folder / "model_index.json").read_text())
    assert {name for name in index if not name.startswith("_")} == {
        path.name for path in folder.iterdir() if path.is_dir()
    }

    vae = AutoencoderKLWan.from_pretrained(folder / "vae").state_dict()
    assert all(torch.equal(tensor, vae[name]) for name, tensor in tiny_astra.vae().state_dict().items())
    ids = torch.arange(2, 12)[None]
    text_encoder, loading = UMT5EncoderModel.from_pretrained(folder / "text_encoder", output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    with torch.no_grad():
        assert torch.equal(text_encoder(ids)[0], tiny_astra.text_encoder()(ids)[0])


def test_round_trip_in_shards(original, tmp_path):
    convert(arguments(original, tmp_path / "one"))
    convert(arguments(original, tmp_path / "many", max_shard_mb=1))
    assert len(list((tmp_path / "many" / "transformer").glob("*.safetensors"))) > 2
    one, many = (
        AstraTransformer.from_pretrained(tmp_path / name / "transformer").state_dict() for name in ("one", "many")
    )
    assert all(torch.equal(tensor, many[name]) for name, tensor in one.items())
    convert(arguments(original, tmp_path / "many", dtype="bfloat16"))  # leaves no shard of those before
    assert len(list((tmp_path / "many" / "transformer").glob("*.safetensors*"))) == 1
    theirs = torch.load(tiny_astra.ASTRA_CHECKPOINT, weights_only=True)
    dropped = sum(tensor.numel() for name, tensor in theirs.items() if "cam_encoder" in name)
    assert sum(tensor.numel() for tensor in one.values()) == sum(t.numel() for t in theirs.values()) - dropped


def test_dtype(original, tmp_path):
    convert(arguments(original, tmp_path / "astra", dtype="bfloat16"))
    weights = load_file(tmp_path / "astra" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}


def test_every_key_is_accounted_for(original, tmp_path):
    weights = torch.load(tiny_astra.ASTRA_CHECKPOINT, weights_only=True)
    weights["blocks.0.surprise"] = torch.zeros(1)
    del weights["blocks.1.norm3.bias"]
    weights["head.head.bias"] = torch.zeros(3)
    torch.save(weights, tmp_path / "bad.ckpt")
    words = ("unknown blocks.0.surprise", "missing blocks.1.norm2.bias", "misshapen head.head.bias [(3,)] for (64,)")
    refuses(original, tmp_path / "astra", *words, astra=tmp_path / "bad.ckpt")


def test_wrong_checkpoints(original, tmp_path):
    output = tmp_path / "astra"
    refuses(original, output, "no file", astra=tmp_path / "none.ckpt")
    truncated = tmp_path / "truncated.ckpt"
    truncated.write_bytes(tiny_astra.ASTRA_CHECKPOINT.read_bytes()[:-100_000])
    refuses(original, output, "truncated.ckpt", "truncated", astra=truncated)
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "nested.ckpt")
    refuses(original, output, "plain state dict", astra=tmp_path / "nested.ckpt")
    refuses(original, output, "no Astra checkpoint", "patch_embedding.weight", astra=original / tiny_astra.VAE_FILE)
    with pytest.raises(ValueError, match="num_heads: got None, allowed is a divisor of the width, 96"):
        convert(ConvertArgs(tiny_astra.ASTRA_CHECKPOINT, original, output))


def test_unpickles_nothing_but_tensors(original, tmp_path):
    torch.save({"a": tiny_astra.rename}, tmp_path / "code.ckpt")
    refuses(original, tmp_path / "astra", "code.ckpt", "no torch state dict", astra=tmp_path / "code.ckpt")


def test_wrong_wan(original, diffusers_layout, tmp_path):
    output = tmp_path / "astra"
    refuses(tmp_path, output, "no Wan2.1 folder")
    wan22 = tmp_path / "wan22"
    wan22.mkdir()
    (wan22 / tiny_astra.TEXT_FILE).symlink_to(original / tiny_astra.TEXT_FILE)
    weights = torch.load(original / tiny_astra.VAE_FILE, weights_only=True)
    torch.save({**weights, "conv2.weight": torch.zeros(48, 48, 1, 1, 1)}, wan22 / tiny_astra.VAE_FILE)
    refuses(wan22, output, "not Wan2.1's autoencoder")
    (wan22 / tiny_astra.VAE_FILE).unlink()
    (wan22 / tiny_astra.VAE_FILE).symlink_to(original / tiny_astra.VAE_FILE)
    refuses(wan22, output, "tokenizer")
    wide = tmp_path / "wide.ckpt"
    astra = torch.load(tiny_astra.ASTRA_CHECKPOINT, weights_only=True)
    torch.save({**astra, "text_embedding.0.weight": torch.zeros(96, 80)}, wide)
    refuses(diffusers_layout, output, "40 wide", "expects 80", astra=wide)


def test_truncated_safetensors(diffusers_layout, tmp_path):
    wan = tiny_astra.write_diffusers(tmp_path / "wan")
    path = wan / "vae" / "diffusion_pytorch_model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1000])
    refuses(wan, tmp_path / "astra", "truncated or corrupt")
    tensors = load_file(diffusers_layout / "vae" / "diffusion_pytorch_model.safetensors")
    tensors.pop("post_quant_conv.bias")
    save_file(tensors, path)
    refuses(wan, tmp_path / "astra", "missing post_quant_conv.bias")


def test_command(original, tmp_path, capsys):
    parts = ["--astra", str(tiny_astra.ASTRA_CHECKPOINT), "--wan", str(original), "--output", str(tmp_path / "astra")]
    assert main(["convert", *parts, "--num-heads", "4"]) == 0
    assert "astra-gym infer" in capsys.readouterr().out
    assert main(["convert", *parts]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
