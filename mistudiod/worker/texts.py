"""Where text comes from: the built-in corpus, a file, all files of a folder, or a dataset of the Hub."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from random import Random

from mistudiod.demo import corpus
from mistudiod.specs import AddDataset, PreviewDataset
from mistudiod.worker.arrow_formats import open_arrow, open_parquet
from mistudiod.worker.line_formats import open_csv, open_json, open_jsonl
from mistudiod.worker.link import Link, Refused
from mistudiod.worker.mixed import mixed
from mistudiod.worker.source_files import SourceFile, fault, format_of, is_there, local_files
from mistudiod.worker.tables import Table
from mistudiod.worker.text_formats import PIECE_CHARS, Row, document_rows
from mistudiod.worker.uploaded import is_upload, place

BUILTIN = "builtin:python"
_COLUMNS = ("text", "name", "held_out", "continues")
_TABLES: dict[str | None, Callable[[SourceFile], Table]] = {
    ".jsonl": open_jsonl,
    ".json": open_json,
    ".csv": open_csv,
    ".parquet": open_parquet,
    ".arrow": open_arrow,
}
_HUB = re.compile(r"(hf://(?:datasets/)?|(?:https?://(?:huggingface|hf)\.co/)?datasets/)?(\w[\w.-]*/\w[\w.-]*)/?")
_REPACKED = 1.5  # times the bytes of a packed source: it is packed again, and less hard


@dataclass(frozen=True)
class Found:
    """The files of a source. Of ``far`` ones only the first is looked at before it is their turn.

    ``said`` is what dataset.json tells of a dataset of the Hub: revision, licence, config and split. ``choices`` are
    the configs and splits that there are. ``documents`` is None when nobody says how many there are.
    """

    files: list[SourceFile]
    far: bool = False
    documents: int | None = None
    said: dict[str, object] = field(default_factory=dict)
    choices: dict[str, list[str]] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Source:
    """Text that has been looked at, not read yet.

    ``columns`` are those that ``rows`` give a meaning: text, and perhaps name, held_out and continues.
    ``stored_bytes`` and ``documents`` are estimates where only reading would tell; ``documents`` may be None.
    ``text_column`` is None when the files are documents.
    """

    columns: list[str]
    text_column: str | None
    total_bytes: int
    stored_bytes: int
    documents: int | None
    rows: Iterator[Row]
    said: dict[str, object]


def find(spec: AddDataset | PreviewDataset, link: Link, or_first: bool = False) -> Found:
    """Raises Refused. ``or_first``: of splits among which none is usual, take the first."""
    id = hub_id(spec.source)
    if id is None:
        refuse_choices(spec)
        return Found(local_files(place(spec.source, link)))
    from mistudiod.worker import hub_dataset  # takes seconds, which other sources need not wait for

    found = hub_dataset.find(id, spec.config, spec.split, link, or_first)
    said = {"revision": found.revision, "licence": found.licence, "config": found.config, "split": found.split}
    return Found(found.files, True, found.documents, said, {"configs": found.configs, "splits": found.splits})


def hub_id(source: str) -> str | None:
    """owner/name, when the source is the id or address of a dataset of the Hub.

    A path that exists is none, but what begins with a scheme is never taken for a path: the daemon says so of ids of
    people who may not read this machine's files.
    """
    found = _HUB.fullmatch(source)
    if found is None or is_upload(source):
        return None
    if "://" in source:
        return found[2]
    return None if is_there(source) or (found[1] is None and format_of(source)) else found[2]


def refuse_choices(spec: AddDataset | PreviewDataset) -> None:
    """Raises Refused for what can only be chosen on the Hub."""
    for name in ("config", "split"):
        if getattr(spec, name) is not None:
            raise Refused(f"{spec.source} is no dataset of the Hub and has no {name}s: leave {name} out", name)


def open_source(spec: AddDataset, link: Link) -> Source:
    """Look at every file that is near, so that most of what can be wrong is found before anything is written.

    Raises Refused, here and while ``rows`` are read.
    """
    random = None if spec.shuffle_seed is None else Random(spec.shuffle_seed)
    if spec.source.startswith("builtin:"):
        source = builtin(spec)
    else:
        found = find(spec, link)
        if random:
            random.shuffle(found.files)
        source = _looked_at(found, spec.text_column, random)
    if source.text_column is None and spec.text_column is not None:
        raise Refused(f"the files of {spec.source} have no columns: leave text_column out", "text_column")
    return replace(source, rows=mixed(source.rows, random)) if random else source


def builtin(spec: AddDataset | PreviewDataset) -> Source:
    """Raises Refused for any other than builtin:python."""
    if spec.source != BUILTIN:
        raise fault(f"there is no built-in dataset {spec.source!r}: the only one is {BUILTIN!r}")
    refuse_choices(spec)
    rows = [Row(d.text, d.name, d.held_out, False, len(d.text.encode())) for d in corpus.documents()]
    size = int(sum(row.source_bytes for row in rows))
    return Source(["text", "name", "held_out"], None, size, size, len(rows), iter(rows), {})


def open_table(file: SourceFile) -> Table | None:
    """None for a file that is one document. Raises Refused."""
    opener = _TABLES.get(file.format)
    return opener(file) if opener else None


def _looked_at(found: Found, asked: str | None, random: Random | None) -> Source:
    near = found.files[:1] if found.far else found.files
    tables = {file.name: open_table(file) for file in near}
    known = [table for table in tables.values() if table and table.columns]
    text_column = known[0].text_column(asked) if known else None
    columns = {"text"}
    for table in known:
        table.require(str(text_column))
        columns |= table.meaning(str(text_column))
    if None in tables.values():
        columns.add("name")
    sizes = [_sizes(file, tables[file.name], text_column) for file in near]
    if found.far or any(file.packed for file in near) or any(unpacked > PIECE_CHARS for _, unpacked in sizes):
        columns.add("continues")  # only a source with room for a long text needs the column that marks pieces
    more = found.total_bytes / (sum(file.size for file in near) or 1)  # the rest is taken to be like these
    counts = [1 if table is None else table.documents for table in tables.values()]
    documents = None if None in counts else round(sum(count or 0 for count in counts) * more)
    return Source(
        [column for column in _COLUMNS if column in columns],
        text_column,
        found.total_bytes,
        int(sum(stored for stored, _ in sizes) * more),
        documents if found.documents is None else found.documents,
        _rows(found.files, tables, text_column or asked, random),
        found.said,
    )


def _sizes(file: SourceFile, table: Table | None, text_column: str | None) -> tuple[float, int]:
    """What is stored of the file, and its text unpacked, in bytes."""
    stored, unpacked = (file.size, file.size) if table is None else table.bytes_of(text_column or "")
    return stored * (_REPACKED if file.packed else 1), unpacked


def _rows(
    files: list[SourceFile], tables: dict[str, Table | None], text_column: str | None, random: Random | None
) -> Iterator[Row]:
    for file in files:
        table = tables[file.name] if file.name in tables else open_table(file)
        if table is None:
            yield from document_rows(file)
        elif table.columns:
            yield from table.rows(text_column or table.text_column(None), random)
