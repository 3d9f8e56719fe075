"""Array types that say their shape."""

import numpy as np

Int64Array1D = np.ndarray[tuple[int], np.dtype[np.int64]]
Int64Array2D = np.ndarray[tuple[int, int], np.dtype[np.int64]]
Float64Array1D = np.ndarray[tuple[int], np.dtype[np.float64]]
Float64Array2D = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Uint8Array1D = np.ndarray[tuple[int], np.dtype[np.uint8]]
