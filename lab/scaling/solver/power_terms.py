"""Sums of power laws as separable models: exponents outside, non-negative factors inside.

The model of n points is offset + X(exponents) factors, where the columns of X are a constant and
one power per input. Profile likelihoods restrict it: an exponent, the ratio of two exponents, the
constant, the value at a point, or the compute-optimal size is held. Each restriction is a model of
the same kind with fewer outer variables or fewer columns.

Letters: K problems, M problems that are solved at once, n points, p inputs (exponents), m outer
variables, q columns.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Rows = NDArray[np.intp]

EXPONENT_BOUNDS = (0.02, 3.0)  # published exponents of language models lie between .05 and .8


@dataclass(frozen=True, kw_only=True)
class Optimum:
    """A compute-optimal point that a restricted model must have.

    At the optimum of a budget, the two power terms fall equally fast per unit of log FLOPs
    (Lagrange condition): alpha a / e_N = beta b / e_D, where a and b are the terms there, and e_N
    and e_D the elasticities of FLOPs. This fixes the ratio of the two factors.

    Attributes:
        inputs_K2: logarithms of the inputs (centered as those of the points) at the optimum.
        elasticities_K2: derivatives of log FLOPs with respect to the two log inputs.
    """

    inputs_K2: Floats
    elasticities_K2: Floats

    def ratio_M(self, exponents_M2: Floats, rows_M: Rows) -> Floats:
        """Return the factor of the first power term, relative to that of the second one."""
        weights = np.log(exponents_M2 / self.elasticities_K2[rows_M])
        weights = weights - exponents_M2 * self.inputs_K2[rows_M]
        return np.asarray(np.exp(weights[:, 1] - weights[:, 0]))


@dataclass(frozen=True, kw_only=True)
class PowerTerms:
    """A batch of models, with restrictions.

    Attributes:
        inputs_Knp: logarithms of the inputs, minus their means over the points.
        base_Kp: part of the log exponents that does not vary.
        mix_mp: log exponents = base + outer variables times this matrix.
        constant_K: value at which the constant is held; None if it is a factor.
        optimum: compute-optimal point that the model must have; None for no such restriction. For
            models with two inputs.
        reference_Kp: inputs at which the value of the model, rather than its constant, is held at
            `constant_K`; None to hold the constant.
    """

    inputs_Knp: Floats
    base_Kp: Floats
    mix_mp: Floats
    constant_K: Floats | None = None
    optimum: Optimum | None = None
    reference_Kp: Floats | None = None

    def take(self, rows: Rows) -> "PowerTerms":
        """Return the models of some problems."""
        optimum = self.optimum
        if optimum is not None:
            optimum = Optimum(
                inputs_K2=optimum.inputs_K2[rows], elasticities_K2=optimum.elasticities_K2[rows]
            )
        return PowerTerms(
            inputs_Knp=self.inputs_Knp[rows],
            base_Kp=self.base_Kp[rows],
            mix_mp=self.mix_mp,
            constant_K=None if self.constant_K is None else self.constant_K[rows],
            optimum=optimum,
            reference_Kp=None if self.reference_Kp is None else self.reference_Kp[rows],
        )

    @property
    def bounds_Km2(self) -> Floats:
        """Bounds of the outer variables, by `EXPONENT_BOUNDS`.

        Each exponent depends on one outer variable, or on none.
        """
        low, high = np.log(EXPONENT_BOUNDS)
        free_mp = self.mix_mp[None] > 0
        shifts_K1p = self.base_Kp[:, None]
        lows_Km = np.where(free_mp, low - shifts_K1p, -np.inf).max(axis=2)
        highs_Km = np.where(free_mp, high - shifts_K1p, np.inf).min(axis=2)
        return np.stack([lows_Km, np.maximum(highs_Km, lows_Km)], axis=2)

    def exponents_Mp(self, outer_Mm: Floats, rows_M: Rows) -> Floats:
        """Return the exponents of the problems `rows_M`."""
        return np.exp(self.base_Kp[rows_M] + outer_Mm @ self.mix_mp)

    def design(self, outer_Mm: Floats, rows_M: Rows) -> tuple[Floats, Floats]:
        """Return the offsets of shape (M, n) and the columns of shape (M, n, q)."""
        exponents_Mp = self.exponents_Mp(outer_Mm, rows_M)
        columns_Mnp = np.exp(-exponents_Mp[:, None] * self.inputs_Knp[rows_M])
        if self.reference_Kp is not None:
            columns_Mnp = columns_Mnp - _powers_M1p(exponents_Mp, self.reference_Kp[rows_M])
        if self.optimum is not None:
            ratio_M = self.optimum.ratio_M(exponents_Mp, rows_M)
            columns_Mnp = ratio_M[:, None, None] * columns_Mnp[..., :1] + columns_Mnp[..., 1:]
        shape = columns_Mnp.shape[:2]
        if self.constant_K is not None:
            return np.broadcast_to(self.constant_K[rows_M, None], shape), columns_Mnp
        ones = np.ones((*shape, 1))
        return np.zeros(shape), np.concatenate([ones, columns_Mnp], axis=2)

    def derivatives_Mnm(self, outer_Mm: Floats, factors_Mq: Floats, rows_M: Rows) -> Floats:
        """Return the derivatives of the model by the outer variables, at constant factors."""
        exponents_Mp = self.exponents_Mp(outer_Mm, rows_M)
        factors_Mp = self.power_factors_Mp(exponents_Mp, factors_Mq, rows_M)
        inputs = self.inputs_Knp[rows_M]
        terms = factors_Mp[:, None] * np.exp(-exponents_Mp[:, None] * inputs)
        by_log_exponent = -exponents_Mp[:, None] * inputs * terms
        if self.reference_Kp is not None:
            fixed = factors_Mp[:, None] * _powers_M1p(exponents_Mp, self.reference_Kp[rows_M])
            by_log_exponent += (exponents_Mp * self.reference_Kp[rows_M])[:, None] * fixed
        if self.optimum is not None:
            # The first factor is the ratio times the second one, and the ratio varies too.
            at_M2 = self.optimum.inputs_K2[rows_M]
            alpha_M, beta_M = exponents_Mp[:, 0], exponents_Mp[:, 1]
            first = terms[..., 0]
            by_log_exponent[..., 0] += (alpha_M * at_M2[:, 0] - 1)[:, None] * first
            by_log_exponent[..., 1] += (1 - beta_M * at_M2[:, 1])[:, None] * first
        return by_log_exponent @ self.mix_mp.T

    def power_factors_Mp(self, exponents_Mp: Floats, factors_Mq: Floats, rows_M: Rows) -> Floats:
        """Return the factors of the power terms, without the constant."""
        powers = factors_Mq[:, 1:] if self.constant_K is None else factors_Mq
        if self.optimum is None:
            return powers
        return np.concatenate(
            [self.optimum.ratio_M(exponents_Mp, rows_M)[:, None] * powers, powers], 1
        )


def _powers_M1p(exponents_Mp: Floats, inputs_Mp: Floats) -> Floats:
    """Return the powers at one point per problem."""
    return np.asarray(np.exp(-exponents_Mp * inputs_Mp)[:, None])


def free_terms(inputs_Knp: Floats) -> PowerTerms:
    """Return the models without restrictions."""
    count, _, p = inputs_Knp.shape
    return PowerTerms(inputs_Knp=inputs_Knp, base_Kp=np.zeros((count, p)), mix_mp=np.eye(p))


def hold_exponent(terms: PowerTerms, index: int, logs_K: Floats) -> PowerTerms:
    """Return the models with the exponent `index` held at exp(logs)."""
    base_Kp = terms.base_Kp.copy()
    base_Kp[:, index] = logs_K
    return replace(terms, base_Kp=base_Kp, mix_mp=np.delete(terms.mix_mp, index, axis=0))


def hold_exponent_ratio(terms: PowerTerms, logs_K: Floats) -> PowerTerms:
    """Return the models with two inputs whose second exponent is exp(logs) times the first."""
    base_Kp = np.stack([np.zeros_like(logs_K), logs_K], axis=1)
    return replace(terms, base_Kp=base_Kp, mix_mp=np.ones((1, 2)))
