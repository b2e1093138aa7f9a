"""What is on record: tables, transactions, counters, reservations. The only SQL."""
