"""Sampling error of the finite test set in a fitted law.

All runs are scored on one test set. On another one of the same kind all losses are shifted, by a
part that is common to them and by parts that depend on size and tokens. The parameters are
functions of the losses, so each block of the test set contributes to a parameter the sum over the
runs of (derivative by the log loss) times (contribution to the log loss), and the sum of squares
over the blocks estimates the variance over test sets. The part in which runs of one size and
budget differ is noise between runs, which the residuals contain, and is subtracted.

An interval that contains the noise between runs grows on a log scale by the root of 1 plus the
ratio of this variance to that of the noise, both by the linear approximation. Where that holds, the
result is the root of the sum of both squares; where the runs hardly limit a parameter, it keeps the
shape of the profile likelihood.

A shift that is common to all log losses multiplies E, A and B, and changes neither exponents nor
optimal sizes. New runs are scored on the same test set, so predicted losses have no such error.

Letters: K laws, n runs, B blocks, P parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lab.scaling.delta_method import (
    gradients_KP,
    shifted_laws,
    shifted_log_sizes,
    standard_errors_K,
)
from lab.scaling.flops import Floats, FlopsPerToken
from lab.scaling.law import NAMES
from lab.scaling.profiles import Estimate
from lab.scaling.solver.batch import FitBatch

_ALLOCATION = "allocation"
_NAMES = (*NAMES, _ALLOCATION)
FEWEST_BLOCKS = 2  # from which a variance is estimated


@dataclass(frozen=True, kw_only=True)
class TestSetErrors:
    """Standard errors of K laws due to the finite test set.

    Attributes:
        batch: the laws.
        covariance_KPP: covariance over test sets of the parameters of `FitBatch.covariance_KPP`.
        common_K: standard error of the shift that all log losses share.
        blocks: number of blocks.
    """

    __test__ = False  # pytest shall not collect this class

    batch: FitBatch
    covariance_KPP: Floats
    common_K: Floats
    blocks: int

    def of_logs(self) -> Mapping[str, Floats]:
        """Return the errors of the logarithms of `law.NAMES` and of "allocation", by name."""
        return {
            name: standard_errors_K(self.covariance_KPP, self._gradients_KP(name))
            for name in _NAMES
        }

    def growth(self) -> Mapping[str, Floats]:
        """Return the factors by which intervals on a log scale grow, by the names of `of_logs`."""
        return {name: self._growth_K(self._gradients_KP(name)) for name in _NAMES}

    def size_growth(self, flops: float, per_token: FlopsPerToken) -> Floats:
        """Return the factor for the compute-optimal size at `flops` FLOPs."""
        return self._growth_K(
            gradients_KP(
                self.batch, lambda shift: shifted_log_sizes(self.batch, shift, flops, per_token)
            )
        )

    def widen_size(self, size: Estimate, flops: float, per_token: FlopsPerToken) -> Estimate:
        """Return the interval of the first law's optimal size with the error of the test set."""
        return widen(size, float(self.size_growth(flops, per_token)[0]))

    def _growth_K(self, gradients: Floats) -> Floats:
        errors = standard_errors_K(self.covariance_KPP, gradients)
        noise = standard_errors_K(self.batch.covariance_KPP(), gradients)
        return np.asarray(np.hypot(1.0, errors / noise))

    def _gradients_KP(self, name: str) -> Floats:
        def log_value(shift: Floats) -> Floats:
            laws = shifted_laws(self.batch, shift)
            if name == _ALLOCATION:
                return np.asarray(np.log(laws["beta"] / (laws["alpha"] + laws["beta"])))
            return np.asarray(np.log(laws[name]))

        return gradients_KP(self.batch, log_value)


def find_test_set_errors(
    batch: FitBatch, blocks_KnB: Floats, corners_n: NDArray[np.intp]
) -> TestSetErrors:
    """Return the errors of K laws.

    Args:
        batch: the laws.
        blocks_KnB: contribution of each of `FEWEST_BLOCKS` blocks or more to the loss of each run;
            the contributions to a loss sum to zero.
        corners_n: number of the size and budget of each run; runs with the same one are repeats.
    """
    blocks = blocks_KnB.shape[2]
    logs_KnB = blocks_KnB * np.exp(-batch.logs_Kn)[:, :, None]
    inverse_KPn = _pseudo_inverse(batch.jacobian_KnP())
    moved_KPB = inverse_KPn @ logs_KnB
    own_K = _own_variance(logs_KnB, corners_n)
    shared_KPP = moved_KPB @ np.swapaxes(moved_KPB, 1, 2)
    shared_KPP = shared_KPP - own_K[:, None, None] * (inverse_KPn @ np.swapaxes(inverse_KPn, 1, 2))
    unbiased = blocks / (blocks - 1)
    return TestSetErrors(
        batch=batch,
        covariance_KPP=unbiased * shared_KPP,
        common_K=np.sqrt(unbiased * (logs_KnB.mean(axis=1) ** 2).sum(axis=1)),
        blocks=blocks,
    )


def widen(estimate: Estimate, growth: float) -> Estimate:
    """Return a positive estimate; its interval is `growth` times as wide in logarithms."""
    ends = widen_ends(*map(np.array, (estimate.value, estimate.low, estimate.high, growth)))
    return replace(estimate, low=float(ends[0]), high=float(ends[1]))


def widen_ends(
    values_K: Floats, low_K: Floats, high_K: Floats, growth_K: Floats
) -> tuple[Floats, Floats]:
    """Return the ends of K intervals as `widen` does; open ends stay open."""
    low = values_K * (low_K / values_K) ** growth_K
    return np.asarray(low), np.asarray(values_K * (high_K / values_K) ** growth_K)


def _pseudo_inverse(jacobian_KnP: Floats) -> Floats:
    """Return the derivatives of the parameters by the log losses, (J^T J)^-1 J^T."""
    scale_K1P = np.linalg.norm(jacobian_KnP, axis=1, keepdims=True)
    return np.asarray(np.linalg.pinv(jacobian_KnP / scale_K1P) / np.swapaxes(scale_K1P, 1, 2))


def _own_variance(logs_KnB: Floats, corners_n: NDArray[np.intp]) -> Floats:
    """Return the variance, per run, of the part in which repeats differ; 0 without repeats."""
    counts_c = np.bincount(corners_n)
    freedom = len(corners_n) - len(counts_c)
    if not freedom:
        return np.zeros(len(logs_KnB))
    members_nc = np.eye(len(counts_c))[corners_n]
    means_KcB = (members_nc / counts_c).T @ logs_KnB
    apart_KnB = logs_KnB - members_nc @ means_KcB
    return np.asarray((apart_KnB**2).sum(axis=(1, 2)) / freedom)
