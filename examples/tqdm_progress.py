"""A progress bar of tqdm over tasks, which moves as they are done.

Needs `pip install tqdm`. Run `python tqdm_progress.py`.
"""

from tqdm import tqdm

import holdfast


def collatz(number: int) -> int:
    """Count the steps to 1."""
    steps = 0
    while number != 1:
        number = 3 * number + 1 if number % 2 else number // 2
        steps += 1
    return steps


with holdfast.connect() as hf:
    futures = [hf.submit(collatz, number) for number in range(1, 201)]
    done = tqdm(hf.as_completed(futures), total=len(futures), unit="task")
    print("longest:", max(future.result() for future in done))
