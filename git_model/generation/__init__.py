"""From a scene to tokens: logits processors, greedy search, sampling, beam search, scoring."""
