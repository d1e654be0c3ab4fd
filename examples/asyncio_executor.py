"""asyncio and Holdfast: tasks are awaited, and the event loop goes on meanwhile.

Run `python asyncio_executor.py`.
"""

import asyncio
import math

import holdfast


async def main() -> None:
    loop = asyncio.get_running_loop()
    with holdfast.connect() as hf:
        # Whatever takes an executor takes this one.
        pool = hf.executor()
        calls = [loop.run_in_executor(pool, math.factorial, number) for number in range(5)]
        print(await asyncio.gather(*calls))

        # A future that there is already can be awaited as well.
        future = hf.submit(math.comb, 5, 2)
        print(future.id, await asyncio.wrap_future(future))


asyncio.run(main())
