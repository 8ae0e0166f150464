/* The strongest latents, of each token or of the whole batch, out of the lists of candidates. */
#include "lists.h"

#define MARGIN 8.0f /* in roots of the mean squared error of bf16 products */

static void rescore(const float *x, const float *W, const float *bias, i64 d, const i32 *latents, i32 n, float *exact) {
    dots(x, W, d, latents, n, exact);
    for (i32 e = 0; e < n; e++) exact[e] += bias[latents[e]];
}

/* The k strongest latents of each token, after ReLU, out of its list: values and latents (tokens, k); where the list
   has fewer, latent 0 with value 0 stands in. With W the lists hold products in bf16: the k strongest of them are
   computed again in float32, and so is everything that could still be among the k, by the errors that were seen.
   Returns on how many tokens something could be missing from the list. */
EXPORT i64 strongest(const float *x, i64 tokens, const float *W, const float *bias, i64 d, i64 most,
                     const Lists *lists, float *values, i32 *latents, i64 threads) {
    const i32 k = (i32)most;
    i64 unsure = 0;
#pragma omp parallel num_threads((int)threads) reduction(+ : unsure)
    {
        SHARE(tokens, 1);
        const i32 cap = lists->cap;
        float exact[cap], guess[cap];
        i32 chosen[cap], keys[cap];
        for (i64 row = first; row < last; row++) {
            float *list = lists->values + row * cap;
            i32 *at = lists->latents + row * cap, n = lists->counts[row];
            if (W) {
                for (i32 e = 0; e < n; e++) keys[e] = key_of(list[e]);
                Cut cut = cut_of(keys, n, k, 0);
                i32 taken = 0, left = 0;
                for (i32 e = 0; e < n; e++) { /* the k strongest first, then the others, each in their order */
                    const i32 tie = keys[e] == cut.above && cut.ties > 0;
                    cut.ties -= tie;
                    if (keys[e] > cut.above || tie) {
                        chosen[taken] = at[e], guess[taken++] = list[e];
                    } else {
                        at[left] = at[e], list[left++] = list[e];
                    }
                }
                rescore(x + row * d, W, bias, d, chosen, taken, exact);
                float squared = 0, worst = INFINITY;
                for (i32 e = 0; e < taken; e++) {
                    const float error = exact[e] - guess[e];
                    squared += error * error;
                    worst = exact[e] < worst ? exact[e] : worst;
                }
                const float bound = worst - MARGIN * sqrtf(squared / (float)(taken ? taken : 1));
                const i32 before = taken;
                for (i32 e = 0; e < left; e++)
                    if (!(list[e] < bound)) chosen[taken++] = at[e];
                rescore(x + row * d, W, bias, d, chosen + before, taken - before, exact + before);
                unsure += lists->least[row] > bound;
                n = taken;
            } else {
                memcpy(exact, list, n * sizeof *exact);
                memcpy(chosen, at, n * sizeof *chosen);
            }
            for (i32 e = 0; e < n; e++) keys[e] = key_of(exact[e]);
            n = compact(keys, cut_of(keys, n, k, 0), n, exact, chosen);
            for (i32 e = 0; e < k; e++) {
                values[row * k + e] = e < n && !(exact[e] <= 0) ? exact[e] : 0;
                latents[row * k + e] = e < n ? chosen[e] : 0;
            }
        }
    }
    return unsure;
}

/* The key of the want-th largest value in the lists, of which only the `most` best of a token count. keys has
   tokens * most places. */
EXPORT i64 kth_key(i64 tokens, i64 most, i64 want, const Lists *lists, i32 *keys, i64 threads) {
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(tokens, 1);
        i32 all[lists->cap];
        for (i64 row = first; row < last; row++) {
            const i32 n = lists->counts[row];
            for (i32 e = 0; e < n; e++) all[e] = key_of(lists->values[row * lists->cap + e]);
            Cut cut = cut_of(all, n, (i32)most, 0);
            i32 kept = 0;
            for (i32 e = 0; e < n; e++) {
                const i32 tie = all[e] == cut.above && cut.ties > 0;
                cut.ties -= tie;
                if (all[e] > cut.above || tie) keys[row * most + kept++] = all[e];
            }
            for (; kept < most; kept++) keys[row * most + kept] = INT32_MIN;
        }
    }
    /* eleven bits, eleven, ten: how many keys there are with each, from the largest down */
    uint32_t found = 0, known = 0;
    const int shifts[3] = {21, 10, 0}, bits[3] = {11, 11, 10};
    for (int stage = 0; stage < 3; stage++) {
        i64 counts[1 << 11];
        memset(counts, 0, sizeof counts);
        const uint32_t mask = (1u << bits[stage]) - 1;
        for (i64 i = 0; i < tokens * most; i++) {
            const uint32_t key = (uint32_t)keys[i] ^ 0x80000000u;
            if ((key & known) == found) counts[key >> shifts[stage] & mask]++;
        }
        uint32_t bucket = mask;
        while (bucket > 0 && counts[bucket] < want) want -= counts[bucket--];
        found |= bucket << shifts[stage];
        known |= mask << shifts[stage];
    }
    return (i32)(found ^ 0x80000000u);
}

/* Computes again, in float32, what has at least the key `bound`; leaves only that in the lists, the `most` best. */
EXPORT void rescore_above(const float *x, i64 tokens, const float *W, const float *bias, i64 d, i64 bound, i64 most,
                          const Lists *lists, i64 threads) {
#pragma omp parallel num_threads((int)threads)
    {
        SHARE(tokens, 1);
        for (i64 row = first; row < last; row++) {
            float *list = lists->values + row * lists->cap;
            i32 *at = lists->latents + row * lists->cap, n = 0;
            for (i32 e = 0; e < lists->counts[row]; e++)
                if (key_of(list[e]) >= bound) at[n] = at[e], list[n++] = list[e];
            if (W) rescore(x + row * d, W, bias, d, at, n, list);
            lists->counts[row] = n;
            shrink(lists, row, (i32)most, 0);
        }
    }
}

/* Entries with a key above `bound`, after ReLU, and the first that are equal to it, `want` altogether, token by token:
   values and latents (want,), starts (tokens + 1,). */
EXPORT void gather(i64 tokens, i64 bound, i64 want, const Lists *lists, float *values, i32 *latents, i32 *starts,
                   i64 threads) {
    (void)threads;
    i64 above = 0, n = 0;
    for (i64 row = 0; row < tokens; row++)
        for (i32 e = 0; e < lists->counts[row]; e++) above += key_of(lists->values[row * lists->cap + e]) > bound;
    i64 ties = want - above;
    for (i64 row = 0; row < tokens; row++) {
        starts[row] = (i32)n;
        for (i32 e = 0; e < lists->counts[row]; e++) {
            const float value = lists->values[row * lists->cap + e];
            const i32 key = key_of(value), tie = key == bound && ties > 0;
            ties -= tie;
            if (n == want || !(key > bound || tie)) continue;
            values[n] = value <= 0 ? 0 : value;
            latents[n++] = lists->latents[row * lists->cap + e];
        }
    }
    starts[tokens] = (i32)n;
}
