// y_i = sum_j p_ij v_j, p_ij = exp(q_i . k_j / sqrt(D)) / sum_j ...: the formulas are in attention.py.
//
// One head of one image is one piece of work. Its rows (tokens) are taken as lanes of a vector (16 or 8);
// against them stand all rows of the other side, eight at a time, whose numbers are broadcast:
//
//     dots      (rows, lanes) = a (rows, D) . b (D, lanes)         scores, and gradients of p
//     mixtures  (D, lanes)    = a (rows, D)^T . w (rows, lanes)    weighted sums of rows
//
// Scores of a vector against all rows fit into the first-level cache and never go to memory. All is
// float32, in the same order whatever the number of threads.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "numbers.h"

namespace {

const int LANES = WIDEST, ROWS = 8;
typedef Lanes<LANES>::Number Vector;
typedef Lanes<LANES>::Whole Whole;

struct Sizes {
    int64_t batch, tokens, heads, width;
    int64_t blocks() const { return (tokens + LANES - 1) / LANES; }
    int64_t padded() const { return (width + ROWS - 1) / ROWS * ROWS; }  // columns of a row
    int64_t row() const { return heads * width; }
};

inline Vector exponential(Vector x) { return exponential<Vector, Whole>(x); }

// The rows of one head, float32, padded with zeros to whole tiles and blocks: side by side, as
// they are broadcast, and one above the other, as they are lanes.
struct Rows {
    int64_t tokens, width, padded, across;
    std::vector<float> values, turned;  // (tokens, padded), (width, across)

    explicit Rows(const Sizes &n)
        : tokens(n.tokens), width(n.width), padded(n.padded()), across(n.blocks() * LANES),
          values(across * padded, 0.0f), turned(width * across, 0.0f) {}

    template <class T> void read(const T *from, int64_t stride, float scale) {
        for (int64_t t = 0; t < tokens; t++) {
            float *row = values.data() + t * padded;
            for (int64_t d = 0; d < width; d++) row[d] = load(from[t * stride + d]) * scale;
            for (int64_t d = 0; d < width; d++) turned[d * across + t] = row[d];
        }
    }

