/* Which latents may be among the strongest of a token: from exact products, or by products in bf16. */
#include "lists.h"

#define GROUP 16 /* pre-activations that are looked at together */

/* Adds a block of exact pre-activations z (rows, width) to the empty lists of `rows` tokens. */
EXPORT void scan(const float *z, i64 rows, i64 width, const Lists *lists, i64 threads) {
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(rows, 1);
        for (i64 row = first; row < last; row++) {
            lists->counts[row] = 0;
            lists->least[row] = NAN;
            for (i64 start = 0; start < width; start += GROUP) {
                const float *at = z + row * width + start, least = lists->least[row];
                const i32 n = width - start < GROUP ? (i32)(width - start) : GROUP;
                i32 any = 0;
                if (n == GROUP) {
#pragma omp simd reduction(| : any)
                    for (i32 c = 0; c < GROUP; c++) any |= !(at[c] <= least);
                }
                if (n == GROUP && !any) continue;
                float *values = lists->values + row * lists->cap;
                i32 *latents = lists->latents + row * lists->cap, count = lists->counts[row];
                for (i32 c = 0; c < n; c++) {
                    values[count] = at[c];
                    latents[count] = (i32)(start + c);
                    count += !(at[c] <= least);
                }
                lists->counts[row] = count;
                make_room(lists, row);
            }
        }
    }
}

/* ---- candidates by bf16 products ---- */

#ifdef __AVX512BF16__
#define VECTORS 3              /* of a panel's latents, and */
#define ROWS 8                 /* tokens of a tile: 24 sums are in registers */
#define COLUMNS (16 * VECTORS) /* latents of a panel */

/* Sixteen rows of sixteen 32-bit numbers become sixteen columns. */
INLINE void transpose(__m512i r[16]) {
    __m512i t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
        r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

/* Rows of W (n <= COLUMNS of them, d wide) as bf16 pairs, panel[pair][row]; what is beyond n and d is zero. */
static void pack(const float *W, i64 n, i64 d, i64 pairs, i32 *panel) {
    for (i64 group = 0; group < COLUMNS; group += 16)
        for (i64 start = 0; start < pairs; start += 16) {
            __m512i rows[16];
            const i64 left = d - 2 * start;
            const __mmask16 low = left >= 16 ? 0xffff : (__mmask16)((1u << (left > 0 ? left : 0)) - 1);
            const __mmask16 high = left >= 32 ? 0xffff : left > 16 ? (__mmask16)((1u << (left - 16)) - 1) : 0;
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) {
                const int there = group + i < n;
                const float *at = W + (there ? group + i : 0) * d + 2 * start;
                const __m512 one = _mm512_maskz_loadu_ps(there ? low : 0, at);
                const __m512 two = _mm512_maskz_loadu_ps(there ? high : 0, at + 16);
                rows[i] = (__m512i)_mm512_cvtne2ps_pbh(two, one);
            }
            transpose(rows);
#pragma GCC unroll 16
            for (int i = 0; i < 16; i++) _mm512_store_si512(panel + (start + i) * COLUMNS + group, rows[i]);
        }
}

/* Adds to a list those of the pre-activations z of latents from `column` on that are marked. */
static void note(const Lists *lists, i64 row, i32 column, const __m512 *z, const __mmask16 *found) {
    const __m512i steps = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    i32 count = lists->counts[row];
    for (int c = 0; c < VECTORS; c++) {
        const i64 at = row * lists->cap + count;
        const __m512i latents = _mm512_add_epi32(_mm512_set1_epi32(column + 16 * c), steps);
        _mm512_storeu_ps(lists->values + at, _mm512_maskz_compress_ps(found[c], z[c]));
        _mm512_storeu_si512(lists->latents + at, _mm512_maskz_compress_epi32(found[c], latents));
        count += __builtin_popcount(found[c]);
    }
    lists->counts[row] = count;
    make_room(lists, row);
}

