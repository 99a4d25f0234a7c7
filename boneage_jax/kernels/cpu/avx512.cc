// The kernels for processors with AVX-512 with bfloat16 products; the compiler flags in setup.py choose the instructions.
#include "calls.h"
