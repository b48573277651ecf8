"""Words that a newcomer cannot know, on the first page of app and report; those of the README mean the same there."""

from gpt3core.words import Symbols

WORDS = {
    word: Symbols(meaning)
    for word, meaning in (
        ("N, D, C", "parameters, training tokens and training FLOPs of a run; which of them count is said beside them"),
        ("IsoFLOP", "runs of different sizes at one budget of compute; the size with the lowest loss is best there"),
        ("N*, D*", "that size, and the tokens it trains on; N* ~ C^a says how the best size grows with compute"),
        ("nats", "natural logarithms: a loss of 3 nats is a perplexity of e^3 = 20"),
        ("95% of the mean law", "the doubt about a law's parameters; that of a new run is what a run should fall into"),
        ("ill-determined", "the runs do not pin a law's parameters down: predict by it, do not quote them"),
        (
            "Huber",
            "a loss function of fits that squares small residuals and counts large ones linearly: one bad run does not "
            "rule the law",
        ),
        (
            "backtest",
            "the law fitted below some compute, asked for the runs above it: what an extrapolation has been worth so "
            "far",
        ),
        ("ensemble", "many defensible fits, each weighted by its backtests; a prediction is their mean"),
        ("K", "examples in the prompt before a question: zero-shot is K = 0, few-shot more than one"),
        ("MFU", "model-FLOPs utilisation: the share of its devices' peak that a training reaches"),
    )
}
