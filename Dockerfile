# The project on Debian, as a user without rights. Dependencies are a layer of their own: an edit of
# the code does not install PyTorch again.
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}
# cpu, cu128, ... as uv knows them; empty: PyTorch as PyPI has it, for CUDA.
ARG TORCH_BACKEND=cpu
RUN useradd --create-home --uid 1000 gato \
    && mkdir -p /app /runs /views \
    && chown gato /runs /views
WORKDIR /app
RUN pip install --no-cache-dir "uv>=0.9"
COPY pyproject.toml constraints.txt README.md ./
RUN uv pip install --system --no-cache -r pyproject.toml -c constraints.txt \
    ${TORCH_BACKEND:+--torch-backend "${TORCH_BACKEND}"}
COPY . .
RUN uv pip install --system --no-cache --no-deps -e .
# By its number, so that Kubernetes sees that it is not root.
USER 1000:1000
ENV GATO_RUNS=/runs PYTHONUNBUFFERED=1
VOLUME /runs
CMD ["gato", "--help"]
