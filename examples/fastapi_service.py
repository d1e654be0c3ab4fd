"""A web service that submits tasks and waits for them, without a thread for each request.

Run `uvicorn fastapi_service:app`, then, from another terminal:

    curl -X POST 'localhost:8000/factorials?number=20'
    curl 'localhost:8000/factorials/ID?wait=10'

Needs `pip install fastapi uvicorn`. A task outlives the service: ask for its id after a restart.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException

import holdfast


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    with holdfast.connect() as app.state.hf:
        yield


app = FastAPI(lifespan=connected)


@app.post("/factorials", status_code=202)
async def submit(number: int) -> dict[str, str]:
    future = app.state.hf.submit(math.factorial, number)
    # From here on the task is on disk, whatever becomes of this service.
    await asyncio.to_thread(future.wait_accepted, timeout=10)
    return {"id": future.id}


@app.get("/factorials/{task_id}")
async def result(task_id: str, wait: float = 10) -> dict[str, int]:
    try:
        future = asyncio.wrap_future(app.state.hf.future(task_id))
        # Who gives up waiting must not cancel the task: hence the shield.
        return {"result": await asyncio.wait_for(asyncio.shield(future), wait)}
    except TimeoutError:
        raise HTTPException(504, "still at work; ask again") from None
    except (holdfast.InvalidInputError, holdfast.UnknownTaskError) as error:
        raise HTTPException(404, str(error)) from None
