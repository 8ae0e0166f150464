"""What a person can see of a tokenization: counts of its documents and tokens, lengths, frequencies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mistudiod.engine.documents import REASONS, Document
from mistudiod.engine.tokens import Vocabulary

SHOWN_TOKENS = 20  # most and least frequent ones
_TEXT_CHARS = 40
_GATHER_TOKENS = 1 << 17


class Statistics:
    """``documents`` are those kept, ``tokens`` those of their text alone: no BOS, no separator, no padding."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self.documents = self.tokens = self.text_bytes = 0
        self.dropped = dict.fromkeys(REASONS, 0)
        self.frequency = np.zeros(vocabulary.size, dtype=np.int64)
        self._whole_tokens = 0  # of the kept documents, also of the one that the cap has cut
        self._lengths = [0] * 64  # documents of 2**i to 2**(i+1)-1 tokens
        self._gathered: list[NDArray[np.uint32]] = []
        self._gathered_tokens = 0
        self._marked = self.frequency

    @property
    def documents_read(self) -> int:
        return self.documents + sum(self.dropped.values())

    def add(self, tokens: NDArray[np.uint32]) -> None:
        """Count some of a document's tokens."""
        self._gathered.append(tokens)
        self._gathered_tokens += len(tokens)
        if self._gathered_tokens >= _GATHER_TOKENS:
            self._count()

    def _count(self) -> None:
        if self._gathered:
            self.frequency += np.bincount(np.concatenate(self._gathered), minlength=self.vocabulary.size)
            self._gathered, self._gathered_tokens = [], 0

    def mark(self) -> None:
        self._count()
        self._marked = self.frequency.copy()

    def go_back(self) -> None:
        """Forget what was added since ``mark``."""
        self.frequency, self._gathered, self._gathered_tokens = self._marked, [], 0

    def keep(self, document: Document, tokens: int) -> None:
        """``tokens`` of it were taken, all but for the last document before the cap."""
        self.documents += 1
        self.tokens += tokens
        self.text_bytes += document.text_bytes
        self._whole_tokens += document.tokens
        self._lengths[document.tokens.bit_length() - 1] += 1

    def facts(self) -> dict[str, object]:
        self._count()
        covered = float((self.frequency > 0).mean())
        unknown = self.vocabulary.unknown
        last = max((i for i, count in enumerate(self._lengths) if count), default=-1)
        return {
            "tokens": self.tokens,
            "documents": self.documents,
            "documents_read": self.documents_read,
            "dropped": {reason: count for reason, count in self.dropped.items() if count},
            "bytes_per_token": self.text_bytes / self._whole_tokens,
            "mean_document_tokens": self._whole_tokens / self.documents,
            "length_histogram": [
                {"from_tokens": 1 << i, "documents": count} for i, count in enumerate(self._lengths[: last + 1])
            ],
            "vocabulary_covered": covered,
            "unused_share": 1 - covered,
            "unknown_share": None if unknown is None else int(self.frequency[unknown]) / self.tokens,
            "most_frequent": self._shown(np.argsort(-self.frequency, kind="stable")),
            "least_frequent": self._shown(np.argsort(self.frequency, kind="stable")),
        }

    def _shown(self, order: NDArray[np.int64]) -> list[dict[str, object]]:
        """The first tokens of ``order`` that occur at all."""
        ids = order[self.frequency[order] > 0][:SHOWN_TOKENS].tolist()
        return [{"id": i, "text": self.vocabulary.text(i)[:_TEXT_CHARS], "count": int(self.frequency[i])} for i in ids]
