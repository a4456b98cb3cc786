"""Checks what the product needs, and says what to do about what is wrong."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import platform
import sys
from collections.abc import Awaitable, Callable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

import msgspec

from interest.bundle import LiveModel
from interest.errors import InterestError
from interest.settings import Settings

_DISTRIBUTION: Final = "interest-updater"
#: Our top-level packages. Their names are generic, so another distribution may have them too.
PACKAGES: Final = ("interest", "streams", "encoder", "store", "interest_api", "interest_cli")
_TIMEOUT_S: Final = 15.0


class Finding(msgspec.Struct, frozen=True):
    """The result of one check, in one line."""

    subject: str
    ok: bool
    text: str


async def diagnose(settings: Settings) -> list[Finding]:
    """Run every check; a failing one does not stop the others."""
    findings = [check_python(), check_packages()]
    for subject, check in (
        ("kafka", check_kafka),
        ("redis", check_redis),
        ("items", check_items),
        ("text model", check_model),
    ):
        findings.append(await _run(subject, check, settings))
    return findings


async def _run(
    subject: str, check: Callable[[Settings], Awaitable[str]], settings: Settings
) -> Finding:
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            return Finding(subject, True, await check(settings))
    except InterestError as error:
        return Finding(subject, False, str(error))
    except TimeoutError:
        return Finding(subject, False, f"no answer in {_TIMEOUT_S:g} s")
    except ImportError as error:
        return Finding(subject, False, f"{error}; install {_DISTRIBUTION} again")


def check_python() -> Finding:
    """Check the interpreter."""
    found = f"{platform.python_implementation()} {platform.python_version()} at {sys.executable}"
    ok = sys.version_info >= (3, 11)
    return Finding("python", ok, found if ok else f"{found}; 3.11 or newer is needed")


def check_packages() -> Finding:
    """Check that our packages are ours: no other distribution or folder stands before them."""
    here = Path(__file__).resolve().parent.parent
    owners = packages_distributions()
    problems: list[str] = []
    for name in PACKAGES:
        others = sorted(set(owners.get(name, [])) - {_DISTRIBUTION})
        if others:
            problems.append(f"{name} is also installed by {', '.join(others)}")
        found = importlib.util.find_spec(name)
        origin = Path(found.origin).resolve().parent if found and found.origin else None
        if origin != here / name:
            problems.append(f"{name} is taken from {origin}, not from {here / name}")
    if problems:
        advice = "install interest-updater in an environment of its own (pipx, uv tool, an image)"
        return Finding("packages", False, f"{'; '.join(problems)}; {advice}")
    return Finding("packages", True, f"from {here}")


async def check_kafka(settings: Settings) -> str:
    """Check that a broker answers and that the topics fit together."""
    from streams.topics import TopicNames, admin_client, partition_counts

    names = TopicNames.of(settings)
    async with admin_client(settings) as admin:
        counts = await partition_counts(admin)
    expected = [getattr(names, field) for field in names.__struct_fields__]
    missing = [name for name in expected if name not in counts]
    partitioned_alike = (names.behaviours, names.routed, names.windows, names.forget)
    together = {counts[n] for n in partitioned_alike if n in counts}
    if len(together) > 1:
        raise InterestError(
            f"{', '.join(partitioned_alike)} have different numbers of "
            f"partitions ({sorted(together)}); a worker will not start on them"
        )
    if missing:
        return (
            f"{settings.kafka_bootstrap} answers; not created yet: {', '.join(missing)} "
            "(`interest topics create`, or the first worker)"
        )
    return f"{settings.kafka_bootstrap} answers; {counts[names.behaviours]} partitions"


async def check_redis(settings: Settings) -> str:
    """Check that Redis answers and takes writes, and which model is live."""
    from interest_cli.wiring import user_vectors

    vectors = user_vectors(settings)
    try:
        await vectors.ping()
        live = await vectors.live_model()
    finally:
        await vectors.close()
    if live is None:
        return "answers and takes writes; no live model yet (the first worker sets it)"
    return f"answers and takes writes; live model {live.model_id}, {live.dim} dimensions"


async def check_items(settings: Settings) -> str:
    """Check the item store that the settings choose."""
    from interest_cli.wiring import item_store, user_vectors

    if not settings.qdrant_url:
        probe = item_store(settings, LiveModel(model_id="doctor", collection="doctor", dim=4))
        await probe.open()
        await probe.close()
        return "engine in each process (INTEREST_QDRANT_URL is empty)"
    vectors = user_vectors(settings)
    try:
        live = await vectors.live_model()
    finally:
        await vectors.close()
    probe = item_store(settings, live or LiveModel(model_id="", collection="doctor", dim=4))
    try:
        await probe.ping()
        if live is None:
            return f"{settings.qdrant_url} answers; no live model yet"
        return f"{settings.qdrant_url} answers; {await probe.count()} items of the live model"
    finally:
        await probe.close()


async def check_model(settings: Settings) -> str:
    """Load the text model and encode a word with it."""
    from interest_cli.bundles import load_bundle

    loaded = await asyncio.to_thread(load_bundle, settings)
    config = loaded.bundle.config
    return (
        f"{config.text_model.reference}, {config.text_model.dim} dimensions, "
        f"{config.text_model.pooling} pooling; {config.user_encoder} encoder, "
        f"{loaded.bundle.dim} dimensions; model id {loaded.bundle.model_id}"
    )
