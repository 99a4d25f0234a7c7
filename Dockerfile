# The service of boneage_jax on port 8080, with the released weights. docs/serve.md shows how to build and run it.
FROM python:3.11-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN python -m venv /opt/boneage
RUN /opt/boneage/bin/pip install --no-cache-dir -c /source/constraints.txt "/source[serve]"

FROM python:3.11-slim
COPY --from=build /opt/boneage /opt/boneage
RUN useradd --system --create-home boneage
USER boneage
# Compiles the default weights once: what jax compiles stays in this user's cache folder, in the image.
RUN /opt/boneage/bin/python -c "from boneage_jax import load; from boneage_jax.released.weights import most_accurate; from boneage_jax.serve.reading import Reading; service = Reading(load(most_accurate())); service.warm_up(); service.close()"
EXPOSE 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["/opt/boneage/bin/python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/health', timeout=4)"]
CMD ["/opt/boneage/bin/boneage", "serve", "--host", "0.0.0.0", "--token-file", "/run/token"]
