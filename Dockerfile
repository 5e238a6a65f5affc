# inpaint-batch in a container. Two targets, both without root and without need of a network once built:
#
#   docker build --target cpu -t inpaint-batch:cpu .
#   docker run --rm --network none inpaint-batch:cpu run /opt/inpaint-batch/demo.csv --output /tmp/restored
#   docker run --rm -v "$PWD:/data" -u "$(id -u):$(id -g)" inpaint-batch:cpu run manifests/demo.csv --output restored
#
# The second line is the self-test: four photographs, exit code 0. The gpu target adds the GPU packages; run it with
# --gpus all and the NVIDIA container toolkit on the host. Base image and packages are pinned, by digest and by hash;
# .ci/container/lock renews the lists of packages, .ci/container/dry-build does the steps of this file without Docker.

FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS wheel
COPY .ci/container/build.txt /locks/
RUN pip install --no-cache-dir --require-hashes -r /locks/build.txt
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir /wheels .

FROM python:3.11.14-slim-bookworm@sha256:65a93d69fa75478d554f4ad27c85c1e69fa184956261b4301ebaf6dbb0a3543d AS base
RUN useradd --uid 10001 --create-home restorer && mkdir /data && chown restorer /data
ENV PYTHONUNBUFFERED=1
COPY .ci/container/cpu.txt .ci/container/gpu.txt /locks/
COPY manifests/demo.csv /opt/inpaint-batch/
COPY manifests/demo /opt/inpaint-batch/demo
WORKDIR /data
ENTRYPOINT ["inpaint-batch"]
CMD ["--help"]
# Only that the program starts: a batch job answers by its exit code, not on a port.
HEALTHCHECK --interval=60s --timeout=10s CMD ["inpaint-batch", "--version"]

FROM base AS gpu
# The list has all that there is to install. What TensorRT's packages ask for beside is known only once they are fetched.
RUN pip install --no-cache-dir --require-hashes --no-deps -r /locks/gpu.txt
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --no-deps --no-index /wheels/*.whl
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001

# Last, so that it is also what a build without --target makes.
FROM base AS cpu
RUN pip install --no-cache-dir --require-hashes -r /locks/cpu.txt
COPY --from=wheel /wheels /wheels
RUN pip install --no-cache-dir --no-deps --no-index /wheels/*.whl
USER 10001:10001
