# git-model on a CPU, as a user without rights. Offline once the model is in the mounted cache:
#   docker build --tag git-model .     # --build-arg TORCH_INDEX=… : PyTorch's index of CPU builds, a much smaller image
#   docker run --rm --volume ~/.cache/huggingface:/cache --volume "$PWD":/work git-model caption photo.jpg
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
ARG TORCH_INDEX=
RUN useradd --create-home --uid 1000 user && mkdir /cache /work && chown user /cache /work
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.7"
COPY pyproject.toml README.md LICENSE /source/
COPY git_model /source/git_model
COPY weights_convert /source/weights_convert
COPY configs /source/configs
RUN pip install --no-cache-dir /source && rm -r /source
USER user
WORKDIR /work
ENV HF_HOME=/cache PYTHONUNBUFFERED=1
ENTRYPOINT ["git-model"]
CMD ["--help"]
