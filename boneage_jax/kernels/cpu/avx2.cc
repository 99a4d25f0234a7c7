// The kernels for processors with AVX2, FMA and F16C; the compiler flags in setup.py choose the instructions.
#include "calls.h"
