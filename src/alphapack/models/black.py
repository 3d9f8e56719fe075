"""Black's formula (1976): undiscounted prices of options on a forward, vega, and implied volatility to the last digits of a price.

``price = F N(d1) - K N(d2)`` for a call and ``K N(-d2) - F N(-d1)`` for a put, ``d1 = ln(F/K) / s + s / 2``, ``d2 = d1 - s``,
``s = sigma sqrt(t)``. Time is in years of 365 days, volatility an annual fraction. A discounted price is divided by its discount
factor first. All functions work on arrays of one dimension; numbers, and arrays of length one, stand for as many as the others have.
See docs/IMPLIED.md.
"""

import enum
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from alphapack.arrays import Float64Array1D, Uint8Array1D
from alphapack.kernels import black as kernel

Scalar = TypeVar("Scalar", bound=np.generic)


class Status(enum.IntEnum):
    """What became of an option whose implied volatility was asked for."""

    OK = kernel.OK
    BELOW_INTRINSIC = kernel.BELOW_INTRINSIC
    AT_INTRINSIC = kernel.AT_INTRINSIC
    ABOVE_MAXIMUM = kernel.ABOVE_MAXIMUM
    UNRESOLVED = kernel.UNRESOLVED
    NOT_FINITE = kernel.NOT_FINITE
    NOT_POSITIVE = kernel.NOT_POSITIVE

    @property
    def text(self) -> str:
        """Say it in words."""
        return TEXTS[self]


TEXTS = {
    Status.OK: "implied volatility found",
    Status.BELOW_INTRINSIC: "price below the intrinsic value",
    Status.AT_INTRINSIC: "price at the intrinsic value: without time value the volatility would be zero",
    Status.ABOVE_MAXIMUM: "price at or above its maximum, the forward for a call and the strike for a put",
    Status.UNRESOLVED: "time value too small for the digits of the price",
    Status.NOT_FINITE: "price, forward, strike, time, or forward over strike not finite",
    Status.NOT_POSITIVE: "forward, strike or time not positive",
}


def price(forward: npt.ArrayLike, strike: npt.ArrayLike, sigma: npt.ArrayLike, t: npt.ArrayLike, call: npt.ArrayLike) -> Float64Array1D:
    """Return undiscounted prices, shape (n,).

    Parameters
    ----------
    forward, strike
        Positive and finite; sigma and t may be 0. Where one of them is out of its range the price is NaN.
    sigma
        Volatility, an annual fraction.
    t
        Years to expiry.
    call
        True for a call, False for a put.

    Raises
    ------
    ValueError
        An argument is no array of real numbers, or shapes do not agree.
    """
    (forwards, strikes, sigmas, years), calls = _arguments({"forward": forward, "strike": strike, "sigma": sigma, "t": t}, call)
    prices = np.empty(len(calls))
    kernel.prices(forwards, strikes, sigmas, years, calls, prices)
    return prices


def vega(forward: npt.ArrayLike, strike: npt.ArrayLike, sigma: npt.ArrayLike, t: npt.ArrayLike) -> Float64Array1D:
    """Return the change of the undiscounted price for a change of sigma by 1, equal for calls and puts, shape (n,). Else as ``price``."""
    (forwards, strikes, sigmas, years), calls = _arguments({"forward": forward, "strike": strike, "sigma": sigma, "t": t}, True)
    vegas = np.empty(len(calls))
    kernel.vegas(forwards, strikes, sigmas, years, vegas)
    return vegas


def implied_vol(
    price: npt.ArrayLike, forward: npt.ArrayLike, strike: npt.ArrayLike, t: npt.ArrayLike, call: npt.ArrayLike
) -> tuple[Float64Array1D, Uint8Array1D]:
    """Return the volatilities at which Black's formula gives these undiscounted prices, and a ``Status`` each, both of shape (n,).

    A volatility is NaN where its status is not OK. What it lacks in precision is what the price lacks: in the money the digits of the
    intrinsic value are lost to it, near the maximum those of the maximum.

    Raises
    ------
    ValueError
        An argument is no array of real numbers, or shapes do not agree.
    """
    (prices, forwards, strikes, years), calls = _arguments({"price": price, "forward": forward, "strike": strike, "t": t}, call)
    vols, status = np.empty(len(calls)), np.empty(len(calls), np.uint8)
    kernel.implied(prices, forwards, strikes, years, calls, vols, status)
    return vols, status


def _arguments(numbers: dict[str, npt.ArrayLike], call: npt.ArrayLike) -> tuple[list[Float64Array1D], Uint8Array1D]:
    """Return contiguous arrays of one length."""
    given = {name: np.asarray(value) for name, value in numbers.items()}
    for name, array in given.items():
        if array.dtype.kind not in "fiu" or array.ndim > 1:
            raise ValueError(f"expected {name} as real numbers in one dimension, found {array.dtype} of shape {array.shape}")
    calls = np.asarray(call)
    if calls.dtype.kind != "b" or calls.ndim > 1:
        raise ValueError(f"expected call as booleans in one dimension, found {calls.dtype} of shape {calls.shape}")
    lengths = {name: 1 if array.ndim == 0 else len(array) for name, array in [*given.items(), ("call", calls)]}
    n = next((length for length in lengths.values() if length != 1), 1)
    if any(length not in (1, n) for length in lengths.values()):
        raise ValueError(f"expected one length, or 1, found {', '.join(f'{name} {length}' for name, length in lengths.items())}")
    return [_filled(array, n, np.float64) for array in given.values()], _filled(calls, n, np.uint8)


def _filled(array: npt.NDArray[Any], n: int, dtype: type[Scalar]) -> np.ndarray[tuple[int], np.dtype[Scalar]]:
    """Return a contiguous array of a length, of one value where that is all there is."""
    if array.shape == (n,):
        return np.ascontiguousarray(array, dtype=dtype)
    return np.full(n, array.item(), dtype)
