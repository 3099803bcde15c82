"""How much a forward pass may hold at once: logits, not rows, fill the memory when nothing is trained."""

LOGITS_PER_PASS = 2**27  # 512 MiB of float32: of a vocabulary of 128,256 words, 1,046 tokens
# A batch of choices is scored from all its logits at once, which lm-eval copies: 2 GiB of float32 and as much again.
CHOICE_LOGITS_PER_PASS = 2**29
TOKENS_PER_PASS = 4096  # fills a GPU; on a CPU more at once falls out of the cache and takes up to three times as long
