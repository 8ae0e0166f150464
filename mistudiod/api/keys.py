"""What handlers find in the application."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from mistudiod.abilities import Abilities
from mistudiod.api.slowed import Slowed
from mistudiod.backups import Backups
from mistudiod.bus import Bus
from mistudiod.cleaning import Cleaning
from mistudiod.database import Database
from mistudiod.giving import Giving
from mistudiod.index import Index
from mistudiod.kept_settings import KeptSettings
from mistudiod.labels import Labels
from mistudiod.leases import Leases
from mistudiod.library import Library
from mistudiod.listen import Reach
from mistudiod.meters import Meters
from mistudiod.monitor import Monitor
from mistudiod.open_stores import OpenStores
from mistudiod.pairing import Pairings
from mistudiod.paths import Paths
from mistudiod.planning import Planning
from mistudiod.profiles import Profiles
from mistudiod.ranges import Ranges
from mistudiod.records import Records
from mistudiod.scheduler import Scheduler
from mistudiod.secret import Secrets
from mistudiod.session import Sessions
from mistudiod.settings import Settings
from mistudiod.steerings import Steerings
from mistudiod.store import Jobs
from mistudiod.templates import Templates
from mistudiod.tokens import Tokens
from mistudiod.trash import Trash
from mistudiod.uploads import Uploads

SETTINGS = web.AppKey("settings", Settings)  # as the daemon was started
KEPT = web.AppKey("kept", KeptSettings)  # as they are now
PATHS = web.AppKey("paths", Paths)
BUS = web.AppKey("bus", Bus)
JOBS = web.AppKey("jobs", Jobs)
INDEX = web.AppKey("index", Index)
LIBRARY = web.AppKey("library", Library)
TRASH = web.AppKey("trash", Trash)
BACKUPS = web.AppKey("backups", Backups)
CLEANING = web.AppKey("cleaning", Cleaning)
LEASES = web.AppKey("leases", Leases)
SESSION = web.AppKey("session", Sessions)
SCHEDULER = web.AppKey("scheduler", Scheduler)
GIVING = web.AppKey("giving", Giving)
TEMPLATES = web.AppKey("templates", Templates)
LABELS = web.AppKey("labels", Labels)
STEERINGS = web.AppKey("steerings", Steerings)
PROFILES = web.AppKey("profiles", Profiles)
RANGES = web.AppKey("ranges", Ranges)
MONITOR = web.AppKey("monitor", Monitor)
METERS = web.AppKey("meters", Meters)
DATABASE = web.AppKey("database", Database)
RECORDS = web.AppKey("records", Records)
SECRETS = web.AppKey("secrets", Secrets)
UPLOADS = web.AppKey("uploads", Uploads)
TOKENS = web.AppKey("tokens", Tokens)
REACH = web.AppKey("reach", Reach)  # as it is once the daemon listens
PAIRINGS = web.AppKey("pairings", Pairings)
SLOWED = web.AppKey("slowed", Slowed)
ABILITIES = web.AppKey("abilities", Abilities)
PLANNING = web.AppKey("planning", Planning)
STORES = web.AppKey("stores", OpenStores)
COMMAND = web.AppKey("command", Sequence[str])
