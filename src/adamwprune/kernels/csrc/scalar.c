/* SPDX-License-Identifier: MIT */
/* Any processor: the compiler's baseline instruction set. */
#include "generic.h"

void adamw_block_scalar(const adamw_tensor *t, int64_t block)
{
    step_block(t, block);
}
