"""Linear discriminant analysis: a softmax read-out with a closed form, for many classes.

Each class is a Gaussian with its own mean and a common covariance S; the logits are
t (x S^-1 m_c - m_c S^-1 m_c / 2) + ln p_c. A fit takes one pass over the examples, where a softmax
regression takes dozens: at nano32 .02 s instead of 1 s for 256 classes, and 95 % of its gain over
the class frequencies (2.53 against 2.48 of 3.30 nats).

Letters: N examples, d features, C classes.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.evaluation.calibration import alternate_halves

_RIDGES = (0.3, 1.0, 3.0, 10.0)  # added to the variances of standardised features
_SCALES = (0.0, 0.4, 0.7, 1.0)  # t; 0 predicts the class frequencies
_PRIOR_COUNT = 10.0  # examples at the mean of all classes that each class mean is averaged with


def log_frequencies(labels_N: Tensor, classes: int) -> Tensor:
    """Return the log of the smoothed relative frequency of each class, float64, shape (C,).

    Each count is increased by one half (Krichevsky and Trofimov 1981).
    """
    counts_C = torch.bincount(labels_N, minlength=classes).double()
    return ((counts_C + 0.5) / (len(labels_N) + 0.5 * classes)).log()


class Discriminant:
    """A fitted discriminant.

    Args:
        features_Nd: standardised features.
        labels_N: class of each example.
        classes: number of classes.
        ridge: value added to each variance of S.
    """

    def __init__(self, features_Nd: Tensor, labels_N: Tensor, classes: int, ridge: float) -> None:
        N = len(features_Nd)
        counts_C = torch.bincount(labels_N, minlength=classes).to(features_Nd.dtype)
        # A matrix product, since `index_add_` is not deterministic on a GPU.
        sums_Cd = F.one_hot(labels_N, classes).to(features_Nd.dtype).T @ features_Nd
        means_Cd = sums_Cd / counts_C.clamp(min=1)[:, None]
        within_dd = (features_Nd.T @ features_Nd - means_Cd.T @ sums_Cd) / N
        within_dd.diagonal().add_(ridge)
        shrunk_Cd = sums_Cd / (counts_C + _PRIOR_COUNT)[:, None]
        self._weight_dC = torch.linalg.solve(within_dd.double(), shrunk_Cd.T.double()).float()
        self._offset_C = -0.5 * (shrunk_Cd.T * self._weight_dC).sum(0)
        self._log_prior_C = log_frequencies(labels_N, classes).to(features_Nd.dtype)

    def nats(self, features_Nd: Tensor, labels_N: Tensor, scale: float) -> Tensor:
        """Return the nats of the label of each example, shape (N,), for the factor t = `scale`."""
        evidence_NC = features_Nd @ self._weight_dC + self._offset_C
        nats_N: Tensor = F.cross_entropy(
            scale * evidence_NC + self._log_prior_C, labels_N, reduction="none"
        )
        return nats_N


@torch.no_grad()
def predict_half(features_Nd: Tensor, labels_N: Tensor, scored_N: Tensor, classes: int) -> Tensor:
    """Return the nats of the labels of the scored examples; NaN if a feature is not finite.

    Ridge and scale are those with the smallest loss on one half of the other examples after a fit
    on the other half of them.

    Args:
        features_Nd: features of all examples.
        labels_N: class of each example.
        scored_N: whether an example is scored; the others are fitted on.
        classes: number of classes.
    """
    if not features_Nd.isfinite().all():
        return features_Nd.new_full((1,), math.nan)
    scored_N = scored_N.to(features_Nd.device)
    fitted_Nd = features_Nd[~scored_N]
    mean_d, std_d = fitted_Nd.mean(0), fitted_Nd.std(0, correction=0).clamp(min=1e-6)
    x_Nd = (features_Nd - mean_d) / std_d
    fitted_Nd, fitted_labels_N = x_Nd[~scored_N], labels_N[~scored_N]
    ridge, scale = _choose(fitted_Nd, fitted_labels_N, classes)
    discriminant = Discriminant(fitted_Nd, fitted_labels_N, classes, ridge)
    return discriminant.nats(x_Nd[scored_N], labels_N[scored_N], scale)


def _choose(features_Nd: Tensor, labels_N: Tensor, classes: int) -> tuple[float, float]:
    held_N = alternate_halves(len(labels_N)).to(labels_N.device)
    losses = {}
    for ridge in _RIDGES:
        fit = Discriminant(features_Nd[~held_N], labels_N[~held_N], classes, ridge)
        for scale in _SCALES:
            nats_N = fit.nats(features_Nd[held_N], labels_N[held_N], scale)
            losses[ridge, scale] = nats_N.mean().item()
    return min(losses, key=losses.__getitem__)
