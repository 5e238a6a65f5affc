# inpaint-batch in a container. Two targets, both without root and without need of a network once built:
#
#   docker build --target cpu -t inpaint-batch:cpu .
#   docker run --rm -v "$PWD:/data" -u "$(id -u):$(id -g)" inpaint-batch:cpu run manifests/demo.csv --output restored
#
# The gpu target adds the GPU packages; run it with --gpus all and the NVIDIA container toolkit on the host.

FROM python:3.12.12-slim-bookworm AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12.12-slim-bookworm AS base
RUN useradd --uid 10001 --create-home restorer && mkdir /data && chown restorer /data
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir /wheels/*.whl
ENV PYTHONUNBUFFERED=1
WORKDIR /data
ENTRYPOINT ["inpaint-batch"]
CMD ["--help"]
# Only that the program starts: a batch job answers by its exit code, not on a port.
HEALTHCHECK --interval=60s --timeout=10s CMD ["inpaint-batch", "--version"]

FROM base AS gpu
RUN wheel=$(ls /wheels/*.whl) && pip install --no-cache-dir "${wheel}[gpu]"
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

# Last, so that it is also what a build without --target makes.
FROM base AS cpu
USER 10001:10001
