"""A bank in a SQLite database, for `cargo xtask soak database`. `load FILE` moves money until it is killed and says the number of
each transaction, and the time in ms, once it is committed; `check FILE` says as JSON whether a copy of it is a state that the database was in."""

import json
import os
import random
import sqlite3
import sys
import time

ACCOUNTS = 1000
# What each transaction carries besides, so that the database grows and pages are written all over it.
NOTE_BYTES = 2000


def opened(path):
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    return db


def load(path):
    db = opened(path)
    db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL)")
    db.execute(
        "CREATE TABLE entry (n INTEGER PRIMARY KEY, debit INTEGER, credit INTEGER, amount INTEGER, note BLOB)"
    )
    db.execute("BEGIN")
    db.executemany("INSERT INTO account VALUES (?, 0)", ((number,) for number in range(ACCOUNTS)))
    db.execute("COMMIT")
    chance = random.Random(1)
    n = 0
    while True:
        n += 1
        debit, credit = chance.sample(range(ACCOUNTS), 2)
        amount = chance.randrange(1, 1000)
        db.execute("BEGIN IMMEDIATE")
        db.execute("UPDATE account SET balance = balance - ? WHERE id = ?", (amount, debit))
        db.execute("UPDATE account SET balance = balance + ? WHERE id = ?", (amount, credit))
        db.execute("INSERT INTO entry VALUES (?, ?, ?, ?, ?)", (n, debit, credit, amount, os.urandom(NOTE_BYTES)))
        db.execute("COMMIT")
        print(n, time.time_ns() // 1_000_000, flush=True)


def check(path):
    db = opened(path)
    one = lambda query: db.execute(query).fetchone()[0]
    balances = """
        SELECT count(*) FROM account WHERE balance <>
            (SELECT coalesce(sum(amount), 0) FROM entry WHERE credit = account.id) -
            (SELECT coalesce(sum(amount), 0) FROM entry WHERE debit = account.id)
    """
    db.execute("CREATE INDEX IF NOT EXISTS credits ON entry (credit, amount)")
    db.execute("CREATE INDEX IF NOT EXISTS debits ON entry (debit, amount)")
    found = {
        "integrity": one("PRAGMA integrity_check"),
        "entries": one("SELECT count(*) FROM entry"),
        "last": one("SELECT coalesce(max(n), 0) FROM entry"),
        "wrong-balances": one(balances),
    }
    print(json.dumps(found))


{"load": load, "check": check}[sys.argv[1]](sys.argv[2])
