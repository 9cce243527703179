"""How many captions of held-out worlds are exactly right, by greedy decoding.

python benchmarks/demo_accuracy.py [--model demo] [--worlds 1000]
"""

import time

import click

from git_model.captioner import Captioner
from git_model.train import exact_match


@click.command()
@click.option("--model", default="demo", show_default=True, help="demo, or a folder.")
@click.option("--worlds", default=1000, show_default=True, type=click.IntRange(min=1))
def main(model: str, worlds: int) -> None:
    """Print the share of right captions."""
    start = time.perf_counter()
    share = exact_match(Captioner.from_pretrained(model), worlds)
    seconds = time.perf_counter() - start
    print(f"{share:.1%} of {worlds} held-out worlds captioned exactly right ({seconds:.0f} s)")


if __name__ == "__main__":
    main()
