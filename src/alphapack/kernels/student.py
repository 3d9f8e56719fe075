"""Student's t: its density and its tails, with polynomials in place of special functions, whose bits depend on who computes them.

With c = 1 / dof, u a value and g = |u| / sqrt(1 + c u^2), the upper tail is peak (1 + c u^2)^(-dof / 2) N(g, c), where N solves
(1 - c g^2) dN/dg = g N - 1, which for c = 0 is Mills's ratio of the normal distribution. N (3 + g) / 3 is fitted by Chebyshev
polynomials in c on [0, 1/3] and in 3 / (3 + g) for g in [0, 8.5]: N comes out within 5e-12 of itself, and beyond 8.5 the tail is below
1e-17. The density at 0, ``peak``, is 1 / (2 N(0, c)), so that both tails make 1.
"""

import math

import numpy as np

from alphapack.arrays import Float64Array1D
from alphapack.jit import njit

DOF_MIN, DOF_MAX = 3.0, 1e9
"""Degrees of freedom that are known; above, the distribution is the normal one to all digits."""
U_MAX = 1e150
"""Its square is still a number."""
G_MAX, BEND = 8.5, 3.0
P_MIN = BEND / (BEND + G_MAX)

# Least squares on exact values of N (2F1 with 30 digits); a row for each degree in c, a column for each degree in 3 / (3 + g).
# fmt: off
FIT = np.array([
    [
        0.869782427928079, 0.381722427103738, 0.0507204587242625, 0.0041782281690078, 0.0001824026425396, 2.01505969753e-05,
        4.5988714838e-06, 4.336007081e-07, -3.6528717e-09, 5.8498371e-09, 5.1893e-10, 5.86049e-11, -2.03235e-11, 7.81e-12, -1.5654e-12,
        3.634e-13,
    ],
    [
        0.0803144088497764, -0.0232202710079857, -0.0059925363532884, 0.0018101850783613, 0.0005891710614302, 6.36747964923e-05,
        1.5649945808e-06, 4.166671682e-07, 1.00821718e-07, 7.3275117e-09, -9.616056e-10, 3.566607e-10, -2.68422e-11, 7.5065e-12,
        -2.2332e-12, 7.471e-13,
    ],
    [
        0.002524755192042, -0.0032597817049488, 0.0009838181299736, 5.5462559492e-05, -9.23707874781e-05, 2.5041107527e-06,
        3.8876208478e-06, 4.237383597e-07, -2.31487606e-08, 6.728536e-09, 7.180981e-10, 7.02881e-11, -3.26658e-11, 1.18769e-11,
        -2.3312e-12, 5.261e-13,
    ],
    [
        -6.4212053682e-05, -2.99370755281e-05, 8.79124485549e-05, -5.46051061451e-05, 1.02619902164e-05, 2.5399663045e-06,
        -1.1585474841e-06, -6.9327918e-09, 3.30965851e-08, 2.4632791e-09, -7.641258e-10, 1.754148e-10, -1.07806e-11, 2.8444e-12,
        -1.0904e-12, 3.956e-13,
    ],
    [
        -9.8175114358e-06, 1.98809285202e-05, -9.917565332e-06, 7.510741824e-07, 2.0973799524e-06, -1.147632497e-06, 1.769006882e-07,
        4.16743657e-08, -1.68322484e-08, 4.742542e-10, 3.516794e-10, -3.5564e-12, -1.31474e-11, 4.2912e-12, -7e-13, 0.0,
    ],
    [
        6.664052201e-07, -3.597107766e-07, -7.042824752e-07, 9.032361876e-07, -4.561415378e-07, 6.78656189e-08, 4.33121247e-08,
        -2.59697684e-08, 4.8089783e-09, 3.063672e-10, -2.45185e-10, 2.0396e-11, 4.4891e-12, -9.602e-13, 0.0, 0.0,
    ],
    [
        9.981542e-08, -2.753600157e-07, 2.302623042e-07, -1.028885961e-07, -9.868704e-10, 2.9743084e-08, -1.74281712e-08, 3.9812852e-09,
        4.373894e-10, -5.355296e-10, 1.384636e-10, -1.0181e-11, -2.191e-12, 3.771e-13, 0.0, 0.0,
    ],
    [
        -1.77281175e-08, 3.00766565e-08, -7.5338012e-09, -1.09136915e-08, 1.41002645e-08, -7.6716743e-09, 1.6549128e-09, 5.368792e-10,
        -5.325004e-10, 1.744e-10, -1.79048e-11, -6.8179e-12, 3.1033e-12, -5.322e-13, 0.0, 0.0,
    ],
    [
        -8.409743e-10, 3.5133427e-09, -5.3221819e-09, 4.7390757e-09, -2.3466234e-09, 3.009238e-10, 4.46733e-10, -3.615333e-10,
        1.278433e-10, -1.22103e-11, -9.9345e-12, 5.4043e-12, -1.265e-12, 0.0, 0.0, 0.0,
    ],
    [
        6.138033e-10, -1.357127e-09, 1.0480421e-09, -4.273441e-10, -9.70982e-11, 2.678706e-10, -1.877102e-10, 6.60483e-11, -2.871e-12,
        -9.8514e-12, 5.5958e-12, -1.4929e-12, 0.0, 0.0, 0.0, 0.0,
    ],
    [
        -5.8268e-11, 9.29343e-11, 1.11186e-11, -1.038893e-10, 1.210385e-10, -7.64734e-11, 2.46311e-11, 2.6093e-12, -7.5916e-12,
        4.2754e-12, -1.2044e-12, 0.0, 0.0, 0.0, 0.0, 0.0,
    ],
    [
        -1.4656e-11, 3.64931e-11, -4.53206e-11, 4.09844e-11, -2.36124e-11, 5.6573e-12, 3.6785e-12, -4.7825e-12, 2.6119e-12, -7.306e-13,
        0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    ],
    [
        5.5154e-12, -1.15597e-11, 9.4389e-12, -4.6687e-12, -2.076e-13, 2.6388e-12, -2.5064e-12, 1.311e-12, -3.365e-13, 0.0, 0.0, 0.0,
        0.0, 0.0, 0.0, 0.0,
    ],
    [
        -4.933e-13, 8.43e-13, -2.5e-15, -9.442e-13, 1.3523e-12, -1.0879e-12, 5.359e-13, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    ],
])
# fmt: on
DEGREES_C, TERMS = FIT.shape


