// y = f(n (1 + scale) + shift), n = GroupNorm(x): the formulas are in group_norm.py.
//
// Images are channels_last: pixels x width numbers, channels side by side, so every inner loop runs
// over neighbouring channels and the compiler turns it into vector instructions. One image fits
// into a core's own cache: it comes from memory once, however often it is read here.
//
// Sums are float32, over one channel's pixels or one group's channels, always in the same order.
// A group's mean is subtracted before anything else, so that a large one costs no digits.

#include <cstdint>
#include <type_traits>
#include <vector>

#include "numbers.h"

namespace {

template <int count, class Number> inline Number sigmoid(Number z) {
    return 1.0f / (1.0f + exponential<Number, typename Lanes<count>::Whole>(-z));
}

// Calls act(c, count) for all channels: as many at a time as a register holds, then those that are
// left. Compilers turn plain loops into vectors, but not all of them one with an exponential.
template <class Act> inline void each(int64_t width, Act act) {
    int64_t c = 0;
    for (; c + WIDEST <= width; c += WIDEST) act(c, std::integral_constant<int, WIDEST>());
    for (; c < width; c++) act(c, std::integral_constant<int, 1>());
}

struct Sizes {
    int64_t batch, pixels, width, groups;
    int64_t each() const { return width / groups; }
    float count() const { return float(each() * pixels); }
};

// All that is the same for forward and backward: y = f((x - m) * slope + offset).
inline void line(const Sizes &n, int64_t b, const float *gain, const float *bias,
                 const float *scale, const float *shift, const float *mean, const float *inverse,
                 float *m, float *slope, float *offset) {
    for (int64_t g = 0; g < n.groups; g++)
        for (int64_t c = g * n.each(); c < (g + 1) * n.each(); c++) {
            float one = scale ? 1.0f + scale[b * n.width + c] : 1.0f;
            m[c] = mean[b * n.groups + g];
            slope[c] = inverse[b * n.groups + g] * gain[c] * one;
            offset[c] = bias[c] * one + (shift ? shift[b * n.width + c] : 0.0f);
        }
}

template <class T, bool silu>
int forward(const T *x, const float *gain, const float *bias, const float *scale,
            const float *shift, T *y, float *mean, float *inverse, Sizes n, float epsilon,
            int threads) {
    const int64_t width = n.width;
    return in_threads(n.batch, threads, [&](int64_t b) {
        std::vector<float> buffer(3 * width, 0.0f);
        float *__restrict m = buffer.data();
        float *__restrict first = m + width, *__restrict second = first + width;
        const T *__restrict from = x + b * n.pixels * width;
        T *__restrict to = y + b * n.pixels * width;
        float *means = mean + b * n.groups, *inverses = inverse + b * n.groups;
        // The mean, as a distance from one of the group's numbers, then the variance around it:
        // E[x^2] - E[x]^2 would cancel.
        for (int64_t g = 0; g < n.groups; g++)
            for (int64_t c = g * n.each(); c < (g + 1) * n.each(); c++)
                m[c] = n.pixels ? load(from[g * n.each()]) : 0.0f;
        for (int64_t p = 0; p < n.pixels; p++)
#pragma omp simd
            for (int64_t c = 0; c < width; c++) first[c] += load(from[p * width + c]) - m[c];
        for (int64_t g = 0; g < n.groups; g++) {
            float sum = 0;
            for (int64_t c = g * n.each(); c < (g + 1) * n.each(); c++) sum += first[c];
            means[g] = m[g * n.each()] + sum / n.count();
            for (int64_t c = g * n.each(); c < (g + 1) * n.each(); c++) m[c] = means[g];
        }
        for (int64_t p = 0; p < n.pixels; p++)
#pragma omp simd
            for (int64_t c = 0; c < width; c++) {
                float d = load(from[p * width + c]) - m[c];
                second[c] += d * d;
            }
        for (int64_t g = 0; g < n.groups; g++) {
            float sum = 0;
            for (int64_t c = g * n.each(); c < (g + 1) * n.each(); c++) sum += second[c];
            inverses[g] = 1.0f / __builtin_sqrtf(sum / n.count() + epsilon);
        }
        line(n, b, gain, bias, scale, shift, mean, inverse, m, first, second);
        for (int64_t p = 0; p < n.pixels; p++)
            each(width, [&](int64_t c, auto count) {
                const auto d = get<count>(from + p * width + c) - get<count>(m + c);
                const auto z = d * get<count>(first + c) + get<count>(second + c);
                put<count>(to + p * width + c, silu ? z * sigmoid<count>(z) : z);
            });
    });
}

// sum_g, sum_gx (batch, width): sums over pixels of g and of g times the normalised x.
template <class T, bool silu>
int backward(const T *dy, const T *x, const float *gain, const float *bias, const float *scale,
             const float *shift, const float *mean, const float *inverse, T *dx, float *sum_g,
             float *sum_gx, Sizes n, int threads) {
    const int64_t width = n.width;
    return in_threads(n.batch, threads, [&](int64_t b) {
        std::vector<float> buffer((6 + n.pixels) * width);
        float *__restrict slope = buffer.data(), *__restrict offset = slope + width;
        float *__restrict m = offset + width, *__restrict r = m + width;
        float *__restrict of_x = r + width, *__restrict constant = of_x + width;
        float *__restrict g_all = constant + width;
        float *__restrict g_sum = sum_g + b * width, *__restrict gx_sum = sum_gx + b * width;
        const T *__restrict from = x + b * n.pixels * width;
        const T *__restrict given = dy + b * n.pixels * width;
        T *__restrict to = dx + b * n.pixels * width;
        line(n, b, gain, bias, scale, shift, mean, inverse, m, slope, offset);
        for (int64_t c = 0; c < width; c++) {
            r[c] = inverse[b * n.groups + c / n.each()];
            g_sum[c] = gx_sum[c] = 0.0f;
        }
        for (int64_t p = 0; p < n.pixels; p++)
            each(width, [&](int64_t c, auto count) {
                const auto d = get<count>(from + p * width + c) - get<count>(m + c);
                auto g = get<count>(given + p * width + c);
                if (silu) {
                    const auto z = d * get<count>(slope + c) + get<count>(offset + c);
                    const auto s = sigmoid<count>(z);
                    g *= s * (1.0f + z * (1.0f - s));
                }
                put<count>(g_all + p * width + c, g);
                put<count>(g_sum + c, get<count>(g_sum + c) + g);
                put<count>(gx_sum + c, get<count>(gx_sum + c) + g * d * get<count>(r + c));
            });
        for (int64_t group = 0; group < n.groups; group++) {
            int64_t start = group * n.each(), end = start + n.each();
            float wg = 0, wgx = 0;  // both already divided by the deviation, as slope is
            for (int64_t c = start; c < end; c++) {
                wg += slope[c] * g_sum[c];
                wgx += slope[c] * gx_sum[c];
            }
            for (int64_t c = start; c < end; c++) {
                of_x[c] = -r[c] * wgx / n.count();
                constant[c] = -wg / n.count();
            }
        }
        for (int64_t p = 0; p < n.pixels; p++)
#pragma omp simd
            for (int64_t c = 0; c < width; c++) {
                float d = load(from[p * width + c]) - m[c];
                store(to[p * width + c],
                      g_all[p * width + c] * slope[c] + d * of_x[c] + constant[c]);
            }
    });
}

}  // namespace

