"""GARCH(1,1) by Gaussian quasi-maximum likelihood, and its forecasts at any horizon.

``h[t+1] = omega + alpha e[t]^2 + beta h[t]`` with ``e[t] = r[t] - mu`` and mu zero or constant; omega > 0, alpha >= 0, 0 <= beta <= 1.
alpha + beta may exceed 1: where the likelihood is greatest, there is the fit. Steps are those of the returns given; for one-minute
returns a step is a minute. See docs/GARCH.md.

References
----------
T. Bollerslev, "Generalized autoregressive conditional heteroskedasticity", Journal of Econometrics 31 (1986).
G. Fiorentini, G. Calzolari, L. Panattoni, "Analytic derivatives and the computation of GARCH estimates", Journal of Applied
Econometrics 11 (1996).
T. Bollerslev, J. Wooldridge, "Quasi-maximum likelihood estimation and inference in dynamic models with time-varying covariances",
Econometric Reviews 11 (1992).
"""

import math
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from alphapack.arrays import Float64Array1D, Float64Array2D, Uint8Array1D
from alphapack.kernels import garch as kernel

Mean = Literal["zero", "constant"]
Presample = Literal["ssr", "ewma"]
Kind = Literal["hessian", "opg", "im", "bw", "white"]

NAMES = ("mu", "omega", "alpha", "beta")
OBSERVATIONS_MIN = 50
OBSERVATIONS_MAX = 1 << 24
HORIZON_MAX = 1 << 24
_NONE: Uint8Array1D = np.zeros(0, np.uint8)
_NOWHERE = np.zeros(0)


class Parameters(msgspec.Struct, frozen=True):
    """Parameters in the units of the returns: mu like a return, omega like its square."""

    omega: float
    alpha: float
    beta: float
    mu: float = 0.0


