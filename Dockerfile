# The container image for training and sampling: `make image`, or docker build -t ddpm-kedro . (see docs/container.md).
#
# torch's wheels contain the CUDA libraries, so NVIDIA's smallest image is enough. It has the settings that the container
# toolkit reads, and the libraries that let data-centre GPUs run with an older driver. Its CUDA version is the one of the
# torch in constraints.txt, so the toolkit refuses a driver that torch could not use.
# Any Debian or Ubuntu with Python 3.11 or 3.12 works too: --build-arg BASE_IMAGE=debian:bookworm-slim
ARG BASE_IMAGE=nvidia/cuda:13.0.3-base-ubuntu24.04

# If your network needs package mirrors, pass them as build secrets; the image contains nothing of them:
#   --secret id=pip_conf,src=…      pip's configuration
#   --secret id=ca,src=…            the certificate that pip_conf may name as /run/host/ca.crt
#   --secret id=apt_sources,src=…   package sources that replace those of the base image, in deb822 format
#   --secret id=apt_conf,src=…      apt's configuration

FROM ${BASE_IMAGE} AS base
RUN --mount=type=bind,source=docker/apt-install,target=/run/host/apt-install \
    --mount=type=secret,id=apt_sources,target=/run/host/apt/mirror.sources \
    --mount=type=secret,id=apt_conf,target=/run/host/apt.conf \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    --mount=type=tmpfs,target=/var/cache/apt \
    --mount=type=tmpfs,target=/var/log \
    /run/host/apt-install ca-certificates python3 tini

# Needed only by the build: pip and setuptools in /tools, and the list of the dependencies.
FROM base AS tools
RUN --mount=type=bind,source=docker/apt-install,target=/run/host/apt-install \
    --mount=type=secret,id=apt_sources,target=/run/host/apt/mirror.sources \
    --mount=type=secret,id=apt_conf,target=/run/host/apt.conf \
    --mount=type=tmpfs,target=/var/lib/apt/lists \
    /run/host/apt-install python3-pip
# Without compiled files: their bytes differ between builds, and the next stage should depend only on the versions.
RUN --mount=type=bind,source=constraints.txt,target=/run/host/constraints.txt \
    --mount=type=secret,id=pip_conf,target=/run/host/pip.conf \
    --mount=type=secret,id=ca,target=/run/host/ca.crt \
    PIP_CONFIG_FILE=/run/host/pip.conf python3 -m pip install --quiet --no-cache-dir --no-compile \
    --constraint /run/host/constraints.txt --target /tools pip setuptools
WORKDIR /build
COPY pyproject.toml ./
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt

# The dependencies, in a layer that changes only with their list or their versions. Files that only tests and compilers
# need are removed: tests, static libraries, headers and bitcode of torch and CUDA, torch's protoc.
FROM base AS dependencies
RUN --mount=type=bind,from=tools,source=/tools,target=/run/host/tools \
    --mount=type=bind,from=tools,source=/build/requirements.txt,target=/run/host/requirements.txt \
    --mount=type=bind,source=constraints.txt,target=/run/host/constraints.txt \
    --mount=type=secret,id=pip_conf,target=/run/host/pip.conf \
    --mount=type=secret,id=ca,target=/run/host/ca.crt \
    python3 -m venv --without-pip /opt/venv \
    && PIP_CONFIG_FILE=/run/host/pip.conf python3 /run/host/tools/pip/__pip-runner__.py --python /opt/venv/bin/python \
    install --quiet --no-cache-dir --constraint /run/host/constraints.txt --requirement /run/host/requirements.txt \
    && find /opt/venv \( -name '*.a' -o -path '*/torch/include' -o -path '*/torch/bin/protoc*' -o -type d -name tests \
    -o -path '*/site-packages/nvidia/*/include' -o -path '*/site-packages/nvidia/*.bc' \) -prune -exec rm -rf {} +

# The project: a wheel of its code, and the folder in which Kedro runs, readable by every user.
FROM tools AS project
COPY README.md LICENSE ./
COPY src src
RUN PYTHONPATH=/tools python3 -m pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir /wheel .
WORKDIR /app
COPY pyproject.toml docker/entrypoint ./
COPY conf conf
RUN mkdir -p conf/local src data && chmod -R a+rX . && chmod 755 entrypoint && chmod 1777 data && ln -s data/.viz .viz

FROM dependencies
RUN --mount=type=bind,from=tools,source=/tools,target=/run/host/tools \
    --mount=type=bind,from=project,source=/wheel,target=/run/host/wheel \
    python3 /run/host/tools/pip/__pip-runner__.py --python /opt/venv/bin/python \
    install --quiet --no-cache-dir --no-index --no-deps /run/host/wheel/*.whl
COPY --from=project /app /app
WORKDIR /app

# HOME: matplotlib, Triton and W&B write their settings and caches there; nothing is written outside /tmp and data/.
# USER: a user id without an entry in /etc/passwd has no other name.
# WANDB_DIR: W&B's runs are kept with the data.
# container: tells the program that it runs in a container (systemd's convention).
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp USER=ddpm WANDB_DIR=/app/data container=oci \
    PYTHONUNBUFFERED=1 DO_NOT_TRACK=1
USER 1000:1000
ENTRYPOINT ["tini", "--", "/app/entrypoint"]
CMD ["run"]

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ddpm-kedro" \
      org.opencontainers.image.description="Denoising diffusion models as Kedro pipelines" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
