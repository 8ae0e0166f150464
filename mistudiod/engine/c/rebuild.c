/* The reconstruction and the gradients, from the active latents of each token. */
#include "common.h"

/* sum += a0 w0 + a1 w1 + a2 w2 + a3 w3, while the rows `next` are on their way. */
INLINE void add_four(float *sum, const float a[4], const float *const w[4], const float *const next[4], i64 d) {
    const float a0 = a[0], a1 = a[1], a2 = a[2], a3 = a[3];
    i64 start = 0;
    for (; start + 64 <= d; start += 64) {
        for (int i = 0; i < 4; i++)
            for (int line = 0; line < 64; line += 16) __builtin_prefetch(next[i] + start + line);
#pragma omp simd
        for (i64 c = start; c < start + 64; c++) sum[c] += a0 * w[0][c] + a1 * w[1][c] + a2 * w[2][c] + a3 * w[3][c];
    }
    for (i64 c = start; c < d; c++) sum[c] += a0 * w[0][c] + a1 * w[1][c] + a2 * w[2][c] + a3 * w[3][c];
}

/* sum += weights[e] table[rows[e]] for n entries */
static void add_rows(float *sum, const float *table, i64 d, const i32 *rows, const float *weights, i64 n) {
    i64 e = 0;
    for (; e + 4 <= n; e += 4) {
        const float *w[4], *next[4];
        for (int i = 0; i < 4; i++) {
            w[i] = table + rows[e + i] * d;
            next[i] = table + rows[e + 4 + i < n ? e + 4 + i : e + i] * d;
        }
        add_four(sum, weights + e, w, next, d);
    }
    for (; e < n; e++) {
        const float *w = table + rows[e] * d, a = weights[e];
#pragma omp simd
        for (i64 c = 0; c < d; c++) sum[c] += a * w[c];
    }
}

/* out = sum over tokens of x (tokens, d), in pieces of PIECE tokens that `sums` (pieces, d) has room for. */
#define PIECE 64
EXPORT void column_sums(const float *x, i64 tokens, i64 d, float *sums, double *total, float *out, i64 threads) {
    const i64 pieces = (tokens + PIECE - 1) / PIECE;
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(pieces, 1);
        for (i64 piece = first; piece < last; piece++) {
            float *sum = sums + piece * d;
            memset(sum, 0, d * sizeof *sum);
            for (i64 i = piece * PIECE; i < tokens && i < (piece + 1) * PIECE; i++)
#pragma omp simd
                for (i64 c = 0; c < d; c++) sum[c] += x[i * d + c];
        }
    }
    memset(total, 0, d * sizeof *total);
    for (i64 piece = 0; piece < pieces; piece++)
        for (i64 c = 0; c < d; c++) total[c] += sums[piece * d + c];
    for (i64 c = 0; c < d; c++) out[c] = (float)total[c];
}

/* squares[i] = ||x_i - mean||^2 */
EXPORT void squares_about(const float *x, const float *mean, i64 tokens, i64 d, float *squares, i64 threads) {
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(tokens, 1);
        for (i64 i = first; i < last; i++) {
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (i64 c = 0; c < d; c++) sum += (x[i * d + c] - mean[c]) * (x[i * d + c] - mean[c]);
            squares[i] = sum;
        }
    }
}

/* residual = (residual where `add`, else 0) + base + sum of value W[latent] over the token's entries - y, where base
   and y may be missing; squares = ||residual||^2; with value_grads, those are factor <residual, W[latent]>. */
EXPORT void decode(const float *values, const i32 *latents, const i32 *starts, i64 tokens, const float *W,
                   const float *base, const float *y, i64 d, i64 add, double scale, float *residual, float *squares,
                   float *value_grads, i64 threads) {
    const float factor = (float)scale;
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(tokens, 1);
        for (i64 i = first; i < last; i++) {
            float *row = residual + i * d, sum = 0;
            if (!add) memset(row, 0, d * sizeof *row);
            if (base)
#pragma omp simd
                for (i64 c = 0; c < d; c++) row[c] += base[c];
            if (y)
#pragma omp simd
                for (i64 c = 0; c < d; c++) row[c] -= y[i * d + c];
            const i32 at = starts[i], n = starts[i + 1] - at;
            add_rows(row, W, d, latents + at, values + at, n);
#pragma omp simd reduction(+ : sum)
            for (i64 c = 0; c < d; c++) sum += row[c] * row[c];
            squares[i] = sum;
            if (!value_grads) continue;
            dots(row, W, d, latents + at, n, value_grads + at);
            for (i32 e = at; e < at + n; e++) value_grads[e] = values[e] <= 0 ? 0 : factor * value_grads[e];
        }
    }
}

/* Of a loss with levels, the way back through the latents [from, to): their value_grads, given the gradient of their
   sum (tokens, d), up to `factor`; and what they added is taken from `missing`, whose squares are written. */
