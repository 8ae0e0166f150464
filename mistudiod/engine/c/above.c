/* The pre-activations of a block that are above the limits of their latents: those of the latents that fire. */
#include "common.h"

#define GROUP 16 /* columns that are looked at together */

/* counts[i] = how many of the row z_i (width) are above the limits of their columns; not a number never is. */
EXPORT void count_above(const float *z, i64 rows, i64 width, const float *limits, i64 *counts, i64 threads) {
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(rows, 1);
        for (i64 row = first; row < last; row++) {
            const float *at = z + row * width;
            i32 count = 0;
#pragma omp simd reduction(+ : count)
            for (i64 c = 0; c < width; c++) count += at[c] > limits[c];
            counts[row] = count;
        }
    }
}

/* Writes them and their columns, those of row i from starts[i] on. */
EXPORT void take_above(const float *z, i64 rows, i64 width, const float *limits, const i64 *starts, float *values,
                       i32 *latents, i64 threads) {
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(rows, 1);
        for (i64 row = first; row < last; row++) {
            const float *at = z + row * width;
            i64 n = starts[row], c = 0;
#ifdef __AVX512F__
            const __m512i steps = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
            for (; c + GROUP <= width; c += GROUP) {
                const __m512 some = _mm512_loadu_ps(at + c);
                const __mmask16 found = _mm512_cmp_ps_mask(some, _mm512_loadu_ps(limits + c), _CMP_GT_OQ);
                if (!found) continue;
                const int taken = __builtin_popcount(found);
                const __mmask16 places = (__mmask16)((1u << taken) - 1); /* not one more: the next row's are there */
                const __m512i columns = _mm512_add_epi32(_mm512_set1_epi32((i32)c), steps);
                _mm512_mask_storeu_ps(values + n, places, _mm512_maskz_compress_ps(found, some));
                _mm512_mask_storeu_epi32(latents + n, places, _mm512_maskz_compress_epi32(found, columns));
                n += taken;
            }
#endif
            for (; c + GROUP <= width; c += GROUP) {
                i32 any = 0;
#pragma omp simd reduction(| : any)
                for (i64 i = c; i < c + GROUP; i++) any |= at[i] > limits[i];
                if (!any) continue;
                for (i64 i = c; i < c + GROUP; i++)
                    if (at[i] > limits[i]) values[n] = at[i], latents[n++] = (i32)i;
            }
            for (; c < width; c++)
                if (at[c] > limits[c]) values[n] = at[c], latents[n++] = (i32)c;
        }
    }
}
