"""The learning rate over a run."""

import keras


def warmup_cosine(
    peak: float, total_steps: int, warmup_steps: int
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns a rate that rises linearly from 0 to `peak`, then falls to 0 along a cosine.

    Args:
        peak: The highest learning rate.
        total_steps: Steps of the whole run.
        warmup_steps: Steps of the rise, from 0 to below `total_steps`.

    Returns:
        A schedule.

    Raises:
        ValueError: If the warm-up leaves no step to fall.

    Example:
        >>> schedule = warmup_cosine(0.01, total_steps=100, warmup_steps=10)
        >>> [round(float(schedule(step)), 4) for step in (0, 5, 10, 55, 100)]
        [0.0, 0.005, 0.01, 0.005, 0.0]
    """
    if not 0 <= warmup_steps < total_steps:
        raise ValueError(
            "`warmup_steps` must be at least 0 and below `total_steps`. Received: "
            f"warmup_steps={warmup_steps} with total_steps={total_steps}."
        )
    decay_steps = total_steps - warmup_steps
    if warmup_steps == 0:
        return keras.optimizers.schedules.CosineDecay(peak, decay_steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0, decay_steps, warmup_target=peak, warmup_steps=warmup_steps
    )