class Garch(msgspec.Struct, frozen=True, eq=False):
    """A fitted GARCH(1,1), in the units of the returns. No number is NaN, and all but ``gradient`` are finite."""

    parameters: Parameters
    mean: Mean
    loglik: float
    """Gaussian log-likelihood with its constant, -(n/2) ln 2 pi."""
    converged: bool
    """The certificate: the exact curvature is positive definite where parameters are free, no bound holds back an ascent by more than
    rounding, and ``gradient`` is at most 1e-6."""
    gradient: float
    """Length of the Newton step from here, in standard errors: (g' C^-1 g)^(1/2), with gradient g and curvature C of the free parameters.

    Half its square is what the log-likelihood would gain. Infinite where no step is to be had, which is then no certificate.
    """
    n: int
    """Returns that were not missing."""
    iterations: int
    """Points at which the likelihood and its derivatives were taken, over all starts."""
    next_variance: float
    """Conditional variance of the step after the sample."""
    boundary: tuple[str, ...]
    """Names of the parameters that stand at a bound."""
    _returns: Float64Array1D
    _valid: Uint8Array1D
    _work: Float64Array1D

    def __repr__(self) -> str:
        """Say what was fitted, without the sample."""
        told = ", ".join(f"{name}={value:.6g}" for name, value in self.params.items())
        return f"Garch({told}, loglik={self.loglik:.6f}, converged={self.converged}, boundary={self.boundary}, n={self.n})"

    @property
    def mu(self) -> float:
        """Mean of a return; 0 where the mean is zero."""
        return self.parameters.mu

    @property
    def omega(self) -> float:
        """Constant of the variance."""
        return self.parameters.omega

    @property
    def alpha(self) -> float:
        """Weight of the last squared residual."""
        return self.parameters.alpha

    @property
    def beta(self) -> float:
        """Weight of the last variance."""
        return self.parameters.beta

    @property
    def persistence(self) -> float:
        """``alpha + beta``: the part of a deviation of the variance that is left a step later; at 1 and above it does not revert."""
        return self.alpha + self.beta

    @property
    def params(self) -> dict[str, float]:
        """Parameters by name; mu for a constant mean alone."""
        return {name: getattr(self.parameters, name) for name in NAMES[self._first :]}

    @property
    def _first(self) -> int:
        return 0 if self.mean == "constant" else 1

    def forecast(self, h: int = 1) -> float:
        """Return the variance of the sum of the next ``h`` returns; the mean is no part of it."""
        return aggregate(self.next_variance, self.omega, self.alpha, self.beta, h)

    def variances(self) -> Float64Array1D:
        """Return the conditional variances of the sample's steps, missing ones too; shape of the returns."""
        variances = np.empty(len(self._returns))
        scale = float(self._work[kernel.SCALE])
        presample = float(self._work[kernel.PRESAMPLE])
        if math.isnan(presample):
            mean, square = self._work[[kernel.MEAN, kernel.SQUARE]].tolist()
            mu = float(self._work[kernel.BEST + kernel.MU])
            presample = square + mu * (mu - 2.0 * mean)
        first = self.omega + self.persistence * (presample / scale / scale)
        kernel.walk(self._returns, self._valid, self.mu, self.omega, self.alpha, self.beta, first, variances)
        return variances

    def stderr(self, kind: Kind = "hessian") -> dict[str, float]:
        """Return standard errors by name, without those of ``boundary``: an estimate at a bound has none.

        With the negative Hessian H, the outer products of scores B, and the Fisher information F, whose block of mu is apart:
        "hessian" H^-1, "opg" B^-1, "im" F^-1, "bw" F^-1 B F^-1 (Bollerslev-Wooldridge as published), "white" H^-1 B H^-1.

        Raises
        ------
        ValueError
            The kind is none of these, or the matrix is not positive definite, as where the fit has not converged.
        """
        bread, filling = {
            "hessian": (kernel.EXACT, None),
            "opg": (kernel.OUTER, None),
            "im": (kernel.FISHER, None),
            "bw": (kernel.FISHER, kernel.OUTER),
            "white": (kernel.EXACT, kernel.OUTER),
        }.get(kind, (None, None))
        if bread is None:
            raise ValueError(f"expected a kind of standard error: hessian, opg, im, bw or white; found {kind!r}")
        free = [i for i in range(self._first, 4) if NAMES[i] not in self.boundary]
        curvature = self._curvature(bread)[np.ix_(free, free)]
        # Parameters differ by orders of magnitude: what counts is the curvature with ones on its diagonal.
        diagonal = np.diag(curvature)
        if not (diagonal > 0.0).all():
            raise ValueError(f"expected a positive curvature in every free parameter, found {diagonal.tolist()}")
        size = np.sqrt(diagonal)
        least = np.linalg.eigvalsh(curvature / np.outer(size, size)).min()
        if not least > 1e-14:
            raise ValueError(f"expected a positive definite curvature, found a least eigenvalue of {least:.3g} with ones on its diagonal")
        inverse = np.linalg.inv(curvature / np.outer(size, size)) / np.outer(size, size)
        if filling is not None:
            inverse = inverse @ self._curvature(filling)[np.ix_(free, free)] @ inverse
        scale = float(self._work[kernel.SCALE])
        errors = np.sqrt(np.diag(inverse)).tolist()
        units = (scale, scale * scale, 1.0, 1.0)
        return {NAMES[i]: error / units[i] for i, error in zip(free, errors, strict=True)}

    def _curvature(self, kind: int) -> Float64Array2D:
        """Return the 4x4 curvature of a kind at the fit, in the kernel's units."""
        work = np.zeros(kernel.WORK)
        work[: kernel.FACTS] = self._work
        kernel.evaluate(self._returns, self._valid, work, kernel.BEST, kind)
        full = np.zeros((4, 4))
        full[np.tril_indices(4)] = work[kernel.BEST + kernel.CURVATURE : kernel.BEST + kernel.NEXT]
        return full + np.tril(full, -1).T


def fit(
    returns: Float64Array1D,
    mean: Mean = "zero",
    presample: Presample | float = "ssr",
    start: Parameters | None = None,
    valid: npt.NDArray[np.uint8 | np.bool_] | None = None,
) -> Garch:
    """Fit a GARCH(1,1) by Gaussian quasi-maximum likelihood.

    Parameters
    ----------
    returns
        Shape (n,), any scale: the fit of c times the returns is the fit times c.
    mean
        "zero", or "constant" to estimate mu.
    presample
        What stands for the variance and for the squared residual before the sample: "ssr", their mean of squares at the current mu
        (Fiorentini-Calzolari-Panattoni); "ewma", the squares about the mean of the first 75 steps, weighted by 0.94^t (the default of
        the package arch); or a variance.
    start
        Parameters to try first, such as those of the fit before; all starts are tried where they lead to nothing certain.
    valid
        Shape (n,), 0 or False where a return is missing. It adds nothing to the likelihood, and the variance steps on as expected.

    Raises
    ------
    ValueError
        Fewer than ``OBSERVATIONS_MIN`` returns or more than ``OBSERVATIONS_MAX``, returns all alike, not finite or beyond 1e100, or
        an argument out of its range.
    """
    sample, known = _sample(returns, valid)
    if mean not in ("zero", "constant"):
        raise ValueError(f'expected a mean "zero" or "constant", found {mean!r}')
    work = np.zeros(kernel.WORK)
    work[kernel.CONSTANT] = mean == "constant"
    work[kernel.PRESAMPLE] = _presample(presample)
    if start is not None:
        work[:4] = _started(start, mean)
    if not kernel.fit(sample, known, work, start is not None) or work[kernel.COUNT] < OBSERVATIONS_MIN:
        raise ValueError(_refusal(work, sample, known))
    return _garch(sample, known, work, mean)