@njit
def settle(dof: float, terms: Float64Array1D) -> float:
    """Put the polynomial for ``dof``, in [``DOF_MIN``, ``DOF_MAX``], into ``terms``, float64[``TERMS``]; return the density at 0."""
    y = 6.0 / dof - 1.0
    before, now = 1.0, y
    for i in range(TERMS):
        terms[i] = FIT[0, i] + FIT[1, i] * y
    for j in range(2, DEGREES_C):
        before, now = now, 2.0 * y * now - before
        for i in range(TERMS):
            terms[i] += FIT[j, i] * now
    return 0.5 / mills(0.0, terms)


@njit
def mills(g: float, terms: Float64Array1D) -> float:
    """Return N at ``g``, 0 or more, of the polynomial that ``settle`` made."""
    p = BEND / (BEND + min(g, G_MAX))
    x = (2.0 * p - 1.0 - P_MIN) / (1.0 - P_MIN)
    after, now = 0.0, 0.0
    for i in range(TERMS - 1, 0, -1):
        after, now = now, 2.0 * x * now - after + terms[i]
    ratio: float = p * (x * now - after + terms[0])
    return ratio


@njit
def density(u: float, dof: float, peak: float) -> float:
    """Return the density at ``u``, finite; ``peak``: the one at 0."""
    u = min(abs(u), U_MAX)
    return peak * math.exp(-0.5 * (dof + 1.0) * math.log1p(u * u / dof))


@njit
def tail(u: float, dof: float, peak: float, terms: Float64Array1D) -> float:
    """Return P(T > u), in [0, 1], of a T with ``dof`` degrees of freedom; ``peak`` and ``terms`` as ``settle`` gave them."""
    size = min(abs(u), U_MAX)
    square = size * size / dof
    upper = peak * math.exp(-0.5 * dof * math.log1p(square)) * mills(size / math.sqrt(1.0 + square), terms)
    return upper if u >= 0.0 else 1.0 - upper


@njit
def reach(share: float, dof: float) -> float:
    """Return a u above 0 with P(T > u) <= ``share``, in (0, 1/2): P(T > u) is at most (1 + u^2 / dof)^(-dof / 2) / 2."""
    return min(math.sqrt(dof * math.expm1(-2.0 / dof * math.log(2.0 * share))), U_MAX)


@njit
def deviate(first: float, second: float, dof: float) -> float:
    """Return a draw of T from two uniforms in [0, 1), by Bailey's polar method (Mathematics of Computation 62, 1994)."""
    return math.sqrt(dof * math.expm1(-2.0 / dof * math.log(1.0 - first))) * math.cos(2.0 * math.pi * second)
