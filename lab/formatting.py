"""Numbers as text."""

OVERDUE = "longer than estimated"


def format_duration(seconds: float) -> str:
    """Return a duration with its units, for example "1 h 05 min", "2 min 30 s" or "7 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def format_clock(seconds: float) -> str:
    """Return a duration as h:mm:ss or m:ss, for narrow columns."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_time_left(seconds: float | None) -> str:
    """Return the time left in words.

    Args:
        seconds: estimated seconds left, negative if the estimate is exceeded; None for no estimate,
            which gives an empty string.
    """
    if seconds is None:
        return ""
    return f"about {format_duration(max(1.0, seconds))} left" if seconds >= 0 else OVERDUE
