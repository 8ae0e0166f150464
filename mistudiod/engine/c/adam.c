#include "common.h"

/* One step on p (rows, d), as torch.optim.Adam makes it; the gradient of a row is zero where `zero` says so. With
   `unit` the rows are given norm 1 afterwards. */
EXPORT void adam(float *p, const float *gradient, float *m, float *v, i64 rows, i64 d, const uint8_t *zero, double clip,
                 double lr, double beta1, double beta2, double correction1, double correction2, double eps, i64 unit,
                 i64 threads) {
    const float to_m = (float)(1 - beta1), to_v = (float)(1 - beta2), keep_v = (float)beta2, scale = (float)clip;
    const float size = (float)(lr / correction1), root_correction = (float)sqrt(correction2), epsilon = (float)eps;
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(rows, 1);
        for (i64 j = first; j < last; j++) {
            float *pj = p + j * d, *mj = m + j * d, *vj = v + j * d, sum = 0;
            const float *gj = gradient + j * d;
            if (zero && zero[j]) {
#pragma omp simd reduction(+ : sum)
                for (i64 c = 0; c < d; c++) {
                    mj[c] += to_m * (0 - mj[c]);
                    vj[c] *= keep_v;
                    pj[c] -= size * (mj[c] / (sqrtf(vj[c]) / root_correction + epsilon));
                    sum += pj[c] * pj[c];
                }
            } else {
#pragma omp simd reduction(+ : sum)
                for (i64 c = 0; c < d; c++) {
                    const float g = gj[c] * scale;
                    mj[c] += to_m * (g - mj[c]);
                    vj[c] = vj[c] * keep_v + to_v * g * g;
                    pj[c] -= size * (mj[c] / (sqrtf(vj[c]) / root_correction + epsilon));
                    sum += pj[c] * pj[c];
                }
            }
            if (!unit) continue;
            const float norm = sqrtf(sum), inverse = 1 / (norm > 1e-12f ? norm : 1e-12f);
#pragma omp simd
            for (i64 c = 0; c < d; c++) pj[c] *= inverse;
        }
    }
}
