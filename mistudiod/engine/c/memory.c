/* Memory in large pages: rows are read in no order, and with small pages most of them miss the tables of pages. */
#include "common.h"
#include <sys/mman.h>

#define PAGE (2 << 20)
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; older kernels refuse it, and make what is not yet touched large all the same */
#endif

EXPORT void use_large_pages(void *memory, i64 bytes, i64 threads) {
    (void)threads;
#ifdef MADV_HUGEPAGE
    const uintptr_t first = ((uintptr_t)memory + PAGE - 1) / PAGE * PAGE, end = ((uintptr_t)memory + bytes) / PAGE * PAGE;
    if (end <= first || madvise((void *)first, end - first, MADV_HUGEPAGE)) return;
    madvise((void *)first, end - first, MADV_COLLAPSE);
#endif
}
