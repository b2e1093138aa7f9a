"""Statements that are compiled once and handed to real drivers."""

from __future__ import annotations

import pytest
from sqlalchemy import BigInteger, bindparam, cast, literal, select
from sqlalchemy.exc import DBAPIError

from helpers.ledger.database import open_database
from helpers.ledger.statements import Statement, run_on_driver
from helpers.ledger.tables import records_table

pytest_plugins = ["tests.support.databases"]


def test_values_written_into_a_statement(database_url: str) -> None:
    """A statement keeps the values that stand in it, and takes the others anew each time."""
    given = cast(bindparam("given"), BigInteger)
    statement = Statement(select(cast(literal(5), BigInteger), given, given + 1))
    engine = open_database(database_url)
    with engine.connect() as connection:
        for value in (1, 2**40):
            rows = statement.rows(connection, {"given": value, "of no use": 0})
            assert [tuple(row) for row in rows] == [(5, value, value + 1)]
    engine.dispose()


def test_parameters_that_expand() -> None:
    """A list as one parameter is only put into the text by SQLAlchemy's own way."""
    with pytest.raises(TypeError, match="expand"):
        Statement(select(records_table.c.id).where(records_table.c.id.in_(bindparam("ids"))))


def test_error_holds_no_values(database_url: str) -> None:
    """An error is what SQLAlchemy would raise, without the parameters, and the next one runs."""
    engine = open_database(database_url)
    statement = Statement(
        select(records_table.c.id).where(records_table.c.user_email == bindparam("email"))
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        with pytest.raises(DBAPIError) as error:  # there are no tables yet
            statement.rows(connection, {"email": "ann@example.org"})
        assert "usage_limits_records" in str(error.value)
        assert "ann@example.org" not in str(error.value)
        assert not error.value.connection_invalidated
        assert [tuple(row) for row in run_on_driver(connection, "SELECT 1", fetch=True)] == [(1,)]
    engine.dispose()
