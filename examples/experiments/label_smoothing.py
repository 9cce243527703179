"""What does label smoothing do to the generated texts, and to the model's confidence?

    python examples/experiments/label_smoothing.py

The paper smooths by 0.1 (section 4.1): a tenth of the target distribution goes to other tokens.
"""

from lab import Variant, experiment

VARIANTS = [
    Variant("none", learning={"label_smoothing": 0.0}),
    Variant("0.1, as in the paper", learning={"label_smoothing": 0.1}),
    Variant("0.3", learning={"label_smoothing": 0.3}),
]
main = experiment(__file__, VARIANTS)

if __name__ == "__main__":
    main()
