# One image for every process: core, worker, gateway, and the command mplp. Versions come from requirements.lock.
FROM python:3.13.7-slim AS build
WORKDIR /source
COPY requirements.lock requirements-dev.lock ./
RUN python -m venv /opt/mplp \
    && /opt/mplp/bin/pip install --no-cache-dir --no-deps --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY schemas schemas
COPY streams streams
COPY infra infra
COPY services services
# The build backend has its version from the lock, too, and does not enter the image.
RUN pip install --no-cache-dir --constraint requirements-dev.lock hatchling \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/mplp/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM python:3.13.7-slim
COPY --from=build /opt/mplp /opt/mplp
RUN useradd --create-home --uid 10001 mplp \
    && install --directory --owner=mplp --group=mplp /data
ENV PATH=/opt/mplp/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    MPLP_DATA_DIR=/data
USER mplp
WORKDIR /home/mplp
VOLUME ["/data"]
CMD ["mplp", "--help"]
