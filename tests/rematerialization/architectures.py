"""Small versions of transformers architectures: a configuration, a model class and inputs each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
         "num_attention_heads": 4}  # fmt: skip
TOKENS = {"vocab_size": 64, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
GROUPED = {**SIZES, **TOKENS, "num_key_value_heads": 2}


@dataclass(frozen=True)
class Architecture:
    """How to make a small model of an architecture.

    Attributes:
        config: Name of the configuration's class.
        model: Name of the model's class.
        options: Of the configuration.
        inputs: Makes the inputs of a training step.
    """

    config: str
    model: str
    options: dict[str, Any]
    inputs: Callable[[], dict[str, torch.Tensor]]


def text() -> dict[str, torch.Tensor]:
    tokens = torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(0))
    return {"input_ids": tokens, "labels": tokens}


def images() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"pixel_values": torch.randn(2, 3, 32, 32, generator=generator),
            "labels": torch.tensor([0, 1])}  # fmt: skip


def sounds() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"input_values": torch.randn(2, 1600, generator=generator),
            "labels": torch.tensor([0, 1])}  # fmt: skip


def causal(name: str, prefix: str = "", **options: Any) -> Architecture:
    config = prefix or name
    return Architecture(f"{config}Config", f"{name}ForCausalLM", {**GROUPED, **options}, text)


def masked(name: str, **options: Any) -> Architecture:
    return Architecture(f"{name}Config", f"{name}ForMaskedLM", {**SIZES, **TOKENS, **options}, text)


def seen(name: str, **options: Any) -> Architecture:
    sizes = {**SIZES, "image_size": 32, "patch_size": 8, **options}
    return Architecture(f"{name}Config", f"{name}ForImageClassification", sizes, images)


SHORT = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 32, **TOKENS}
SEQ = {"d_model": 32, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4,
       "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64,
       "max_position_embeddings": 32, "decoder_start_token_id": 0, "forced_eos_token_id": None,
       **TOKENS}  # fmt: skip
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_heads": 4,
      "decoder_start_token_id": 0, **TOKENS}  # fmt: skip
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

ARCHITECTURES: dict[str, Architecture] = {
    **{name: causal(name) for name in (
        "Llama", "Mistral", "Qwen2", "Qwen3", "Gemma", "Phi3", "Granite", "StableLm", "Olmo",
        "Olmo2", "Starcoder2", "Cohere", "Glm", "SmolLM3", "Ernie4_5",
    )},
    "Gemma2": causal("Gemma2", head_dim=8),
    "Helium": causal("Helium", head_dim=8),
    "Gemma3": causal("Gemma3", "Gemma3Text", head_dim=8),
    "Phi": causal("Phi"),
    "GPTNeoX": Architecture("GPTNeoXConfig", "GPTNeoXForCausalLM", {**SIZES, **TOKENS}, text),
    "OPT": Architecture("OPTConfig", "OPTForCausalLM",
                        {**SIZES, **TOKENS, "ffn_dim": 64, "word_embed_proj_dim": 32,
                         "max_position_embeddings": 32}, text),
    "Mixtral": causal("Mixtral", "", **EXPERTS, output_router_logits=True),
    "GPT2": Architecture("GPT2Config", "GPT2LMHeadModel", SHORT, text),
    "GPTJ": Architecture("GPTJConfig", "GPTJForCausalLM", {**SHORT, "rotary_dim": 4}, text),
    "Bloom": Architecture("BloomConfig", "BloomForCausalLM",
                          {"hidden_size": 32, "n_layer": 4, "n_head": 4, **TOKENS}, text),
    "GPTNeo": Architecture("GPTNeoConfig", "GPTNeoForCausalLM",
                           {"hidden_size": 32, "num_layers": 4, "num_heads": 4,
                            "attention_types": [[["global", "local"], 2]],
                            "max_position_embeddings": 32, **TOKENS}, text),
    "Falcon": Architecture("FalconConfig", "FalconForCausalLM", {**SIZES, **TOKENS}, text),
    **{name: masked(name) for name in (
        "Bert", "Roberta", "Electra", "DebertaV2", "ModernBert", "RoFormer", "MPNet",
    )},
    "Albert": masked("Albert", embedding_size=16),
    "DistilBert": Architecture("DistilBertConfig", "DistilBertForMaskedLM",
                               {"dim": 32, "n_layers": 4, "n_heads": 4, "hidden_dim": 64, **TOKENS},
                               text),
    **{name: seen(name) for name in ("ViT", "DeiT", "Beit", "Dinov2")},
    "Swin": Architecture("SwinConfig", "SwinForImageClassification",
                         {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [2, 2],
                          "num_heads": [2, 4], "window_size": 2}, images),
    "ConvNext": Architecture("ConvNextConfig", "ConvNextForImageClassification",
                             {"hidden_sizes": [8, 16], "depths": [2, 2], "num_stages": 2}, images),
    "ResNet": Architecture("ResNetConfig", "ResNetForImageClassification",
                           {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [2, 2]},
                           images),
    "T5": Architecture("T5Config", "T5ForConditionalGeneration", T5, text),
    "Bart": Architecture("BartConfig", "BartForConditionalGeneration", SEQ, text),
    "Pegasus": Architecture("PegasusConfig", "PegasusForConditionalGeneration", SEQ, text),
    "Wav2Vec2": Architecture("Wav2Vec2Config", "Wav2Vec2ForSequenceClassification",
                             {**SIZES, "conv_dim": [8, 8], "conv_stride": [4, 4],
                              "conv_kernel": [8, 8], "num_feat_extract_layers": 2,
                              "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
                              "mask_time_prob": 0.0}, sounds),
}  # fmt: skip
