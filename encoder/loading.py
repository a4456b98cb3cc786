"""Load a text model with transformers, quietly, and translate what it raises."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import torch
import transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

from encoder.model_folder import declared_max_tokens, declared_pooling, fingerprint, resolve
from encoder.text import PREPARATION
from encoder.text_encoder import TextEncoder
from interest.bundle import Pooling, TextModel
from interest.errors import BadInput, EncoderUnavailable

# Tokenizers without a limit say a number like 10³⁰.
_NO_LIMIT: Final = 1_000_000
_REASON_CHARS: Final = 200
_BEYOND_FLOAT16: Final = ("gemma", "t5", "mt5", "umt5")


def load_text_encoder(
    reference: str = "",
    *,
    pooling: Pooling | Literal["auto"] = "auto",
    instruction: str = "",
    max_tokens: int = 256,
    device: str = "auto",
) -> TextEncoder:
    """Load a model folder or a Hugging Face id, ready to encode.

    Weights are in float16 on CUDA, but for families that exceed its range, and in float32
    elsewhere. Code that a model brings along is never run.

    Args:
        reference: see :func:`encoder.model_folder.resolve`.
        pooling: ``auto`` takes what the folder says in ``1_Pooling/config.json``, else ``last``
            for decoders and ``mean`` for encoders.
        instruction: prefix of every text, joined without a space.
        max_tokens: texts are cut there, or at the model's own limit.
        device: a torch device; ``auto`` is CUDA where there is one, else the CPU.

    Raises:
        EncoderUnavailable: no such model, or it cannot be loaded or run; says what to do.
        BadInput: the instruction leaves no room for a text, or is no valid text itself.
    """
    if not _is_utf8(instruction):
        raise BadInput("INTEREST_TEXT_INSTRUCTION is not UTF-8; set it again")
    target = choose_device(device)
    folder = resolve(reference)
    with _quiet():
        tokenizer, model, dim = _load(folder, target)
    tokenizer.truncation_side = "right"  # the beginning of a text says most; newest come first
    limit = min(max_tokens, _model_limit(folder, tokenizer, model))
    if instruction and len(tokenizer(instruction, verbose=False)["input_ids"]) >= limit:
        raise BadInput(f"INTEREST_TEXT_INSTRUCTION fills all {limit} tokens of a text")
    if pooling == "auto":
        pooling = declared_pooling(folder) or ("last" if _is_decoder(model.config) else "mean")
    described = TextModel(
        reference=reference,
        fingerprint=fingerprint(folder),
        dim=dim,
        pooling=pooling,
        instruction=instruction,
        max_tokens=limit,
        preparation=PREPARATION,
    )
    encoder = TextEncoder(model, tokenizer, described, target)
    encoder.probe()
    encoder.pack()
    return encoder


def choose_device(name: str) -> torch.device:
    """Give the torch device of a setting; ``auto`` is CUDA where there is one, else the CPU.

    Apple's ``mps`` has to be asked for: small models gain little from it.

    Raises:
        EncoderUnavailable: torch has no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except Exception as error:  # RuntimeError, AssertionError, NotImplementedError: by device
        raise EncoderUnavailable(
            f"device {name} cannot be used ({_reason(error)}); set INTEREST_DEVICE to auto or cpu"
        ) from error
    return device


def _load(folder: Path, device: torch.device) -> tuple[Any, Any, int]:
    """Give the tokenizer, the model on its device, and the length of its vectors."""
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model, info = transformers.AutoModel.from_pretrained(
            folder,
            config=config,
            dtype=_dtype(config, device),
            local_files_only=True,
            output_loading_info=True,
        )
        prefix = ""
        if config.is_encoder_decoder:
            model, prefix = model.get_encoder(), "encoder."
        model = model.eval().requires_grad_(False).to(device)
        model.config.use_cache = False  # keys and values of a text that nobody continues
        with torch.inference_mode():
            # Configurations name the length in many ways; the output is what counts.
            hidden = model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device))
        dim = int(hidden.last_hidden_state.shape[-1])
    except Exception as error:  # whatever transformers, tokenizers, safetensors or torch raise
        raise EncoderUnavailable(
            f"text model {folder} cannot be loaded ({_reason(error)}); set INTEREST_TEXT_MODEL to "
            "another model folder or Hugging Face id"
        ) from error
    missing = [
        key for key in info["missing_keys"] if key.startswith(prefix) and "pooler" not in key
    ]
    if missing:
        # transformers fills them with random numbers, another set in every process.
        raise EncoderUnavailable(
            f"text model {folder} lacks {len(missing)} of its weights, such as {missing[0]}; "
            "fetch it again, or set INTEREST_TEXT_MODEL to another"
        )
    return tokenizer, model, dim


def _dtype(config: Any, device: torch.device) -> torch.dtype:
    # Not bfloat16, not even for models saved so: it rounds so coarsely that the batch around a
    # text shows in its vector (MiniLM alone or in a batch: cosine 0.99998, float16 0.9999995).
    if device.type != "cuda" or config.model_type.startswith(_BEYOND_FLOAT16):
        return torch.float32
    return torch.float16


def _is_decoder(config: Any) -> bool:
    """Tell whether tokens see only those before them, so that only the last has seen all."""
    if getattr(config, "is_decoder", False):
        return True
    kind = config.model_type
    return (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    )


def _model_limit(folder: Path, tokenizer: Any, model: Any) -> int:
    """Give the most tokens the model can read, or was trained to read."""
    limits = [_NO_LIMIT, int(tokenizer.model_max_length), declared_max_tokens(folder)]
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:  # XLNet says -1: it has no limit
        for name, module in model.named_modules():
            # RoBERTa and its kin count positions from behind the padding id.
            if name.endswith("position_embeddings") and hasattr(module, "padding_idx"):
                positions -= 0 if module.padding_idx is None else module.padding_idx + 1
        limits.append(positions)
    return min(limit for limit in limits if limit is not None)


def _is_utf8(text: str) -> bool:
    """Tell whether a text holds no lone surrogate, which stands for a broken byte of a variable."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _reason(error: Exception) -> str:
    first = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {first}"[:_REASON_CHARS]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence transformers' progress bars, log lines and warnings, and restore what was set."""
    hf_logging: Any = transformers.logging  # untyped
    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()
