"""Which database to read, and how to read it without changing anything in it."""

from __future__ import annotations

import argparse
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, func, inspect, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from helpers.errors import ConfigurationError, LedgerError
from helpers.ledger.database import SQLITE_BUSY_TIMEOUT_MS, open_database, parse_database_url
from helpers.ledger.tables import MIGRATIONS, migrations_table, records_table
from scripts.limits.console import mask_passwords

URL_OPTION = "--database-url"
URL_EXAMPLES = "sqlite:////path/to/webui.db or postgresql://user:password@host:5432/database"
# Open WebUI's own way to spell a database in parts; all six together win over DATABASE_URL.
URL_PARTS = ("TYPE", "USER", "PASSWORD", "HOST", "PORT", "NAME")

CONTAINER_FILE = Path("/app/backend/data/webui.db")


@dataclass(frozen=True)
class Database:
    """A database that is there, and where its address was given."""

    where: str
    text: str = field(repr=False)
    schema: str | None = None

    @property
    def address(self) -> str:
        """Its URL, the password masked."""
        return mask_passwords(self.text)

    def error(self, given: str, allowed: str) -> ConfigurationError:
        """An error about this database."""
        return ConfigurationError(f"{self.where} {self.address}", given, allowed)

    def url(self) -> URL:
        """Its URL.

        Raises:
            ConfigurationError: It isn't one, or names a file that doesn't exist.
        """
        url = parse_database_url(self.text, self.where)
        if "@" in (url.host or ""):
            raise ConfigurationError(self.where, 'an "@" in the password', 'it written as "%40"')
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
            raise self.error("no such file", "the file that Open WebUI calls webui.db")
        return url

    @contextmanager
    def driver_needed(self) -> Iterator[None]:
        """Turn the lack of a PostgreSQL driver into a sentence."""
        try:
            yield
        except ImportError as error:
            raise self.error(
                f"the Python package {error.name} is missing",
                'an environment with it: pip install "psycopg[binary]"',
            ) from None

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection that sees one moment of the database and can't change anything.

        Raises:
            ConfigurationError: It can't be reached or read.
        """
        url = self.url()
        sqlite = url.get_backend_name() == "sqlite"
        with self.driver_needed():
            engine = read_only_sqlite(url) if sqlite else create_engine(url)
        try:
            with engine.connect().execution_options(
                schema_translate_map={None: self.schema}
            ) as connection:
                if sqlite:
                    connection.exec_driver_sql("BEGIN")
                else:
                    connection.exec_driver_sql(
                        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"
                    )
                yield connection
        except SQLAlchemyError as error:
            reason = database_reason(error)
            allowed = f"a database such as {URL_EXAMPLES}"
            if sqlite and "readonly" in reason:
                allowed = "a user who may write next to the file, where SQLite keeps its locks"
            raise self.error(reason, allowed) from None
        finally:
            engine.dispose()

    @contextmanager
    def writable(self) -> Iterator[Engine]:
        """An engine as the filter itself uses it.

        Raises:
            ConfigurationError: The ledger can't be reached or written.
        """
        self.url()
        with self.driver_needed():
            engine = open_database(self.text, self.where)
        try:
            yield engine
        except LedgerError as error:
            reason = error.__cause__ or error
            raise self.error(database_reason(reason), "a database that can be written") from None
        finally:
            engine.dispose()


def read_only_sqlite(url: URL) -> Engine:
    """An engine on a SQLite file that makes no file, changes no setting and no row."""

    def connect() -> sqlite3.Connection:
        file = Path(url.database or "").absolute().as_uri()
        # Not mode=ro: that leaves the files of its lock behind, which Open WebUI may not own.
        connection = sqlite3.connect(f"{file}?mode=rw", uri=True)
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA busy_timeout = {SQLITE_BUSY_TIMEOUT_MS}")
        return connection

    return create_engine("sqlite://", creator=connect)


def database_reason(error: BaseException) -> str:
    """What a driver said, without the statement that it was said about."""
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(said).strip().splitlines()
    return lines[0] if lines else type(said).__name__


def add_database_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which database."""
    parser.add_argument(
        URL_OPTION,
        metavar="URL",
        help=f"Open WebUI's database: {URL_EXAMPLES}; "
        "by default what its own variables say (DATABASE_URL, else webui.db in DATA_DIR), "
        "else webui.db where its container or its Python package keeps it",
    )
    parser.add_argument(
        "--schema",
        default=os.environ.get("DATABASE_SCHEMA") or None,
        help="PostgreSQL schema of the tables (default: DATABASE_SCHEMA)",
    )


def find_database(arguments: argparse.Namespace) -> Database:
    """The database that the options name, else the one that Open WebUI would use.

    Raises:
        ConfigurationError: Nothing names one, and there is none in the usual places.
    """
    environment = os.environ
    parts = {name: environment.get(f"DATABASE_{name}", "") for name in URL_PARTS}
    if arguments.database_url is not None:
        return Database(URL_OPTION, arguments.database_url, arguments.schema)
    if all(parts.values()):
        text = "{TYPE}://{USER}:{PASSWORD}@{HOST}:{PORT}/{NAME}".format(**parts)
        return Database("DATABASE_TYPE and its five sisters", text, arguments.schema)
    if environment.get("DATABASE_URL"):
        return Database("DATABASE_URL", environment["DATABASE_URL"], arguments.schema)
    if environment.get("DATA_DIR"):
        file = Path(environment["DATA_DIR"]).absolute() / "webui.db"
        return Database("DATA_DIR", f"sqlite:///{file}", arguments.schema)
    files = default_files()
    for where, file in files.items():
        if file.is_file():
            return Database(where, f"sqlite:///{file}", arguments.schema)
    looked = ", ".join(str(file) for file in files.values())
    raise ConfigurationError(
        "database",
        f"neither {URL_OPTION} nor one of Open WebUI's variables DATABASE_URL and DATA_DIR, "
        f"and no file {looked}",
        URL_EXAMPLES,
    )


def default_files() -> dict[str, Path]:
    """Where Open WebUI keeps its database if nothing says otherwise, by what that place is."""
    files = {"Open WebUI's container": CONTAINER_FILE}
    package = find_spec("open_webui")  # its own environment, installed by pip
    for folder in (package and package.submodule_search_locations) or ():
        files["the package open_webui"] = Path(folder) / "data" / "webui.db"
    return files


def has_tables(connection: Connection, *names: str) -> bool:
    """Whether all these tables are there."""
    schema = connection.get_execution_options()["schema_translate_map"][None]
    return set(names) <= set(inspect(connection).get_table_names(schema))


def require_ledger(connection: Connection, database: Database) -> None:
    """See that the ledger's tables are there, as this version knows them.

    Raises:
        ConfigurationError: They aren't.
    """
    if not has_tables(connection, records_table.name, migrations_table.name):
        raise database.error(
            "no ledger in this database",
            "the one that the filter writes to; it makes its tables with the first chat",
        )
    version = connection.scalar(select(func.max(migrations_table.c.number))) or 0
    if version != len(MIGRATIONS):
        newer = version > len(MIGRATIONS)
        raise database.error(
            f"a ledger of version {version}",
            f"version {len(MIGRATIONS)}; "
            + (
                "get the newer tools that came with the filter"
                if newer
                else "the new filter brings it up to date with the next chat"
            ),
        )
