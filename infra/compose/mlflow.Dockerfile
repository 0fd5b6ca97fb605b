# MLflow's own image brings no driver for PostgreSQL.
FROM python:3.11-slim

RUN pip install --no-cache-dir "mlflow==3.17.2" "psycopg[binary]>=3.3,<4" \
    && useradd --system --create-home mlflow \
    && install --directory --owner=mlflow /artifacts

USER mlflow
WORKDIR /home/mlflow
