# The project on Debian, as a user without rights. Dependencies are a layer of their own: an edit of
# the code does not install PyTorch again.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
ARG TORCH_BACKEND=cpu
RUN useradd --create-home gato && mkdir -p /app /runs /views && chown gato /app /runs /views
WORKDIR /app
RUN pip install --no-cache-dir "uv>=0.9"
COPY pyproject.toml constraints.txt README.md ./
RUN uv pip install --system --no-cache -r pyproject.toml -c constraints.txt --torch-backend "${TORCH_BACKEND}"
COPY --chown=gato . .
RUN uv pip install --system --no-cache --no-deps -e .
USER gato
ENV GATO_RUNS=/runs
VOLUME /runs
CMD ["gato", "--help"]
