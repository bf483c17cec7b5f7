"""Tiny models with random weights in the exact layouts of Wan2.1 and of the released Astra, for the tests."""

import re
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

ASTRA_CHECKPOINT = Path(__file__).parent / "data" / "astra_reference" / "astra_tiny.ckpt"
NUM_HEADS = 4
"""Of the small checkpoint; weights do not tell it."""
TEXT_DIM = 40
VAE_FILE, TEXT_FILE, TOKENIZER = "Wan2.1_VAE.pth", "models_t5_umt5-xxl-enc-bf16.pth", "google/umt5-xxl"

VAE_NAMES = (
    (r"(encoder|decoder)\.conv_in\.", r"\1.conv1."),
    (r"(encoder|decoder)\.mid_block\.resnets\.(\d)\.", lambda m: f"{m[1]}.middle.{2 * int(m[2])}."),
    (r"(encoder|decoder)\.mid_block\.attentions\.0\.", r"\1.middle.1."),
    (r"(encoder|decoder)\.norm_out\.", r"\1.head.0."),
    (r"(encoder|decoder)\.conv_out\.", r"\1.head.2."),
    (r"^quant_conv\.", "conv1."),
    (r"^post_quant_conv\.", "conv2."),
    (r"encoder\.down_blocks\.", "encoder.downsamples."),
    (r"decoder\.up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"decoder.upsamples.{4 * int(m[1]) + int(m[2])}."),
    (r"decoder\.up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"decoder.upsamples.{4 * int(m[1]) + 3}."),
    (r"\.norm1\.", ".residual.0."),
    (r"(?<=\d)\.conv1\.", ".residual.2."),
    (r"\.norm2\.", ".residual.3."),
    (r"\.conv2\.", ".residual.6."),
    (r"\.conv_shortcut\.", ".shortcut."),
)
TEXT_NAMES = (
    (r"^shared\.", "token_embedding."),
    (r"^encoder\.final_layer_norm\.", "norm."),
    (r"^encoder\.block\.(\d+)\.", r"blocks.\1."),
    (r"layer\.0\.layer_norm\.", "norm1."),
    (r"layer\.1\.layer_norm\.", "norm2."),
    (r"layer\.0\.SelfAttention\.relative_attention_bias\.", "pos_embedding.embedding."),
    (r"layer\.0\.SelfAttention\.", "attn."),
    (r"layer\.1\.DenseReluDense\.wi_0\.", "ffn.gate.0."),
    (r"layer\.1\.DenseReluDense\.wi_1\.", "ffn.fc1."),
    (r"layer\.1\.DenseReluDense\.wo\.", "ffn.fc2."),
)


def rename(name: str, table) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name


def vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    return AutoencoderKLWan(base_dim=8).eval().requires_grad_(False)


def text_encoder() -> UMT5EncoderModel:
    torch.manual_seed(1)
    config = UMT5Config(vocab_size=64, d_model=TEXT_DIM, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
    return UMT5EncoderModel(config).eval().requires_grad_(False)


def tokenizer() -> T5Tokenizer:
    letters = [("▁" + c, -2.0) for c in "abcdefghijklmnopqrstuvw"] + [(c, -3.0) for c in "abcdefghijklmnopqrstuvwxyz"]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), *letters], extra_ids=0)


def write_original(folder: Path) -> Path:
    """A Wan2.1 folder with the original files."""
    folder.mkdir()
    torch.save({rename(name, VAE_NAMES): tensor for name, tensor in vae().state_dict().items()}, folder / VAE_FILE)
    text = text_encoder().state_dict()
    del text["encoder.embed_tokens.weight"]
    torch.save({rename(name, TEXT_NAMES): tensor for name, tensor in text.items()}, folder / TEXT_FILE)
    tokenizer().save_pretrained(folder / TOKENIZER)
    return folder


def write_diffusers(folder: Path) -> Path:
    """A Wan2.1 folder like the -Diffusers repository."""
    vae().save_pretrained(folder / "vae")
    text_encoder().save_pretrained(folder / "text_encoder", max_shard_size="20KB")
    tokenizer().save_pretrained(folder / "tokenizer")
    (folder / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    return folder
