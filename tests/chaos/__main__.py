"""``python -m tests.chaos``: one run, and what came of it in a line."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from tests.chaos.options import Options, parse
from tests.chaos.run import run
from tests.chaos.scripted import CASES
from tests.chaos.services import HarnessFailed


async def _main(options: Options) -> int:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    try:
        return await run(options, folder)
    except HarnessFailed as error:
        print(f"FAILED  {error}\nrepeat with: {options.command()}", flush=True)
        return 1
    finally:
        if options.keep:
            print(f"logs are in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run with the arguments of the command line."""
    # Brokers are killed on purpose; that clients notice is no news.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    options = parse(sys.argv[1:], list(CASES))
    try:
        code = asyncio.run(_main(options))
    except asyncio.CancelledError:
        print("stopped; nothing is left", flush=True)
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
