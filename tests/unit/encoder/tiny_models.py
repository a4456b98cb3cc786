"""Tiny text models with random weights that know a dozen words, saved as transformers saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

hf: Any = transformers  # its constructors are half typed

#: Gives the folder of a tiny model by its kind.
Tiny = Callable[[str], Path]

WORDS = [
    *("red", "blue", "green", "mug", "cup", "shirt", "cotton", "lamp", "query", ":"),
    *("purchase", "view", "return", "search", ".", "in", "a"),
]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]

#: Texts of very different lengths, so that every batch of them pads.
TEXTS = [
    "red mug",
    "cup",
    "blue cotton shirt in a green lamp cup mug red",
    "",
    "green lamp",
    "shirt " * 15,
    "a red red mug in a blue cup",
    "red mug " + "blue cup shirt " * 9,  # longer than the tiny models read
]


def encoder_tokenizer() -> Any:
    """A tokenizer as BERT's: special tokens around the text, and a pad token."""
    raw = _word_level([*SPECIAL, *WORDS])
    raw.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=raw,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def decoder_tokenizer() -> Any:
    """A tokenizer as many decoders have it: no pad token, padding and truncation on the left."""
    raw = _word_level(["[UNK]", *WORDS])
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=raw, unk_token="[UNK]", padding_side="left", truncation_side="left"
    )


def _word_level(words: list[str]) -> Tokenizer:
    raw = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = Whitespace()
    return raw


def _bert() -> Any:
    return hf.BertModel(
        hf.BertConfig(
            vocab_size=len(SPECIAL + WORDS),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=24,
        ),
        add_pooling_layer=False,
    )


def _roberta() -> Any:
    return hf.RobertaModel(
        hf.RobertaConfig(
            vocab_size=len(SPECIAL + WORDS),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=13,
            pad_token_id=0,
        )
    )


def _t5() -> Any:
    return hf.T5Model(
        hf.T5Config(
            vocab_size=len(SPECIAL + WORDS),
            d_model=32,
            d_kv=16,
            d_ff=64,
            num_layers=2,
            num_heads=2,
            pad_token_id=0,
            decoder_start_token_id=0,
        )
    )


def _gpt2() -> Any:
    return hf.GPT2Model(
        hf.GPT2Config(
            vocab_size=1 + len(WORDS),
            n_positions=24,
            n_embd=32,
            n_layer=2,
            n_head=2,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


def _llama() -> Any:
    return hf.LlamaModel(
        hf.LlamaConfig(
            vocab_size=1 + len(WORDS),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            intermediate_size=64,
            max_position_embeddings=24,
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
    )


MODELS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "bert": (_bert, encoder_tokenizer),
    "roberta": (_roberta, encoder_tokenizer),
    "t5": (_t5, encoder_tokenizer),
    "gpt2": (_gpt2, decoder_tokenizer),
    "llama": (_llama, decoder_tokenizer),
}


def save(kind: str, folder: Path) -> None:
    """Build a model of one kind, the same at each call, and save it with its tokenizer."""
    build, tokenizer = MODELS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = build()
        for parameter in model.parameters():
            if parameter.ndim > 1:
                # Far from their small start, so that texts differ clearly.
                torch.nn.init.normal_(parameter, std=0.5)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
