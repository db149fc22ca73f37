"""Look-up baselines: scores of tables that are counted from text and labels, without an encoder.

An encoder that scores no better than such a table may have learned nothing more than the table
holds. The baselines of a trial are entries of its metrics, named `baseline/<table>/<metric>`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

_PREFIX = "baseline/"


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """A table that a score is compared with.

    Attributes:
        title: what the table holds, for the report.
        evidence: what a score that is significantly better than the table's shows about the
            encoder; continues the words "that the encoder".
    """

    title: str
    evidence: str


# By name, weakest evidence first.
LOOKUPS = {
    "majority": Lookup(title="the most frequent label", evidence="uses the text"),
    "frequencies": Lookup(title="the frequencies of the labels", evidence="uses the text"),
    "mean": Lookup(title="the mean label", evidence="uses the text"),
    "no_answer": Lookup(title="no answer to any question", evidence="uses the text"),
    "unigram": Lookup(title="the frequency of the token or word", evidence="uses context"),
    "first_token": Lookup(title="the tags of the word's first token", evidence="uses context"),
    "word": Lookup(title="the tags of the word", evidence="uses context"),
    "bag_of_words": Lookup(
        title="the log odds of the sentence's words (naive Bayes)",
        evidence="uses more than the words of a sentence in any order",
    ),
    "bigram": Lookup(
        title="the probability of the token or word between its two neighbors",
        evidence="uses more context than the two neighboring tokens",
    ),
}


def baseline_name(table: str, metric: str) -> str:
    """Return the name of the entry with the score of a table of `LOOKUPS` by a metric."""
    return f"{_PREFIX}{table}/{metric}"


def select_baselines(names: Iterable[str], metric: str) -> dict[str, str]:
    """Return the entries among `names` that are baselines of a metric, by table.

    The order is that of `LOOKUPS`.
    """
    present = set(names)
    entries = {table: baseline_name(table, metric) for table in LOOKUPS}
    return {table: entry for table, entry in entries.items() if entry in present}
