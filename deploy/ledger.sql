-- Run once, by PostgreSQL's image, on the ledger's empty volume: its database, and the role that owns the tables.
\getenv ledger_password LEDGER_DB_PASSWORD
CREATE ROLE ledger LOGIN PASSWORD :'ledger_password';
CREATE DATABASE ledger OWNER ledger;
REVOKE CONNECT ON DATABASE ledger, postgres FROM PUBLIC;