#define EXPORT(NAME, TYPE, SILU)                                                                 \
    extern "C" int forward_##NAME(                                                               \
        const TYPE *x, const float *gain, const float *bias, const float *scale,                 \
        const float *shift, TYPE *y, float *mean, float *inverse, int64_t batch, int64_t pixels, \
        int64_t width, int64_t groups, float epsilon, int threads) {                             \
        return forward<TYPE, SILU>(x, gain, bias, scale, shift, y, mean, inverse,                \
                                   {batch, pixels, width, groups}, epsilon, threads);            \
    }                                                                                            \
    extern "C" int backward_##NAME(                                                              \
        const TYPE *dy, const TYPE *x, const float *gain, const float *bias, const float *scale, \
        const float *shift, const float *mean, const float *inverse, TYPE *dx, float *sum_g,     \
        float *sum_gx, int64_t batch, int64_t pixels, int64_t width, int64_t groups,             \
        int threads) {                                                                           \
        return backward<TYPE, SILU>(dy, x, gain, bias, scale, shift, mean, inverse, dx, sum_g,   \
                                    sum_gx, {batch, pixels, width, groups}, threads);            \
    }

EXPORT(float32_linear, float, false)
EXPORT(float32_silu, float, true)
EXPORT(bfloat16_linear, Bf16, false)
EXPORT(bfloat16_silu, Bf16, true)
