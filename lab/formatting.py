"""Durations as text."""

OVERDUE = "longer than estimated"


def format_duration(seconds: float) -> str:
    """Return a duration with units: `12 s`, `3 min 05 s` or `2 h 07 min`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def format_clock(seconds: float) -> str:
    """Return a duration in the short form `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_time_left(seconds: float | None) -> str:
    """Return an estimate of the time left as text; empty where it is unknown.

    Args:
        seconds: estimated seconds left; negative where the estimate is exceeded, None where it is
            unknown.
    """
    if seconds is None:
        return ""
    return f"about {format_duration(max(1.0, seconds))} left" if seconds >= 0 else OVERDUE
