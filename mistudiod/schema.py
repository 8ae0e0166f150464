"""The database's migrations, applied in order by sqlite-utils; never edit one that has been released."""

from __future__ import annotations

import secrets
import sqlite3
import sys

# sqlite-utils imports numpy and pandas when they are there, to know their types. The daemon has no use for either
# and would pay 100 MB and most of its start-up time for them.
_absent = [name for name in ("numpy", "pandas") if name not in sys.modules]
sys.modules.update(dict.fromkeys(_absent))  # type: ignore[arg-type]
try:
    from sqlite_utils import Database, Migrations
finally:
    for _name in _absent:
        del sys.modules[_name]

migrations = Migrations("mistudio")


@migrations()
def m001_jobs_and_artifacts(db: Database) -> None:
    for statement in (
        """create table jobs (
             id integer primary key autoincrement, kind text not null, lane text not null, spec text not null,
             state text not null, priority integer not null default 0, created_at text not null, started_at text,
             ended_at text, progress text, result text, error text, noun text, name text)""",
        "create index jobs_by_state on jobs (state, lane, priority desc, id)",
        """create table dependencies (
             job integer not null references jobs(id) on delete cascade,
             needs integer not null references jobs(id) on delete cascade, primary key (job, needs)) without rowid""",
        """create table attempts (
             job integer not null references jobs(id) on delete cascade, n integer not null, pid integer,
             pid_starttime integer, boot_id text, started_at text not null, ended_at text, exit_code integer,
             reason text, checkpoint integer, primary key (job, n)) without rowid""",
        """create table metrics (
             job integer not null references jobs(id) on delete cascade, step integer not null,
             "values" text not null, primary key (job, step)) without rowid""",
        """create table artifacts (
             id integer primary key autoincrement, noun text not null, name text not null, job integer,
             created_at text not null, info text not null, unique (noun, name))""",
    ):
        db.execute(statement)


@migrations()
def m002_events_tokens_and_keys(db: Database) -> None:
    for statement in (
        "create table events (id integer primary key autoincrement, topic text not null, data text not null)",
        """create table tokens (
             id integer primary key autoincrement, name text not null unique, scope text not null,
             hash text not null unique, created_at text not null, expires_at text, last_used_at text)""",
        """create table keys (
             key text primary key, body_hash text not null, created_at text not null,
             job integer not null references jobs(id) on delete cascade) without rowid""",
    ):
        db.execute(statement)
    # A reader that comes back with an event of another database must not find its number in this one.
    db.execute("insert into sqlite_sequence (name, seq) values ('events', ?)", (secrets.randbelow(2**40),))


@migrations()
def m003_plans_and_measurements(db: Database) -> None:
    for statement in (
        "alter table jobs add column plan text",
        "create table measurements (id integer primary key, key text not null, at text not null, took text not null)",
        "create index measurements_by_key on measurements (key, id)",
    ):
        db.execute(statement)


@migrations()
def m004_grids_of_saes(db: Database) -> None:
    """A job makes several things, each with its own metrics. ``jobs.noun`` and ``jobs.name`` are not used any more."""
    for statement in (
        """create table makes (
             job integer not null references jobs(id) on delete cascade, n integer not null, noun text not null,
             name text not null collate nocase, primary key (job, n)) without rowid""",
        "create index makes_by_name on makes (noun, name)",
        "insert into makes select id, 0, noun, name from jobs where noun is not null",
        # Of a job as a whole ``sae`` is empty.
        """create table metrics_of_saes (
             job integer not null references jobs(id) on delete cascade, step integer not null, sae text not null,
             "values" text not null, primary key (job, step, sae)) without rowid""",
        """insert into metrics_of_saes select metrics.job, step, coalesce(makes.name, ''), "values"
             from metrics left join makes on makes.job = metrics.job and makes.noun = 'sae'""",
        "drop table metrics",
        "alter table metrics_of_saes rename to metrics",
        """create table live (
             job integer not null references jobs(id) on delete cascade, sae text not null, step integer not null,
             features text not null, primary key (job, sae)) without rowid""",
        "alter table jobs add column finalize integer not null default 0",
    ):
        db.execute(statement)


