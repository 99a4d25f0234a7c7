"""One contestant of `compare.py`, in a process of its own: prepares a task, then runs as many steps as requested.

    python -m benchmarks.contestants ours '{"network": "xception", "size": 299, "batch": 8, "work": "training", ...}'

It prints a line of JSON when it is ready, then, for each number that it reads, the seconds of that many steps.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib import metadata
from types import ModuleType
from typing import Any

Step = Callable[[], object]

# "ours": name and options of the trunk; "torch": the model in timm; "keras": the class in keras.applications.
NETWORKS: dict[str, dict[str, Any]] = {
    "xception": {"ours": ("xception", {}), "torch": "legacy_xception", "keras": "Xception"},
    "convmixer": {"ours": ("convmixer", {"activation": "relu"}), "torch": "convmixer_768_32"},
    "resnet50": {"ours": ("resnet50", {}), "torch": "resnet50"},
    "inception_v3": {"ours": ("inception_v3", {"framework": "torch"}), "torch": "inception_v3", "keras": "InceptionV3"},
    "efficientnet_b0": {"ours": ("efficientnet_b0", {}), "torch": "efficientnet_b0", "keras": "EfficientNetB0"},
    "efficientnet_lite0": {"ours": ("efficientnet_lite0", {}), "torch": "tf_efficientnet_lite0"},
    "efficientnet_lite2": {"ours": ("efficientnet_lite2", {}), "torch": "tf_efficientnet_lite2"},
    "convnextv2_atto": {"ours": ("convnextv2_atto", {}), "torch": "convnextv2_atto"},
    "tiny": {"ours": ("convmixer", {"dim": 8, "depth": 1, "kernel_size": 3, "patch_size": 8})},  # gpu.py --tiny
}


def ours(task: dict[str, Any]) -> Step:
    """The training step of `launch.py`, or its inference, on a batch that is already on the device."""
    import jax
    import numpy as np

    from boneage_jax import config as configuration
    from boneage_jax.train import parallel
    from boneage_jax.train.experiment import Experiment, Statistics

    config = configuration.base()
    name, options = NETWORKS[task["network"]]["ours"]
    config.preprocess.size, config.model.name, config.model.dtype = task["size"], name, task["dtype"]
    config.model.input_channels = "rgb"
    for key, value in options.items():
        config.model.options[key] = value
    experiment = Experiment.create(config, Statistics(127.3, 41.2, {}))
    transform, fresh = experiment.fresh_state(steps_per_epoch=100)
    generator = np.random.default_rng(0)
    batch = {
        "image": generator.integers(0, 255, (task["batch"], task["size"], task["size"], 1)).astype(np.uint8),
        "sex": generator.integers(0, 2, task["batch"]).astype(np.int32),
        "age": generator.uniform(0, 228, task["batch"]).astype(np.float32),
        "inputs": {},
    }
    if task["work"] == "inference":
        infer, variables = jax.jit(experiment.inference()), jax.device_put(fresh.variables)
        on_device = jax.device_put(batch)
        return lambda: jax.block_until_ready(infer(variables, on_device))
    train = experiment.compile_train_step(transform)
    state, split = parallel.replicate(fresh), jax.device_put(parallel.split(batch))

    def step() -> None:
        nonlocal state
        state, metrics = train(state, split)
        jax.block_until_ready(metrics)

    return step


@cache
def import_timm() -> ModuleType:
    """Imports timm, even if torchvision is a CUDA build and PyTorch a CPU build.

    timm imports torchvision, which registers metadata for its compiled operators at import time and fails if the
    compiled library cannot be loaded. The networks use none of these operators, so it is enough to declare them.
    """
    import torch as framework

    if framework.version.cuda is None and "+cpu" not in metadata.version("torchvision"):
        for operator in ("nms", "qnms"):
            framework.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float iou) -> Tensor")
    import timm

    return timm


def torch(task: dict[str, Any], compiled: bool) -> Step:
    """The timm network with the same head, channels last and AdamW; `torch.compile`d or eager."""
    import torch as framework
    from torch import nn

    timm = import_timm()

    class Network(nn.Module):
        """The trunk, global pool, sex branch and the winner's head."""

        def __init__(self) -> None:
            super().__init__()
            self.trunk = timm.create_model(NETWORKS[task["network"]]["torch"], num_classes=0)
            self.sex = nn.Linear(1, 32)
            self.head = nn.Sequential(
                nn.Linear(self.trunk.num_features + 32, 1000),
                nn.ReLU(),
                nn.Linear(1000, 1000),
                nn.ReLU(),
                nn.Linear(1000, 1),
            )

        def forward(self, image: Any, sex: Any) -> Any:
            return self.head(framework.cat([self.trunk(image), self.sex(sex).relu()], 1))[:, 0]

    device = "cuda" if framework.cuda.is_available() else "cpu"
    finish = framework.cuda.synchronize if device == "cuda" else lambda: None
    framework.manual_seed(0)
    network = Network().to(device, memory_format=framework.channels_last)
    image = framework.randn(task["batch"], 3, task["size"], task["size"])
    image = image.to(device, memory_format=framework.channels_last)
    sex = framework.randint(0, 2, (task["batch"], 1)).float().to(device)
    age = framework.randn(task["batch"]).to(device)
    autocast = framework.autocast(device, framework.bfloat16, enabled=task["dtype"] == "bfloat16")
    run = framework.compile(network) if compiled else network
    if task["work"] == "inference":
        network.eval()

        def infer() -> None:
            with framework.inference_mode(), autocast:
                run(image, sex)
            finish()

        return infer
    optimizer = framework.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = nn.functional.mse_loss(run(image, sex).float(), age)
        loss.backward()
        optimizer.step()
        finish()

    return step


