/*  Memory that is kept from one time to the next: see kept.h.  */
#include "kept.h"
#include "tape.h"

#include <stdint.h>
#include <stdlib.h>

/* In front of what is lent, and as aligned. */
typedef union {
    size_t bytes;
    max_align_t any;
} block;

void *tg_borrow(tg_kept *kept, size_t bytes)
{
    block *old = atomic_exchange(&kept->block, NULL), *own = NULL;
    if (old && old->bytes < bytes) {
        free(old);
        old = NULL;
    }
    if (bytes <= SIZE_MAX - sizeof *own)
        own = tg_realloc(old, sizeof *own + (old ? old->bytes : bytes));
    if (!own)
        free(old);
    else if (!old)
        own->bytes = bytes;
    return own ? own + 1 : NULL;
}

void tg_give_back(tg_kept *kept, void *memory)
{
    block *own = memory ? (block *)memory - 1 : NULL;
    if (own && own->bytes <= TG_KEPT_BYTES)
        own = atomic_exchange(&kept->block, own);       /* what was there meanwhile */
    free(own);
}
