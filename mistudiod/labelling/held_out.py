"""Texts to score a label by, out of windows that no label is made from (``pages.is_held_out``). Pure."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import Any

from mistudiod.pages import Pages, is_held_out

AROUND = 16  # tokens of a text on either side of the one that it is about
FEWEST = 5  # texts in which a feature fires, and as many in which not; fewer say nothing
_NEIGHBOURS, _TOP_TOKENS = 4, 3  # of either kind, and of the feature, that hard texts are looked for by
_ROUNDS = 20  # places of each neighbour and of each top token that are looked at
_TRIES = 40  # times as many random places are looked at as texts are wanted
_INDEXED = 1 << 18  # tokens in which those are found where a top token does not fire: some 10 MB


class TooFew(ValueError):
    """A feature cannot be scored: why, in one sentence."""


@dataclass(frozen=True)
class Text:
    """A piece of a held-out window. ``place``: the token that it is about, counted in ``ids``: where the feature is
    strongest, or where it could have fired and did not. ``fires``: its activations by place, nothing when it is silent.
    ``why``: fires; near, neighbour or token (hard ones: a near miss, where a neighbouring feature fires, where one of
    the feature's top tokens stands); random.
    """

    row: int
    window: int
    ids: tuple[int, ...]
    place: int
    fires: Mapping[int, float]
    why: str


@dataclass(frozen=True)
class Drawn:
    """Texts of one feature, each of another window: as many in which it fires as in which not, and ``more`` of the
    first kind, at most half as many, for wrong marks.
    """

    fires: list[Text]
    silent: list[Text]
    more: list[Text]


class HeldOut:
    """Draws texts of features of one extraction, the same for the same seed. ``special``: ids that are no text.

    Holds a bit of every window and, once a hard text was looked for by a top token, where the tokens of some windows
    are; everything else is read a window at a time.
    """

    def __init__(self, pages: Pages, seed: int, special: Collection[int] = ()) -> None:
        self.pages, self._seed, self._special = pages, seed, frozenset(special)
        self._context: int = pages.manifest["context"]
        self._held = bytearray(is_held_out(pages.window(row)) for row in range(pages.manifest["rows"]))
        self._rows = array("I", (row for row, held in enumerate(self._held) if held))
        self._index: dict[int, array[int]] | None = None

    def draw(self, feature: int, most: int) -> Drawn:
        """At most ``most`` texts of either kind. Raises TooFew."""
        page = self.pages.page(feature)
        if page["dead"]:
            raise TooFew("it never fires in the text that was read: extract over more tokens")
        random = Random(f"{self._seed}:{feature}")
        if not self.pages.manifest["postings"]:
            return self._from_page(page, most, random)
        fired = self._fired(feature)
        fires, more = self._firing(fired, most, random)
        silent = _Silent(self, fired, {one.row for one in fires + more}, most, random).draw(page)
        if len(fires) < FEWEST:
            raise TooFew(f"it fires in fewer than {FEWEST} held-out windows: extract over more tokens")
        if len(silent) < FEWEST:
            raise TooFew(f"it fires nearly everywhere: there are not {FEWEST} held-out texts without it")
        n = min(len(fires), len(silent))
        return Drawn(fires[:n], silent[:n], (fires[n:] + more)[: n // 2])

    def _fired(self, feature: int) -> dict[int, dict[int, float]]:
        """Activations by position, of each held-out row in which the feature fires."""
        found: defaultdict[int, dict[int, float]] = defaultdict(dict)
        held, context = self._held, self._context
        ordinals, values = self.pages.postings(feature)
        for ordinal, value in zip(ordinals.tolist(), values.tolist(), strict=True):
            row = ordinal // context
            if held[row]:
                found[row][ordinal - row * context] = value
        return dict(found)

    def _firing(self, fired: dict[int, dict[int, float]], most: int, random: Random) -> tuple[list[Text], list[Text]]:
        """Rows of all strengths: ordered by their strongest token and cut into ``most`` parts, one of each."""
        rows = [row for _, row in sorted((max(values.values()), row) for row, values in fired.items())]
        n = min(most, len(rows))
        cuts = [len(rows) * part // n for part in range(n + 1)] if n else []
        chosen = [rows[random.randrange(low, high)] for low, high in pairwise(cuts)]
        random.shuffle(chosen)
        taken = set(chosen)
        left = [row for row in rows if row not in taken]
        more = random.sample(left, min(len(left), most // 2))
        texts = [
            self.text(row, max(fired[row], key=fired[row].__getitem__), fired[row], "fires") for row in chosen + more
        ]
        return texts[:n], texts[n:]

    def text(self, row: int, position: int, fired: Mapping[int, float], why: str) -> Text:
        """What is shown around a position of a row, without tokens that are no text."""
        ids = self.pages.ids(row)
        shown: Sequence[int] = range(max(0, position - AROUND), min(len(ids), position + AROUND + 1))
        if not self._special.isdisjoint(ids[shown[0] : shown[-1] + 1]):
            shown = [at for at in shown if ids[at] not in self._special or at == position]
        fires = {shown.index(at): value for at, value in fired.items() if at in shown}
        return Text(row, self.pages.window(row), tuple([ids[at] for at in shown]), shown.index(position), fires, why)

    def is_text(self, row: int, position: int) -> bool:
        return not self._special or self.pages.ids(row)[position] not in self._special

    def is_held(self, row: int) -> bool:
        return bool(self._held[row])

    @property
    def rows(self) -> Sequence[int]:
        return self._rows

    @property
    def context(self) -> int:
        return self._context

    def places_of(self, token: int) -> Sequence[int]:
        """Where a token stands in held-out rows, or in a part of them when they are many: row * context + position."""
        if self._index is None:
            some = min(len(self._rows), -(-_INDEXED // self._context))
            self._index = {}
            for row in Random(self._seed).sample(self._rows, some):
                for position, id in enumerate(self.pages.ids(row)):
                    self._index.setdefault(id, array("I")).append(row * self._context + position)
        return self._index.get(token, array("I"))

    def _from_page(self, page: Mapping[str, Any], most: int, random: Random) -> Drawn:
        """From nothing but the page's held-out examples, of which those that are near misses are silent."""
        kinds: tuple[dict[int, Text], dict[int, Text]] = ({}, {})
        for one in page["examples"]:
            if one["held_out"]:
                kinds[one["kind"] == "near"].setdefault(one["row"], _of_example(one))
        fires, silent = ([found[row] for row in sorted(found)] for found in kinds)
        silent = [one for one in silent if one.row not in kinds[0]]
        n = min(most, len(fires), len(silent))
        if n < FEWEST:
            raise TooFew(
                f"of its examples not {FEWEST} in which it fires and {FEWEST} in which not are held out: "
                "extract with --postings"
            )
        random.shuffle(fires)
        random.shuffle(silent)
        return Drawn(fires[:n], silent[:n], fires[n:][: n // 2])


class _Silent:
    """The texts without a feature: half hard, half random, as far as there are any."""

    def __init__(
        self, held: HeldOut, fired: dict[int, dict[int, float]], taken: set[int], most: int, random: Random
    ) -> None:
        self._held, self._fired, self._taken, self._most, self._random = held, fired, taken, most, random
        # Where it fires in nearly every window, texts between its firings must do.
        self._whole_windows = len(held.rows) - len(fired) >= 2 * most
        self._found: dict[int, Text] = {}  # by row

    def draw(self, page: Mapping[str, Any]) -> list[Text]:
        """At most as many as are wanted, mixed."""
        sources = [self._near(page), self._neighbours(page), self._tokens(page)]
        hard = self._most // 2
        while sources and len(self._found) < hard:
            source = sources.pop(0)
            for why, row, position in source:
                if self._take(row, position, why):
                    sources.append(source)  # its turn comes again
                    break
        for _ in range(_TRIES * self._most):
            if len(self._found) >= self._most or not self._held.rows:
                break
            self._take(self._random.choice(self._held.rows), self._random.randrange(self._held.context), "random")
        texts = list(self._found.values())
        self._random.shuffle(texts)
        return texts

    def _take(self, row: int, position: int, why: str) -> bool:
        if row in self._found or row in self._taken or not self._held.is_held(row) or self._fires_near(row, position):
            return False
        if not self._held.is_text(row, position):
            return False
        self._found[row] = self._held.text(row, position, {}, why)
        return True

    def _fires_near(self, row: int, position: int) -> bool:
        fired = self._fired.get(row)
        if fired is None:
            return False
        return self._whole_windows or any(abs(at - position) <= AROUND for at in fired)

    def _near(self, page: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
        for one in page["examples"]:
            if one["kind"] == "near" and one["held_out"]:
                yield "near", one["row"], one["first"] + one["peak"]

    def _neighbours(self, page: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
        both = page["neighbours"]
        nearest = [one["index"] for kind in ("decoder", "cofiring") for one in both[kind][:_NEIGHBOURS]]
        found = [self._held.pages.postings(index)[0] for index in dict.fromkeys(nearest)]
        return self._places("neighbour", found)

    def _tokens(self, page: Mapping[str, Any]) -> Iterator[tuple[str, int, int]]:
        return self._places("token", [self._held.places_of(one["id"]) for one in page["tokens"][:_TOP_TOKENS]])

    def _places(self, why: str, found: Sequence[Sequence[int]]) -> Iterator[tuple[str, int, int]]:
        """Places of each in turn, at random."""
        full = [ordinals for ordinals in found if len(ordinals)]
        for _ in range(_ROUNDS if full else 0):
            for ordinals in full:
                yield why, *divmod(ordinals[self._random.randrange(len(ordinals))], self._held.context)


def _of_example(one: Mapping[str, Any]) -> Text:
    low = max(0, one["peak"] - AROUND)
    part = slice(low, one["peak"] + AROUND + 1)
    fires = {place: value for place, value in enumerate(one["activations"][part]) if value > 0}
    why = "near" if one["kind"] == "near" else "fires"
    return Text(one["row"], one["window"], tuple(one["ids"][part]), one["peak"] - low, fires, why)
