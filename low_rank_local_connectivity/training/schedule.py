"""The learning rate over a run."""

import keras

# Fractions of the steps after the warm-up at which the rate falls to a tenth.
STEPS = (1 / 3, 2 / 3, 8 / 9)


def warmup_then(
    schedule: str, peak: float, total_steps: int, warmup_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns a rate that rises linearly from 0 to `peak`, then falls.

    Args:
        schedule: How it falls: `"cosine"`, to 0 along half a cosine; `"steps"`, to a tenth at
            1/3, 2/3 and 8/9 of what follows the warm-up; `"constant"`, not at all.
        peak: The highest learning rate.
        total_steps: Steps of the whole run.
        warmup_steps: Steps of the rise, from 0 to below `total_steps`.

    Returns:
        A schedule.

    Raises:
        ValueError: If the warm-up leaves no step to fall, or the schedule has no such name.

    Example:
        >>> schedule = warmup_then("cosine", 0.01, total_steps=100, warmup_steps=10)
        >>> [round(float(schedule(step)), 4) for step in (0, 5, 10, 55, 100)]
        [0.0, 0.005, 0.01, 0.005, 0.0]
        >>> schedule = warmup_then("steps", 0.01, total_steps=100, warmup_steps=10)
        >>> [round(float(schedule(step)), 5) for step in (5, 39, 41, 71, 91)]
        [0.005, 0.01, 0.001, 0.0001, 1e-05]
    """
    if schedule not in ("cosine", "steps", "constant"):
        raise ValueError(
            f"`schedule` must be 'cosine', 'steps' or 'constant'. Received: schedule={schedule!r}."
        )
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            "`warmup_steps` must be at least 0 and below `total_steps`. Received: "
            f"warmup_steps={warmup_steps} with total_steps={total_steps}."
        )
    decay_steps = total_steps - warmup_steps
    if schedule == "cosine" and warmup_steps:
        return keras.optimizers.schedules.CosineDecay(
            0.0, decay_steps, warmup_target=peak, warmup_steps=warmup_steps
        )
    if schedule == "cosine":
        return keras.optimizers.schedules.CosineDecay(peak, decay_steps)
    falls = [round(share * decay_steps) for share in STEPS] if schedule == "steps" else []
    return WarmupThenSteps(peak, warmup_steps, [warmup_steps + step for step in falls])


class WarmupThenSteps(keras.optimizers.schedules.LearningRateSchedule):
    """A rate that rises linearly, then falls to a tenth at given steps.

    Args:
        peak: The highest learning rate.
        warmup_steps: Steps of the rise from 0.
        falls: Steps at which the rate becomes a tenth of what it was.
    """

    def __init__(self, peak: float, warmup_steps: int, falls: list[int]) -> None:
        self.peak, self.warmup_steps, self.falls = peak, warmup_steps, list(falls)

    def __call__(self, step):
        """Returns the rate of a step, which may be a tensor."""
        step = keras.ops.cast(step, "float32")
        rate = keras.ops.convert_to_tensor(self.peak, "float32")
        for fall in self.falls:
            rate = keras.ops.where(step >= fall, rate / 10.0, rate)
        if not self.warmup_steps:
            return rate
        return rate * keras.ops.minimum(1.0, step / self.warmup_steps)

    def get_config(self) -> dict:
        """Returns the arguments."""
        return {"peak": self.peak, "warmup_steps": self.warmup_steps, "falls": self.falls}
