"""Ordinary least squares with t intervals."""

from dataclasses import dataclass

import numpy as np

from lab.errors import UserError
from lab.scaling.solver.huber import Floats, quantile


@dataclass(frozen=True, kw_only=True)
class LinearFit:
    """y = sum of coefficients times columns, plus normal noise.

    Attributes:
        coefficients_q: the coefficients.
        covariance_qq: their covariance; NaN without degrees of freedom.
        deviation: standard deviation of the noise; NaN without degrees of freedom.
        freedom: number of points minus number of coefficients.
    """

    coefficients_q: Floats
    covariance_qq: Floats
    deviation: float
    freedom: int

    def half_width(self, row_q: Floats, level: float, *, new: bool) -> float:
        """Return half of the t interval of the value at a row; infinite without freedom.

        Args:
            row_q: values of the columns.
            level: nominal coverage.
            new: whether the interval is that of a new observation rather than of the mean.
        """
        if not self.freedom:
            return np.inf
        variance = float(row_q @ self.covariance_qq @ row_q) + new * self.deviation**2
        return quantile(level, self.freedom) * float(np.sqrt(variance))


def fit_linear(columns_nq: Floats, values_n: Floats, name: str) -> LinearFit:
    """Fit the coefficients.

    Args:
        columns_nq: values of the columns.
        values_n: values of y.
        name: the fitted quantity, for the message.

    Raises:
        UserError: the points do not determine the coefficients.
    """
    count, q = columns_nq.shape
    scale = np.linalg.norm(columns_nq, axis=0)
    rank = np.linalg.matrix_rank(columns_nq / np.where(scale, scale, 1.0), tol=1e-6)
    if rank < q:
        raise UserError(f"{name}: {count} points determine {rank} of its {q} coefficients")
    coefficients = np.linalg.lstsq(columns_nq, values_n, rcond=None)[0]
    freedom = count - q
    residuals = values_n - columns_nq @ coefficients
    variance = float(residuals @ residuals) / freedom if freedom else np.nan
    return LinearFit(
        coefficients_q=np.asarray(coefficients, dtype=float),
        covariance_qq=np.asarray(variance * np.linalg.inv(columns_nq.T @ columns_nq), dtype=float),
        deviation=float(np.sqrt(variance)),
        freedom=freedom,
    )


@dataclass(frozen=True, kw_only=True)
class LineFit:
    """A line y = level + slope (x - center).

    Attributes:
        center: mean of x.
        fit: coefficients (level, slope).
    """

    center: float
    fit: LinearFit

    @property
    def slope(self) -> float:
        """The slope."""
        return float(self.fit.coefficients_q[1])

    def at(self, x: Floats) -> Floats:
        """Return the values of the line."""
        return np.asarray(self.fit.coefficients_q[0] + self.slope * (x - self.center))


def fit_line(x_n: Floats, y_n: Floats) -> LineFit:
    """Fit a line."""
    center = float(x_n.mean())
    columns = np.stack([np.ones_like(x_n), x_n - center], axis=1)
    return LineFit(center=center, fit=fit_linear(columns, y_n, "line"))
