# The project on Debian; `docker compose up` uses it for the head and for actors.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
WORKDIR /app
COPY . .
RUN pip install --no-cache-dir "uv>=0.9" && uv pip install --system --no-cache -e . -c constraints.txt --torch-backend cpu
