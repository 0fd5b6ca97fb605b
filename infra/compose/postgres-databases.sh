#!/bin/sh
# Makes one user and one database for the wheel and one for MLflow; the image runs it, once, when
# the volume is empty. Passwords travel through the environment, never through an argument.
set -eu

psql --set ON_ERROR_STOP=1 --no-psqlrc --quiet --username postgres --dbname postgres <<'SQL'
\getenv wheel_password WHEEL_DB_PASSWORD
\getenv mlflow_password MLFLOW_DB_PASSWORD
CREATE ROLE deltawheel LOGIN PASSWORD :'wheel_password';
CREATE ROLE mlflow LOGIN PASSWORD :'mlflow_password';
CREATE DATABASE deltawheel OWNER deltawheel TEMPLATE template0 ENCODING 'UTF8';
CREATE DATABASE mlflow OWNER mlflow TEMPLATE template0 ENCODING 'UTF8';
REVOKE CONNECT ON DATABASE deltawheel, mlflow FROM PUBLIC;
SQL
