"""What does label smoothing do to what is written, and to how sure the model is of it?

    python examples/experiments/label_smoothing.py

The paper smooths by 0.1 (section 4.1): a tenth of the target's weight goes to other words.
"""

from lab import Variant, experiment

VARIANTS = [
    Variant("none", learning={"smoothing": 0.0}),
    Variant("0.1, as in the paper", learning={"smoothing": 0.1}),
    Variant("0.3", learning={"smoothing": 0.3}),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