@migrations()
def m005_labels_of_features(db: Database) -> None:
    """What features are called and what that is worth; what a person has marked. Kept here alone: no folder has it."""
    for statement in (
        # ``current``: the one of a feature that is shown. ``decided``: the order in which a person has accepted or
        # rejected those of a feature. ``score``: the best evidence of what it is worth.
        """create table labels (
             id integer primary key autoincrement, sae text not null, feature integer not null, text text not null,
             folded text not null, explanation text, confidence real, provider text not null, model text,
             template text, template_sha256 text, extraction text, job integer, evidence text, prompt_tokens integer,
             answer_tokens integer, created_at text not null, status text not null, decided integer not null default 0,
             current integer not null default 0, score real)""",
        "create index labels_by_feature on labels (sae, feature, id)",
        "create unique index labels_current on labels (sae, feature) where current",
        "create index labels_by_text on labels (sae, folded, feature) where current",
        "create index labels_by_score on labels (sae, score, feature) where current and score is not null",
        "create index labels_shown on labels (sae, provider, score, feature, status) where current",
        # The current ones. A row's number is (number of the SAE << 32) + feature: a search of one SAE reads no other's,
        # and its answer needs no look at the labels themselves.
        """create virtual table labels_text using fts5 (
             text, explanation, prefix = '1 2 3', tokenize = "unicode61 remove_diacritics 2")""",
        "create table labelled_saes (id integer primary key autoincrement, sae text not null unique)",
        """create table label_failures (
             sae text not null, feature integer not null, job integer, reason text not null, at text not null,
             primary key (sae, feature)) without rowid""",
        """create table scores (
             id integer primary key autoincrement, label integer not null references labels(id) on delete cascade,
             method text not null, judge text, balanced_accuracy real, low real, high real, auroc real, auroc_low real,
             auroc_high real, tp integer not null, fp integer not null, tn integer not null, fn integer not null,
             failed integer not null, examples integer not null, extraction text, job integer,
             created_at text not null)""",
        "create index scores_by_label on scores (label, method, id)",
        """create table marks (
             sae text not null, feature integer not null, starred integer not null default 0,
             note text, primary key (sae, feature)) without rowid""",
        "create index marks_starred on marks (sae, feature) where starred",
        """create table listed (
             sae text not null, list text not null, feature integer not null, primary key (sae, list, feature))
             without rowid""",
        "create index listed_by_feature on listed (sae, feature)",
    ):
        db.execute(statement)


@migrations()
def m006_leases_and_steering(db: Database) -> None:
    """Who has the GPU; texts that were steered, kept here alone as labels are; what is remembered for steering."""
    for statement in (
        # A job, or a session with a model, has a lane from taken_at to released_at; by the index nobody else does.
        """create table leases (
             id integer primary key autoincrement, lane text not null, job integer, model text, pid integer,
             pid_starttime integer, boot_id text, taken_at text not null, released_at text, reason text)""",
        "create unique index leases_held on leases (lane) where released_at is null",
        # A job that was paused for a session goes on when there is none.
        "alter table jobs add column yielded integer not null default 0",
        """create table steerings (
             id integer primary key autoincrement, created_at text not null, job integer unique, model text not null,
             sae text not null, text text not null, starred integer not null default 0, note text, spec text not null,
             result text not null)""",
        "create index steerings_by_sae on steerings (sae, id)",
        """create table profiles (
             name text primary key, model text not null, created_at text not null, about text not null)
             without rowid""",
        """create table ranges (
             sae text not null, feature integer not null, sae_sha256 text not null, created_at text not null,
             found text not null, primary key (sae, feature)) without rowid""",
    ):
        db.execute(statement)


def known() -> set[str]:
    return {migration.name for migration in migrations._migrations}


def applied(connection: sqlite3.Connection) -> set[str]:
    """Names of the migrations that a database has had; empty for a new one."""
    return {migration.name for migration in migrations.applied(_wrap(connection))}


def migrate(connection: sqlite3.Connection) -> None:
    """All of them or, whatever comes between, none: an older version can go on with what it wrote."""
    database = _wrap(connection)
    with database.atomic():
        migrations.apply(database)


def _wrap(connection: sqlite3.Connection) -> Database:
    return Database(connection, execute_plugins=False)