def keras(task: dict[str, Any], backend: str) -> Step:
    """The `keras.applications` network with the same head, on JAX or PyTorch, compiled by Keras."""
    os.environ["KERAS_BACKEND"] = backend
    import keras as framework
    import numpy as np

    layers, shape = framework.layers, (task["size"], task["size"], 3)
    framework.config.set_dtype_policy("mixed_bfloat16" if task["dtype"] == "bfloat16" else "float32")
    build = getattr(framework.applications, NETWORKS[task["network"]]["keras"])
    trunk = build(weights=None, include_top=False, input_shape=shape, pooling="avg")
    sex = framework.Input((1,))
    x = layers.Concatenate()([trunk.output, layers.Dense(32, "relu")(sex)])
    for _ in range(2):
        x = layers.Dense(1000, "relu")(x)
    model = framework.Model([trunk.input, sex], layers.Dense(1, dtype="float32")(x))
    model.compile(framework.optimizers.AdamW(1e-4), "mse")
    generator = np.random.default_rng(0)
    image = generator.standard_normal((task["batch"], *shape)).astype(np.float32)
    sexes = generator.integers(0, 2, (task["batch"], 1)).astype(np.float32)
    age = generator.standard_normal((task["batch"], 1)).astype(np.float32)
    if task["work"] == "inference":
        return lambda: np.asarray(model.predict_on_batch([image, sexes]))
    return lambda: np.asarray(model.train_on_batch([image, sexes], age))


CONTESTANTS: dict[str, Callable[[dict[str, Any]], Step]] = {
    "ours": ours,
    "torch": lambda task: torch(task, compiled=False),
    "torch compiled": lambda task: torch(task, compiled=True),
    "keras on jax": lambda task: keras(task, "jax"),
    "keras on torch": lambda task: keras(task, "torch"),
}


def main() -> None:
    """Prepares the task, runs two steps, then as many as each line on stdin requests."""
    name, task = sys.argv[1], json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that output of the frameworks does not mix with the answers
    start = time.perf_counter()
    step = CONTESTANTS[name](task)
    step()
    first = time.perf_counter() - start
    step()
    print(json.dumps({"first_step_seconds": first}), file=answers, flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), file=answers, flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "ours":
        from boneage_jax import allocator

        allocator.keep_memory()
    main()
