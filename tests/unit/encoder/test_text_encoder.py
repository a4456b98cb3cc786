from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest_words import TEXTS
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from encoder.loading import load_text_encoder
from encoder.model_folder import resolve
from encoder.text_encoder import TextEncoder, pool
from interest.bundle import Pooling
from interest.errors import BadInput, EncoderUnavailable