    Vector lanes(int64_t start, int64_t d) const {
        return get<LANES>(turned.data() + d * across + start);
    }
};

// The dot products of 8 rows of `a` from `first` on with a vector of `b` from `start` on.
inline void dots(const Rows &a, int64_t first, const Rows &b, int64_t start, Vector *to) {
    const float *row = a.values.data() + first * a.padded;
    Vector sums[ROWS] = {};
    for (int64_t d = 0; d < a.width; d++) {
        const Vector lanes = b.lanes(start, d);
        for (int r = 0; r < ROWS; r++) sums[r] += row[r * a.padded + d] * lanes;
    }
    for (int r = 0; r < ROWS; r++) to[r] = sums[r];
}

// Sums of rows of `a`, weighted otherwise in each lane, times a factor: so many rows of `to`.
template <class T>
void mixtures(const Rows &a, const Vector *weights, int64_t start, Vector factor, T *to,
              int64_t stride) {
    std::vector<float> turned(LANES * a.padded);
    for (int64_t first = 0; first < a.padded; first += ROWS) {
        Vector sums[ROWS] = {};
        for (int64_t t = 0; t < a.tokens; t++) {
            const float *row = a.values.data() + t * a.padded + first;
            const Vector weight = weights[t];
            for (int r = 0; r < ROWS; r++) sums[r] += row[r] * weight;
        }
        for (int r = 0; r < ROWS; r++) {
            sums[r] *= factor;
            float lanes[LANES];
            std::memcpy(lanes, &sums[r], sizeof lanes);
            for (int lane = 0; lane < LANES; lane++) turned[lane * a.padded + first + r] = lanes[lane];
        }
    }
    for (int64_t lane = 0; lane < std::min<int64_t>(LANES, a.tokens - start); lane++)
        for (int64_t d = 0; d < a.width; d++)
            store(to[(start + lane) * stride + d], turned[lane * a.padded + d]);
}

// qkv (batch, tokens, 3, heads, width), y (batch, tokens, heads, width), and the logarithm of each
// row's sum of exponentials, sums (batch, heads, tokens).
template <class T>
int forward(const T *qkv, T *y, float *sums, Sizes n, float scale, int threads) {
    return in_threads(n.batch * n.heads, threads, [&](int64_t item) {
        const int64_t image = item / n.heads, head = item % n.heads, row = n.row();
        const T *from = qkv + image * n.tokens * 3 * row + head * n.width;
        Rows q(n), k(n), v(n);
        q.read(from, 3 * row, scale);
        k.read(from + row, 3 * row, 1.0f);
        v.read(from + 2 * row, 3 * row, 1.0f);
        std::vector<Vector> scores(n.blocks() * LANES);
        for (int64_t start = 0; start < n.tokens; start += LANES) {
            for (int64_t t = 0; t < n.tokens; t += ROWS) dots(k, t, q, start, &scores[t]);
            Vector most = scores[0], sum = {};
            for (int64_t t = 1; t < n.tokens; t++) most = scores[t] > most ? scores[t] : most;
            for (int64_t t = 0; t < n.tokens; t++) {
                scores[t] = exponential(scores[t] - most);
                sum += scores[t];
            }
            mixtures(v, scores.data(), start, 1.0f / sum,
                     y + image * n.tokens * row + head * n.width, row);
            for (int64_t lane = 0; lane < std::min<int64_t>(LANES, n.tokens - start); lane++)
                sums[item * n.tokens + start + lane] = most[lane] + std::log(sum[lane]);
        }
    });
}

template <class T>
int backward(const T *dy, const T *qkv, const T *y, const float *sums, T *dqkv, Sizes n,
             float scale, int threads) {
    return in_threads(n.batch * n.heads, threads, [&](int64_t item) {
        const int64_t image = item / n.heads, head = item % n.heads, row = n.row();
        const int64_t whole = image * n.tokens * row + head * n.width;
        const T *from = qkv + image * n.tokens * 3 * row + head * n.width;
        T *to = dqkv + image * n.tokens * 3 * row + head * n.width;
        Rows q(n), k(n), v(n), g(n);
        q.read(from, 3 * row, scale);
        k.read(from + row, 3 * row, 1.0f);
        v.read(from + 2 * row, 3 * row, 1.0f);
        g.read(dy + whole, row, 1.0f);
        const int64_t across = n.blocks() * LANES;
        std::vector<Vector> weights(across), changes(across);
        std::vector<float> log_sum(across, 0.0f), mean(across, 0.0f);
        for (int64_t t = 0; t < n.tokens; t++) {
            log_sum[t] = sums[item * n.tokens + t];
            for (int64_t d = 0; d < n.width; d++)
                mean[t] += g.values[t * g.padded + d] * load(y[whole + t * row + d]);
        }
        const Vector same = Vector{} + 1.0f;
        for (int64_t start = 0; start < n.tokens; start += LANES) {  // lanes are queries
            Vector log_sums, means;
            std::memcpy(&log_sums, &log_sum[start], sizeof log_sums);
            std::memcpy(&means, &mean[start], sizeof means);
            for (int64_t t = 0; t < n.tokens; t += ROWS) {
                dots(k, t, q, start, &weights[t]);
                dots(v, t, g, start, &changes[t]);
                for (int r = 0; r < ROWS; r++)
                    changes[t + r] =
                        exponential(weights[t + r] - log_sums) * (changes[t + r] - means);
            }
            mixtures(k, changes.data(), start, scale * same, to, 3 * row);
        }
        for (int64_t start = 0; start < n.tokens; start += LANES) {  // lanes are keys
            for (int64_t t = 0; t < n.tokens; t += ROWS) {
                dots(q, t, k, start, &weights[t]);
                dots(g, t, v, start, &changes[t]);
                for (int r = 0; r < ROWS; r++) {
                    weights[t + r] = exponential(weights[t + r] - log_sum[t + r]);
                    changes[t + r] = weights[t + r] * (changes[t + r] - mean[t + r]);
                }
            }
            mixtures(q, changes.data(), start, same, to + row, 3 * row);
            mixtures(g, weights.data(), start, same, to + 2 * row, 3 * row);
        }
    });
}

}  // namespace

#define EXPORT(NAME, TYPE)                                                                       \
    extern "C" int attend_##NAME(const TYPE *qkv, TYPE *y, float *sums, int64_t batch,           \
                                 int64_t tokens, int64_t heads, int64_t width, float scale,      \
                                 int threads) {                                                  \
        return forward<TYPE>(qkv, y, sums, {batch, tokens, heads, width}, scale, threads);       \
    }                                                                                            \
    extern "C" int attend_back_##NAME(const TYPE *dy, const TYPE *qkv, const TYPE *y,            \
                                      const float *sums, TYPE *dqkv, int64_t batch,              \
                                      int64_t tokens, int64_t heads, int64_t width, float scale, \
                                      int threads) {                                             \
        return backward<TYPE>(dy, qkv, y, sums, dqkv, {batch, tokens, heads, width}, scale,      \
                              threads);                                                          \
    }

EXPORT(float32, float)
EXPORT(bfloat16, Bf16)
