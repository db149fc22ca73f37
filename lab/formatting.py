"""Numbers as text."""


def format_duration(seconds: float) -> str:
    """Return a duration as a person writes it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def format_clock(seconds: float) -> str:
    """Return a duration as a clock shows it, for where there is little room."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def format_time_left(seconds: float | None) -> str:
    """Return an estimate in words; empty where there is none.

    Args:
        seconds: that are left; negative where the estimate is exceeded.
    """
    if seconds is None:
        return ""
    return f"about {format_duration(max(1.0, seconds))} left" if seconds >= 0 else OVERDUE


OVERDUE = "longer than estimated"