EXPORT void undo_level(const float *values, const i32 *latents, const i32 *starts, i64 tokens, const float *W, i64 d,
                       i64 from, i64 to, double scale, const float *gradient, float *missing, float *squares,
                       float *value_grads, i64 threads) {
    const float factor = (float)scale;
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(tokens, 1);
        for (i64 i = first; i < last; i++) {
            float *row = missing + i * d, sum = 0;
            for (i32 e = starts[i]; e < starts[i + 1]; e++) {
                if (latents[e] < from || latents[e] >= to) continue;
                const float *w = W + latents[e] * d, value = values[e];
                value_grads[e] = value <= 0 ? 0 : factor * dot(gradient + i * d, w, d);
#pragma omp simd
                for (i64 c = 0; c < d; c++) row[c] -= value * w[c];
            }
#pragma omp simd reduction(+ : sum)
            for (i64 c = 0; c < d; c++) sum += row[c] * row[c];
            squares[i] = sum;
        }
    }
}

/* ---- gradients of the weights ---- */

/* Entries that fire, in order of latent and token: of latent j, places edges[j] to edges[j + 1] of `order` (positions
   among the entries) and of `owners` (their tokens). */
EXPORT void by_latent(const float *values, const i32 *latents, const i32 *starts, i64 tokens, i64 width, i32 *order,
                      i32 *owners, i32 *edges, i64 threads) {
    (void)threads;
    memset(edges, 0, (width + 1) * sizeof *edges);
    const i32 n = starts[tokens];
    for (i32 e = 0; e < n; e++) edges[latents[e]] += !(values[e] <= 0);
    i32 before = 0;
    for (i64 j = 0; j <= width; j++) { /* the end of each latent's places for now */
        before += edges[j];
        edges[j] = before;
    }
    for (i64 i = tokens - 1; i >= 0; i--)
        for (i32 e = starts[i + 1] - 1; e >= starts[i]; e--) {
            if (values[e] <= 0) continue;
            const i32 at = --edges[latents[e]];
            order[at] = e;
            owners[at] = (i32)i;
        }
}

/* To memory without reading it first: a gradient is next read by another pass. */
INLINE void write_row(float *out, const float *row, i64 d) {
#ifdef __AVX512F__
    if (((uintptr_t)out & 63) == 0 && d % 16 == 0) {
        for (i64 c = 0; c < d; c += 16) _mm512_stream_ps(out + c, _mm512_loadu_ps(row + c));
        return;
    }
#endif
    memcpy(out, row, d * sizeof *out);
}

/* First of the latents [from, to] before which there is at least `share` of the work. */
static i64 boundary(const i32 *edges, i64 from, i64 to, double share) {
    const double all = edges[to] - edges[from] + 2.0 * (double)(to - from), wanted = share * all;
    i64 low = from, high = to;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (edges[middle] - edges[from] + 2.0 * (double)(middle - from) < wanted) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* For the latents [from, to): enc[j] = sum of value_grads x[token], bias[j] = sum of value_grads, dec[j] = factor times
   the sum of values g[token] without its component along the unit row W[j]; squares[j] is the squared norm of all
   three. A row that is zero, and was before (`zero`), is left as it is. rows has d_in + d_out + 2 n numbers for each
   thread, n at least the entries of one latent. */
EXPORT void weight_grads(const float *values, const float *value_grads, const i32 *order, const i32 *owners,
                         const i32 *edges, i64 from, i64 to, const float *x, i64 d_in, const float *g, i64 d_out,
                         double scale, const float *W, float *enc, float *bias, float *dec, float *squares,
                         uint8_t *zero, float *rows, i64 n, i64 threads) {
    const float factor = (float)scale;
#pragma omp parallel num_threads((int)threads)
    {
        const i64 team = omp_get_num_threads(), member = omp_get_thread_num();
        const i64 first = boundary(edges, from, to, (double)member / (double)team);
        const i64 last = member + 1 == team ? to : boundary(edges, from, to, (double)(member + 1) / (double)team);
        float *in = rows + member * (d_in + d_out + 2 * n), *out = in + d_in, *to_in = out + d_out, *to_out = to_in + n;
        for (i64 j = first; j < last; j++) {
            const i32 at = edges[j], entries = edges[j + 1] - at;
            if (!entries) {
                if (!zero[j]) {
                    memset(enc + j * d_in, 0, d_in * sizeof *enc);
                    memset(dec + j * d_out, 0, d_out * sizeof *dec);
                }
                zero[j] = 1;
                bias[j] = squares[j] = 0;
                continue;
            }
            float sum = 0;
            for (i32 e = 0; e < entries; e++) {
                to_in[e] = value_grads[order[at + e]];
                to_out[e] = factor * values[order[at + e]];
                sum += to_in[e];
            }
            memset(in, 0, (d_in + d_out) * sizeof *in);
            add_rows(in, x, d_in, owners + at, to_in, entries);
            add_rows(out, g, d_out, owners + at, to_out, entries);
            const float *unit = W + j * d_out, along = dot(out, unit, d_out);
#pragma omp simd
            for (i64 c = 0; c < d_out; c++) out[c] -= along * unit[c];
            squares[j] = dot(in, in, d_in) + dot(out, out, d_out) + sum * sum;
            write_row(enc + j * d_in, in, d_in);
            write_row(dec + j * d_out, out, d_out);
            bias[j] = sum;
            zero[j] = 0;
        }
#ifdef __AVX512F__
        _mm_sfence();
#endif
    }
}
