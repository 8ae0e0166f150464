/* What the files beside this one share: they are one shared object, made and loaded by engine/native.py.

   All matrices are row-major float32 unless said otherwise. Rows, of tokens or of latents, are shared out to threads in
   one piece each, and every sum is made by one thread in one order: the same inputs give the same bits with any number
   of threads. */
#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

typedef int64_t i64;
typedef int32_t i32;

#define EXPORT __attribute__((visibility("default")))
#define INLINE static inline __attribute__((always_inline))

/* Thread t of n works on [first, last) of `count`, in multiples of `step`. */
#define SHARE(count, step)                                                                                             \
    const i64 pieces_ = ((count) + (step) - 1) / (step), n_ = omp_get_num_threads(), t_ = omp_get_thread_num();        \
    const i64 first = pieces_ * t_ / n_ * (step);                                                                      \
    const i64 end_ = pieces_ * (t_ + 1) / n_ * (step), last = end_ < (count) ? end_ : (count)

INLINE float dot(const float *a, const float *b, i64 d) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 c = 0; c < d; c++) sum += a[c] * b[c];
    return sum;
}

/* out[e] = <x, W[latents[e]]>, four at a time, the rows after them on their way from memory. */
static inline void dots(const float *x, const float *W, i64 d, const i32 *latents, i32 n, float *out) {
    i32 e = 0;
    for (; e + 4 <= n; e += 4) {
        const float *w[4], *next[4];
        float sums[4] = {0, 0, 0, 0};
        for (int i = 0; i < 4; i++) {
            w[i] = W + latents[e + i] * d;
            next[i] = W + latents[e + 4 + i < n ? e + 4 + i : e + i] * d;
        }
        float s0 = 0, s1 = 0, s2 = 0, s3 = 0;
        i64 start = 0;
        for (; start + 64 <= d; start += 64) {
            for (int i = 0; i < 4; i++)
                for (int line = 0; line < 64; line += 16) __builtin_prefetch(next[i] + start + line);
#pragma omp simd reduction(+ : s0, s1, s2, s3)
            for (i64 c = start; c < start + 64; c++) {
                s0 += x[c] * w[0][c];
                s1 += x[c] * w[1][c];
                s2 += x[c] * w[2][c];
                s3 += x[c] * w[3][c];
            }
        }
        sums[0] = s0, sums[1] = s1, sums[2] = s2, sums[3] = s3;
        for (int i = 0; i < 4; i++) out[e + i] = sums[i] + dot(x + start, w[i] + start, d - start);
    }
    for (; e < n; e++) out[e] = dot(x, W + latents[e] * d, d);
}
