"""Limits on the size of one forward pass without training, where the logits fill the memory."""

# 512 MiB of float32 logits: 1,046 tokens for a vocabulary of 128,256.
LOGITS_PER_PASS = 2**27
# lm-eval scores a batch of answer choices from all its logits at once and copies them: 2 GiB of
# float32, twice.
CHOICE_LOGITS_PER_PASS = 2**29
# Enough to fill a GPU. On a CPU a larger pass no longer fits the cache and takes up to three times
# as long.
TOKENS_PER_PASS = 4096
