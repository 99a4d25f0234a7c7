"""The results of the benchmark, as a table for the terminal and as JSON."""

import dataclasses
import json
from pathlib import Path

from boneage_jax.atomic_files import write_text
from boneage_jax.benchmark.floor import Floor
from boneage_jax.benchmark.profile import Profile


@dataclasses.dataclass(frozen=True)
class Result:
    """One model measured on one machine; None for values that were not or cannot be measured.

    `*_memory_bytes` is XLA's own analysis of the program, per device; `*_device_peak_bytes` is the device's
    peak since the process started (GPUs only), read after inference and again after training.
    """

    model: str
    image_size: int  # pixels per side
    channels: int
    batch_size: int
    dtype: str
    parameters: int
    gflops_per_image: float  # forward pass, multiply-add = 2
    train_images_per_second: float
    train_step_p50_seconds: float
    train_step_p95_seconds: float
    inference_images_per_second: float
    latency_p50_seconds: float  # inference of one image, from host array to finished result
    latency_p95_seconds: float
    train_compile_seconds: float
    inference_compile_seconds: float
    train_memory_bytes: int
    inference_memory_bytes: int
    train_device_peak_bytes: int | None
    inference_device_peak_bytes: int | None
    pipeline_images_per_second: float | None
    data_wait_share: float | None
    warmup: int
    steps: int
    hardware: str
    versions: dict[str, str]
    train_floor: Floor | None = None
    train_profile: Profile | None = None

    def table(self) -> str:
        """The results as a table, one measure per line."""
        size = f"{self.image_size}x{self.image_size}x{self.channels}"
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        rows = (
            ("hardware", self.hardware),
            ("versions", versions),
            ("parameters", f"{self.parameters:,}"),
            ("GFLOPs per image (forward)", f"{self.gflops_per_image:.3f}"),
            ("training", f"{self.train_images_per_second:.2f} images/s"),
            (
                "training step p50 / p95",
                _milliseconds(self.train_step_p50_seconds, self.train_step_p95_seconds),
            ),
            ("inference", f"{self.inference_images_per_second:.2f} images/s"),
            (
                "latency, batch 1, p50 / p95",
                _milliseconds(self.latency_p50_seconds, self.latency_p95_seconds),
            ),
            ("compile time, training", f"{self.train_compile_seconds:.1f} s"),
            ("compile time, inference", f"{self.inference_compile_seconds:.1f} s"),
            ("memory per device, training", _megabytes(self.train_memory_bytes)),
            ("memory per device, inference", _megabytes(self.inference_memory_bytes)),
            ("device peak, training", _megabytes(self.train_device_peak_bytes)),
            ("device peak, inference", _megabytes(self.inference_device_peak_bytes)),
            ("pipeline", _optional(self.pipeline_images_per_second, "{:.1f} images/s")),
            ("step time waiting for data", _optional(self.data_wait_share, "{:.1%}")),
        )
        title = f"{self.model}, {size}, batch {self.batch_size}, {self.dtype} ({self.steps} timed steps)"
        parts = ["\n".join([title, "", *(f"  {name:<30}{value}" for name, value in rows)])]
        if self.train_floor:
            parts.append(self.train_floor.table(self.train_step_p50_seconds))
        if self.train_profile:
            parts.append(f"{self.train_profile.table()}\n\n  trace: {self.train_profile.folder}")
        return "\n\n".join(parts)

    def write(self, path: Path | str) -> None:
        """Writes all fields as JSON; an existing file is replaced atomically."""
        text = json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False) + "\n"
        write_text(Path(path), text)


def _milliseconds(*seconds: float) -> str:
    return " / ".join(f"{1000 * value:.1f}" for value in seconds) + " ms"


def _megabytes(count: int | None) -> str:
    return "not counted on this device" if count is None else f"{count / 1e6:,.0f} MB"


def _optional(value: float | None, form: str) -> str:
    return "not measured" if value is None else form.format(value)
