"""A progress bar of rich over tasks, which moves as they are done.

Run `python rich_progress.py`.
"""

from rich.progress import track

import holdfast


def is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


with holdfast.connect() as hf:
    futures = [hf.submit(is_prime, number) for number in range(200)]
    done = track(hf.as_completed(futures), "Testing", total=len(futures))
    print(sum(future.result() for future in done), "primes")