/* Products of `rows` tokens x (bf16 pairs) with a panel; those that may matter go into the lists. */
INLINE void tile(const int rows, const i32 *x, i64 pairs, const i32 *panel, const float *bias, const __mmask16 *there,
                 i64 row, i32 column, const Lists *lists) {
    __m512 sums[ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 16
        for (int c = 0; c < VECTORS; c++) sums[r][c] = _mm512_setzero_ps();
    for (i64 p = 0; p < pairs; p++) {
        __m512bh w[VECTORS];
#pragma GCC unroll 16
        for (int c = 0; c < VECTORS; c++) w[c] = (__m512bh)_mm512_load_si512(panel + p * COLUMNS + 16 * c);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            const __m512bh one = (__m512bh)_mm512_set1_epi32(x[r * pairs + p]);
#pragma GCC unroll 16
            for (int c = 0; c < VECTORS; c++) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], one, w[c]);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        const __m512 least = _mm512_set1_ps(lists->least[row + r]);
        __m512 z[VECTORS];
        __mmask16 found[VECTORS], any = 0;
#pragma GCC unroll 16
        for (int c = 0; c < VECTORS; c++) {
            z[c] = _mm512_add_ps(sums[r][c], _mm512_loadu_ps(bias + 16 * c));
            found[c] = _mm512_mask_cmp_ps_mask(there[c], z[c], least, _CMP_NLE_UQ); /* or not a number */
            any |= found[c];
        }
        if (__builtin_expect(any, 0)) note(lists, row + r, column, z, found);
    }
}

/* Fills the lists of `tokens` tokens x (tokens, pairs of bf16) with their strongest latents, by products in bf16.
   W (width, d); pairs is (d + 1) / 2 rounded up to 16; panels has COLUMNS * pairs numbers for each thread. */
EXPORT void candidates(const i32 *x, i64 tokens, i64 pairs, const float *W, const float *bias, i64 width, i64 d,
                       const Lists *lists, i32 *panels, i64 threads) {
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(tokens, ROWS);
        i32 *panel = panels + omp_get_thread_num() * COLUMNS * pairs;
        for (i64 row = first; row < last; row++) lists->counts[row] = 0, lists->least[row] = NAN;
        for (i64 column = 0; column < width && first < last; column += COLUMNS) {
            const i64 n = width - column < COLUMNS ? width - column : COLUMNS;
            float biases[COLUMNS];
            __mmask16 there[VECTORS];
            for (i64 c = 0; c < COLUMNS; c++) biases[c] = c < n ? bias[column + c] : 0;
            for (i64 c = 0; c < VECTORS; c++)
                there[c] = n >= 16 * c + 16 ? 0xffff : n > 16 * c ? (__mmask16)((1u << (n - 16 * c)) - 1) : 0;
            pack(W + column * d, n, d, pairs, panel);
            i64 row = first;
#define TILE(rows) tile(rows, x + row * pairs, pairs, panel, biases, there, row, (i32)column, lists)
            for (; row + ROWS <= last; row += ROWS) TILE(ROWS);
            for (; row < last; row++) TILE(1);
        }
    }
}
#endif

/* Whether there is `candidates`. */
EXPORT i64 has_bf16(void) {
#ifdef __AVX512BF16__
    return 1;
#else
    return 0;
#endif
}

/* centred = x - b_dec (as it is without b_dec), and the same in bf16 where `halves` (tokens, stride) is given. */
EXPORT void centre(const float *x, const float *b_dec, i64 tokens, i64 d, float *centred, uint16_t *halves, i64 stride,
                   i64 threads) {
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(tokens, 1);
        for (i64 i = first; i < last; i++) {
            float *row = centred + i * d;
            if (b_dec) {
#pragma omp simd
                for (i64 c = 0; c < d; c++) row[c] = x[i * d + c] - b_dec[c];
            } else if (centred != x) {
                memcpy(row, x + i * d, d * sizeof *row);
            }
            if (!halves) continue;
            uint16_t *half = halves + i * stride;
#pragma omp simd
            for (i64 c = 0; c < d; c++) { /* to nearest even; not a number stays one */
                uint32_t bits;
                memcpy(&bits, row + c, 4);
                const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
                half[c] = (uint16_t)(row[c] != row[c] ? 0x7fc0 : rounded);
            }
            memset(half + d, 0, (stride - d) * sizeof *half);
        }
    }
}