def _sample(returns: Float64Array1D, valid: npt.NDArray[np.uint8 | np.bool_] | None) -> tuple[Float64Array1D, Uint8Array1D]:
    """Return copies that nobody else changes."""
    sample = np.array(returns, dtype=np.float64, order="C")
    if sample.ndim != 1 or not OBSERVATIONS_MIN <= len(sample) <= OBSERVATIONS_MAX:
        raise ValueError(f"expected {OBSERVATIONS_MIN} to {OBSERVATIONS_MAX} returns in one dimension, found shape {sample.shape}")
    return sample, _marks(valid, len(sample))


def _marks(valid: npt.NDArray[np.uint8 | np.bool_] | None, length: int) -> Uint8Array1D:
    """Return a byte a step, none where none is missing."""
    if valid is None:
        return _NONE
    marks = np.asarray(valid)
    if marks.shape != (length,) or marks.dtype not in (np.dtype(np.bool_), np.dtype(np.uint8)):
        raise ValueError(f"expected valid as bool or uint8 of shape ({length},), found {marks.dtype} of shape {marks.shape}")
    return _NONE if marks.all() else np.array(marks, dtype=np.uint8)


def _presample(presample: Presample | float) -> float:
    """Return what the kernel takes: NaN for "ssr", -1 for "ewma", else the variance."""
    if presample == "ssr":
        return math.nan
    if presample == "ewma":
        return -1.0
    if isinstance(presample, str) or not 0.0 < presample < math.inf:
        raise ValueError(f'expected a presample "ssr", "ewma" or a positive variance, found {presample!r}')
    return float(presample)


def _started(start: Parameters, mean: Mean) -> tuple[float, float, float, float]:
    """Return the parameters of a start, within their bounds."""
    mu = start.mu if mean == "constant" else 0.0
    if not (math.isfinite(mu) and 0.0 < start.omega < math.inf and 0.0 <= start.alpha < math.inf and 0.0 <= start.beta <= 1.0):
        raise ValueError(f"expected a start with omega > 0, alpha >= 0 and beta from 0 to 1, found {start}")
    return mu, start.omega, start.alpha, start.beta


def _refusal(work: Float64Array1D, sample: Float64Array1D, known: Uint8Array1D) -> str:
    """Say why a sample was refused."""
    there = sample if len(known) == 0 else sample[known != 0]
    if len(there) < OBSERVATIONS_MIN:
        return f"expected at least {OBSERVATIONS_MIN} returns that are not missing, found {len(there)}"
    wrong = np.flatnonzero(~(np.abs(there) <= kernel.LARGEST))
    if wrong.size:
        return f"expected finite returns of at most {kernel.LARGEST:g}, found {there[wrong[0]]} and {wrong.size - 1} more"
    return f"expected returns that vary by more than {1.0 / kernel.LARGEST:g}, found {there.min()} to {there.max()}"


def _garch(sample: Float64Array1D, known: Uint8Array1D, work: Float64Array1D, mean: Mean) -> Garch:
    """Return the fit in the units of the returns."""
    best = kernel.BEST
    mu, omega, alpha, beta, loglik = work[best : best + 5].tolist()
    scale, center = float(work[kernel.SCALE]), float(work[kernel.CENTER])
    count, gradient = int(work[kernel.COUNT]), float(work[kernel.BEST_GRADIENT])
    at_bound = (False, omega <= kernel.FLOOR, alpha <= 0.0, beta <= 0.0 or beta >= 1.0)
    return Garch(
        parameters=Parameters(omega / scale / scale, alpha, beta, mu / scale + center if mean == "constant" else 0.0),
        mean=mean,
        loglik=loglik - 0.5 * count * math.log(2.0 * math.pi) + count * math.log(scale),
        converged=bool(work[kernel.CERTIFIED] == 1.0),
        gradient=math.inf if math.isnan(gradient) else gradient,
        n=count,
        iterations=int(work[kernel.ROUNDS]),
        next_variance=float(work[best + kernel.NEXT]) / scale / scale,
        boundary=tuple(name for name, bound in zip(NAMES, at_bound, strict=True) if bound),
        _returns=sample,
        _valid=known,
        _work=work[: kernel.FACTS].copy(),
    )


