/* The strongest latents of each token, by lists of those that may be among them: `cap` places a token, `counts` of them
   used, and `least`, at or below which others may be missing from the list; not a number while none is. */
#include "common.h"

#define SLACK 80 /* places that are free in a list before a panel is looked at, and a vector more */

/* Integers in the order of the floats; not a number is the largest. */
INLINE i32 key_of(float v) {
    i32 bits;
    memcpy(&bits, &v, 4);
    bits ^= (bits >> 31) & 0x7fffffff;
    return v != v ? INT32_MAX : bits;
}

INLINE float of_key(i32 key) {
    const i32 infinite = 0x7f800000;
    i32 bits = key > infinite ? infinite : key;
    float v;
    bits ^= (bits >> 31) & 0x7fffffff;
    memcpy(&v, &bits, 4);
    return v;
}

typedef struct {
    i32 above; /* keys larger than this are taken, */
    i32 ties;  /* and the first so many that are equal to it */
} Cut;

/* Takes the `want` largest of n keys, or up to `slack` more when that is found sooner. */
static inline Cut cut_of(const i32 *keys, i32 n, i32 want, i32 slack) {
    if (n <= want) return (Cut){INT32_MIN, 0}; /* INT32_MIN is no float's key */
    i32 low = INT32_MAX, high = INT32_MIN;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (i32 i = 0; i < n; i++) {
        low = keys[i] < low ? keys[i] : low;
        high = keys[i] > high ? keys[i] : high;
    }
    low -= 1; /* more than want + slack are above low (all are), fewer than want above high */
    i32 above_high = 0;
    if (n <= want + slack) return (Cut){low, 0};
    while ((uint32_t)high - (uint32_t)low > 1) {
        const i32 middle = low + (i32)(((uint32_t)high - (uint32_t)low) / 2);
        i32 above = 0;
#pragma omp simd reduction(+ : above)
        for (i32 i = 0; i < n; i++) above += keys[i] > middle;
        if (above < want) {
            high = middle, above_high = above;
        } else if (above <= want + slack) {
            return (Cut){middle, 0};
        } else {
            low = middle;
        }
    }
    return (Cut){high, want - above_high};
}

/* Keeps what `cut` takes of n entries, in their order; returns how many. */
static inline i32 compact(const i32 *keys, Cut cut, i32 n, float *values, i32 *latents) {
    i32 kept = 0, ties = cut.ties, i = 0;
#ifdef __AVX512F__
    if (!ties)
        for (; i + 16 <= n; i += 16) { /* what is written never passes what is read */
            const __mmask16 take = _mm512_cmpgt_epi32_mask(_mm512_loadu_si512(keys + i), _mm512_set1_epi32(cut.above));
            const __m512i old = _mm512_loadu_si512(latents + i);
            _mm512_storeu_ps(values + kept, _mm512_maskz_compress_ps(take, _mm512_loadu_ps(values + i)));
            _mm512_storeu_si512(latents + kept, _mm512_maskz_compress_epi32(take, old));
            kept += __builtin_popcount(take);
        }
#endif
    for (; i < n; i++) {
        const i32 tie = keys[i] == cut.above && ties > 0, take = keys[i] > cut.above || tie;
        values[kept] = values[i];
        latents[kept] = latents[i];
        ties -= tie;
        kept += take;
    }
    return kept;
}

/* ---- lists ---- */

typedef struct {
    float *values;
    i32 *latents, *counts;
    float *least;
    i32 cap, keep;
} Lists;

static __attribute__((noinline)) void shrink(const Lists *lists, i64 row, i32 keep, i32 slack) {
    float *values = lists->values + row * lists->cap;
    i32 *latents = lists->latents + row * lists->cap;
    const i32 n = lists->counts[row];
    if (n <= keep) return;
    i32 keys[n];
    for (i32 i = 0; i < n; i++) keys[i] = key_of(values[i]);
    const Cut cut = cut_of(keys, n, keep, slack);
    lists->counts[row] = compact(keys, cut, n, values, latents);
    const float bound = of_key(cut.above);
    if (!(bound <= lists->least[row])) lists->least[row] = bound;
}

INLINE void make_room(const Lists *lists, i64 row) {
    if (lists->counts[row] > lists->cap - SLACK) shrink(lists, row, lists->keep, lists->keep / 8);
}
