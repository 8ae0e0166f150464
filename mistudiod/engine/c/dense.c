/* What lies between the products of autoencoders that may activate any number of latents: one pass each over a block
   (rows, width). Threads share out columns, so that each sum over rows is one thread's. Sums are added to. */
#include "common.h"

#define CHUNK 256 /* columns: their sums stay in the nearest cache */

#define FOR_CHUNKS                                                                                                     \
    SHARE(width, CHUNK);                                                                                               \
    for (i64 from = first; from < last; from += CHUNK)

#define END (from + CHUNK < last ? from + CHUNK : last)

/* z becomes f = ReLU(z + bias); how often each latent fires, and the sum of f. */
EXPORT void relu(float *z, i64 rows, i64 width, const float *bias, i32 *fired, float *sums, i64 threads) {
#pragma omp parallel num_threads((int)threads)
    {
        FOR_CHUNKS {
            for (i64 i = 0; i < rows; i++) {
                float *row = z + i * width;
#pragma omp simd
                for (i64 c = from; c < END; c++) {
                    const float pre = row[c] + bias[c], f = pre <= 0 ? 0 : pre;
                    row[c] = f;
                    fired[c] += f > 0;
                    sums[c] += f;
                }
            }
        }
    }
}

/* The gradient of f, `more` added, becomes that of z; its sum is that of the bias. */
EXPORT void relu_back(float *grad, const float *f, i64 rows, i64 width, double more, float *sums, i64 threads) {
    const float l1 = (float)more;
#pragma omp parallel num_threads((int)threads)
    {
        FOR_CHUNKS {
            for (i64 i = 0; i < rows; i++) {
                float *row = grad + i * width;
                const float *of = f + i * width;
#pragma omp simd
                for (i64 c = from; c < END; c++) {
                    const float g = of[c] > 0 ? row[c] + l1 : 0;
                    row[c] = g;
                    sums[c] += g;
                }
            }
        }
    }
}

/* z gets its bias; f = z where it is above the threshold, else 0; how often that is. */
EXPORT void jump(float *z, float *f, i64 rows, i64 width, const float *bias, const float *threshold, i32 *fired,
                 i64 threads) {
#pragma omp parallel num_threads((int)threads)
    {
        FOR_CHUNKS {
            for (i64 i = 0; i < rows; i++) {
                float *row = z + i * width, *to = f + i * width;
#pragma omp simd
                for (i64 c = from; c < END; c++) {
                    const float pre = row[c] + bias[c];
                    const i32 fires = !(pre <= threshold[c]);
                    row[c] = pre;
                    to[c] = fires ? pre : 0;
                    fired[c] += fires;
                }
            }
        }
    }
}

/* The gradient of f becomes that of z, through what fires; sums, over the window |z - threshold| < width_of / 2: of
   the gradient, and how many there are. */
EXPORT void jump_back(float *grad, const float *z, i64 rows, i64 width, const float *threshold, double width_of,
                      float *sums, float *in_window, float *counts, i64 threads) {
    const float half = (float)(width_of / 2);
#pragma omp parallel num_threads((int)threads)
    {
        FOR_CHUNKS {
            for (i64 i = 0; i < rows; i++) {
                float *row = grad + i * width;
                const float *pre = z + i * width;
#pragma omp simd
                for (i64 c = from; c < END; c++) {
                    const float far = fabsf(pre[c] - threshold[c]), near = far < half ? 1.0f : 0.0f;
                    const float g = !(pre[c] <= threshold[c]) ? row[c] : 0;
                    in_window[c] += near * row[c];
                    counts[c] += near;
                    row[c] = g;
                    sums[c] += g;
                }
            }
        }
    }
}

/* From the product a: gate = ReLU(a + bias), f = ReLU(a scale + magnitude) where the gate is open; how often f fires,
   and the sum of the gate. */
EXPORT void gates(const float *a, float *gate, float *f, i64 rows, i64 width, const float *bias, const float *scale,
                  const float *magnitude, i32 *fired, float *sums, i64 threads) {
#pragma omp parallel num_threads((int)threads)
    {
        FOR_CHUNKS {
            for (i64 i = 0; i < rows; i++) {
                const float *row = a + i * width;
                float *open = gate + i * width, *to = f + i * width;
#pragma omp simd
                for (i64 c = from; c < END; c++) {
                    const float pre = row[c] + bias[c], strength = row[c] * scale[c] + magnitude[c];
                    const float value = pre <= 0 || strength <= 0 ? 0 : strength;
                    open[c] = pre <= 0 ? 0 : pre;
                    to[c] = value;
                    fired[c] += value > 0;
                    sums[c] += open[c];
                }
            }
        }
    }
}

/* The gradients of f and of the gate, `more` added to the latter, become that of a, in place of f's; their sums are
   those of bias and magnitude, and that of the logarithm of the scale. */
EXPORT void gates_back(float *grad, const float *gate_grad, const float *a, const float *gate, const float *f, i64 rows,
                       i64 width, double more, const float *scale, float *bias, float *magnitude, float *log_scale,
                       i64 threads) {
    const float l1 = (float)more;
#pragma omp parallel num_threads((int)threads)
    {
        FOR_CHUNKS {
            for (i64 i = 0; i < rows; i++) {
                float *row = grad + i * width;
                const float *by_gate = gate_grad + i * width, *at = a + i * width;
                const float *open = gate + i * width, *of = f + i * width;
#pragma omp simd
                for (i64 c = from; c < END; c++) {
                    const float g = open[c] > 0 ? by_gate[c] + l1 : 0, to = of[c] > 0 ? row[c] : 0;
                    const float scaled = to * scale[c];
                    bias[c] += g;
                    magnitude[c] += to;
                    log_scale[c] += scaled * at[c];
                    row[c] = g + scaled;
                }
            }
        }
    }
}