def aggregate(next_variance: float, omega: float, alpha: float, beta: float, horizon: int, persistence_max: float | None = None) -> float:
    """Return the variance of the sum of the next ``horizon`` returns, ``next_variance`` being that of the first.

    ``V = h s2 + (next_variance - s2) (1 - p^h) / (1 - p)`` with ``p = alpha + beta`` and ``s2 = omega / (1 - p)``, and its limit at p = 1.
    Computed as a sum of positive terms, so it is as exact on either side of 1, relative error below 1e-13.

    ``persistence_max`` caps p, and omega stays: V is then continuous in p, never above what it would be without the cap, and the
    level it reverts to is ``omega / (1 - persistence_max)``. The old level could not be kept: at p >= 1 there is none.

    Raises
    ------
    ValueError
        An argument is out of its range, or the variance exceeds what a float holds, as it may where p > 1.
    """
    alpha, beta = _recursion(next_variance, omega, alpha, beta, persistence_max)
    if not 1 <= horizon <= HORIZON_MAX:
        raise ValueError(f"expected a horizon from 1 to {HORIZON_MAX}, found {horizon}")
    return _finite(float(kernel.aggregated(float(next_variance), float(omega), alpha, beta, int(horizon))), alpha + beta)


def weighted_aggregate(
    next_variance: float,
    omega: float,
    alpha: float,
    beta: float,
    factors: Float64Array1D,
    persistence_max: float | None = None,
) -> float:
    """Return the sum of the expected next variances, each times its factor: ``aggregate`` of returns that have a season.

    ``factors`` has shape (horizon,), finite and not negative; the first belongs to ``next_variance``. Else as ``aggregate``.
    """
    alpha, beta = _recursion(next_variance, omega, alpha, beta, persistence_max)
    weights = np.ascontiguousarray(factors, dtype=np.float64)
    if weights.ndim != 1 or not 1 <= len(weights) <= HORIZON_MAX:
        raise ValueError(f"expected 1 to {HORIZON_MAX} factors in one dimension, found shape {weights.shape}")
    if not (weights.min() >= 0.0 and weights.max() < math.inf):
        raise ValueError(f"expected factors that are finite and not negative, found {weights.min()} to {weights.max()}")
    return _finite(float(kernel.weighted(float(next_variance), float(omega), alpha, beta, weights)), alpha + beta)


def filtered(
    returns: Float64Array1D,
    valid: npt.NDArray[np.uint8 | np.bool_] | None,
    variance: float,
    omega: float,
    alpha: float,
    beta: float,
) -> float:
    """Return the variance of the step after ``returns``, ``variance`` being that of the first of them.

    ``returns`` has shape (n,), less their mean; without any, ``variance`` is returned. Where ``valid`` is 0 or False a step is missing,
    and the variance steps on as expected, to ``omega + (alpha + beta) h``; what stands in ``returns`` there is not looked at.

    Raises
    ------
    ValueError
        A shape or an argument is wrong, a return that is not missing is not finite, or the variance exceeds what a float holds.
    """
    alpha, beta = _recursion(variance, omega, alpha, beta, None)
    steps = np.ascontiguousarray(returns, dtype=np.float64)
    if steps.ndim != 1:
        raise ValueError(f"expected returns in one dimension, found shape {steps.shape}")
    marks = _marks(valid, len(steps))
    following = float(kernel.walk(steps, marks, 0.0, float(omega), alpha, beta, float(variance), _NOWHERE))
    if not following < math.inf:
        raise ValueError(f"expected finite returns where they are not missing, and a finite variance after them, found {following}")
    return following


def _recursion(variance: float, omega: float, alpha: float, beta: float, persistence_max: float | None) -> tuple[float, float]:
    """Return alpha and beta, or what has the greatest persistence allowed: forecasts know their sum alone."""
    if not (0.0 < variance < math.inf and 0.0 <= omega < math.inf and 0.0 <= alpha < math.inf and 0.0 <= beta < math.inf):
        found = f"variance {variance}, omega {omega}, alpha {alpha}, beta {beta}"
        raise ValueError(f"expected a positive variance and parameters that are finite and not negative, found {found}")
    if persistence_max is None:
        return float(alpha), float(beta)
    if not 0.0 <= persistence_max <= 1.0:
        raise ValueError(f"expected a greatest persistence from 0 to 1, found {persistence_max}")
    return (float(alpha), float(beta)) if alpha + beta <= persistence_max else (0.0, float(persistence_max))


def _finite(variance: float, persistence: float) -> float:
    """Return a variance that a float holds."""
    if not variance < math.inf:
        raise ValueError(f"expected a variance that a float holds, found {variance} with a persistence of {persistence}")
    return variance
