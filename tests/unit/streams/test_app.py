"""The queues between Faust's consumer and what reads it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from mode.utils.queues import FlowControlEvent

from streams.app import PresentQueue


async def test_a_chunk_that_waited_through_a_rebalance_is_not_taken_for_the_next() -> None:
    app: Any = SimpleNamespace(consumer_generation_id=1, flow_control=FlowControlEvent())
    queue = PresentQueue(app, 4, clear_on_resume=True)

    def chunk(offset: int) -> Any:
        message = SimpleNamespace(offset=offset, generation_id=app.consumer_generation_id)
        return SimpleNamespace(message=message)

    app.flow_control.resume()
    await queue.put(chunk(100))
    # A rebalance: what is queued goes, what is about to be queued waits.
    app.flow_control.suspend()
    putting = asyncio.create_task(queue.put(chunk(200)))
    await asyncio.sleep(0)
    app.flow_control.clear()
    app.consumer_generation_id = 2
    app.flow_control.resume()
    await asyncio.wait_for(putting, 5)
    # The recovery reads on from where it was, before both.
    await queue.put(chunk(100))
    event = await asyncio.wait_for(queue.get(), 5)
    assert (event.message.offset, event.message.generation_id) == (100, 2)
