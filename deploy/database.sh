#!/bin/sh
# The first start of PostgreSQL: the role of the agent, which is no superuser, and its database.
set -e
psql --set ON_ERROR_STOP=1 --set password="$AGENT_PASSWORD" --username "${POSTGRES_USER:-postgres}" --dbname postgres <<'SQL'
CREATE ROLE agent LOGIN PASSWORD :'password';
CREATE DATABASE books OWNER agent;
SQL
