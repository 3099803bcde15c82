"""Whether a score is better when it is higher, by a list of known names; what a loss was measured on."""

import re

# Names that as a whole have a direction which their words do not show.
KNOWN_NAMES = {"likelihood_diff": False, "pct_stereotype": False, "bits_per_byte": False}
LOWER_IS_BETTER = {
    *("loss", "perplexity", "ppl", "nll", "bpb", "byte", "wer", "cer", "ter", "error", "errors", "err"),
    *("brier", "mse", "rmse", "mae", "ece", "toxicity", "hallucination", "hallucinations"),
    *("forgetting", "forgotten", "violation", "violations", "harmfulness", "fid"),
}
HIGHER_IS_BETTER = {
    *("acc", "accuracy", "accuracies", "f1", "em", "exact", "match", "bleu", "sacrebleu", "chrf", "meteor"),
    *("rouge", "rouge1", "rouge2", "rougel", "rougelsum", "bertscore", "pass", "win", "winrate", "mc1", "mc2"),
    *("mcc", "precision", "recall", "auc", "auroc", "auprc", "mrr", "ndcg", "kappa", "correct", "solved"),
    *("pearson", "pearsonr", "spearman", "spearmanr", "iou", "success"),
    *("bleurt", "comet", "truthfulness", "faithfulness", "helpfulness", "groundedness", "coherence", "fluency", "elo"),
}
# Benchmarks whose usual score is a share of right answers: columns of tables are called after them.
BENCHMARKS = {
    *("arc", "hellaswag", "mmlu", "gsm8k", "gsm", "humaneval", "mbpp", "winogrande", "piqa", "boolq", "openbookqa"),
    *("truthfulqa", "triviaqa", "ifeval", "bbh", "gpqa", "musr", "squad", "copa", "race", "sciq", "rte", "wic", "wsc"),
    *("sst2", "mnli", "cola", "mrpc", "qnli", "qqp", "aime", "alpacaeval", "commonsenseqa", "medqa", "medmcqa"),
    *("pubmedqa", "agieval", "ceval", "cmmlu", "blimp", "svamp", "mathqa", "logiqa", "xcopa", "xnli", "swag"),
}
# Words that turn a direction around, or make a score one of a difference, whose direction nobody can read off.
TURNED = {
    *("non", "no", "not", "free", "without", "anti", "resistance", "reduction", "avoidance", "drop", "delta"),
    *("change", "diff", "difference", "gap", "inverse", "negative", "neg", "decrease", "increase", "variance", "std"),
    *("gain", "improvement", "lift"),
}
LOSS_WORDS = {"loss", "nll"}
TRAINING_WORDS = {"train", "training"}
HELD_OUT_WORDS = {"eval", "evaluation", "valid", "validation", "val", "dev", "test", "heldout", "held", "predict"}
# Scores that are a share of right items, whose number of right items follows from them.
SHARE_WORDS = {"acc", "accuracy", "exact", "em", "correct", "solved", "success", "pass"}


def name_words(name: str) -> set[str]:
    """The words in a name of a column or metric: eval/word_ppl → eval, word, ppl."""
    return set(re.split(r"[^a-z0-9]+", name.lower())) - {""}


def known_direction(name: str) -> bool | None:
    """Whether higher is better by the name of a metric or column; None if it is not known."""
    if name.lower() in KNOWN_NAMES:
        return KNOWN_NAMES[name.lower()]
    words = name_words(name)
    lower = bool(words & LOWER_IS_BETTER)
    higher = bool(words & HIGHER_IS_BETTER)
    if words & TURNED or (lower and higher):
        return None
    if not lower and not higher:
        # A benchmark's name says nothing beside a metric's: gsm8k_toxicity is found above.
        return True if words & BENCHMARKS and not words & LOSS_WORDS else None
    return higher


def loss_of_unknown_rows(name: str) -> bool:
    """Whether a name is that of a loss without a word on whether its rows were trained on."""
    words = name_words(name)
    return bool(words & LOSS_WORDS) and not words & (HELD_OUT_WORDS | TRAINING_WORDS)


def is_share(name: str) -> bool:
    """Whether a score of this name counts right items."""
    words = name_words(name)
    return bool(words & (SHARE_WORDS | BENCHMARKS)) and not words & {"f1", "bleu", "rouge"}
