// What every kernel needs: threads and memory, numbers as they are stored, and exp.

#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <new>

namespace {

// Whether work finds no memory. Python must not see what C++ throws.
template <class Work> bool fails(Work work) {
    try {
        work();
        return false;
    } catch (const std::bad_alloc &) {
        return true;
    }
}

// Items of work, shared out among threads; 1 where there was no memory for one, else 0.
template <class Work> int in_threads(int64_t items, int threads, Work work) {
    std::atomic<bool> failed{false};
#pragma omp parallel for num_threads(threads)
    for (int64_t item = 0; item < items; item++)
        if (!failed && fails([&] { work(item); })) failed = true;
    return failed;
}

struct Bf16 {
    uint16_t bits;  // the upper half of a float32
};

// F and U are float and uint32_t, or vectors of as many.
template <class F, class U> inline F widened(U bits) {
    bits = bits << 16;
    F result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

template <class F, class U> inline U rounded(F value) {  // to the nearest, ties to even
    U bits;
    std::memcpy(&bits, &value, sizeof bits);
    const U upper = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return value == value ? upper : U{} + 0x7fc0u;  // rounding could hide a NaN
}

inline float load(float value) { return value; }

inline float load(Bf16 value) { return widened<float, uint32_t>(value.bits); }

inline void store(float &place, float value) { place = value; }

inline void store(Bf16 &place, float value) {
    place.bits = uint16_t(rounded<float, uint32_t>(value));
}

// So many neighbours at once: one number, or a vector of as many as a register holds.
template <int count> struct Lanes {
    typedef float Number __attribute__((vector_size(4 * count)));
    typedef uint32_t Whole __attribute__((vector_size(4 * count)));
    typedef uint16_t Half __attribute__((vector_size(2 * count)));
};
template <> struct Lanes<1> {
    typedef float Number;
    typedef uint32_t Whole;
};
#if defined(__AVX512F__)
const int WIDEST = 16;
#else
const int WIDEST = 8;
#endif

template <int count> inline typename Lanes<count>::Number get(const float *from) {
    typename Lanes<count>::Number result;
    std::memcpy(&result, from, sizeof result);
    return result;
}

template <int count> inline typename Lanes<count>::Number get(const Bf16 *from) {
    if constexpr (count == 1) {
        return load(*from);
    } else {
        typename Lanes<count>::Half half;
        std::memcpy(&half, from, sizeof half);
        typedef typename Lanes<count>::Whole Whole;
        return widened<typename Lanes<count>::Number, Whole>(__builtin_convertvector(half, Whole));
    }
}

template <int count> inline void put(float *to, typename Lanes<count>::Number value) {
    std::memcpy(to, &value, sizeof value);
}

template <int count> inline void put(Bf16 *to, typename Lanes<count>::Number value) {
    if constexpr (count == 1) {
        store(*to, value);
    } else {
        typedef typename Lanes<count>::Whole Whole;
        const auto bits = rounded<typename Lanes<count>::Number, Whole>(value);
        const auto half = __builtin_convertvector(bits, typename Lanes<count>::Half);
        std::memcpy(to, &half, sizeof half);
    }
}

// exp(x) = 2^n exp(r), |r| <= ln(2) / 2, the latter by its Taylor series: relative error 2e-7.
// Without branches and library calls.
template <class F, class U> inline F exponential(F x) {
    const float big = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const F least = F{} - 87.0f, most = F{} + 87.0f;
    x = x < least ? least : x;
    x = x > most ? most : x;
    F shifted = x * 1.44269504f + big, n = shifted - big;
    F r = x - n * 0.693359375f + n * 2.12194440e-4f;  // ln(2) in two parts
    F p = F{} + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    U bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits - 0x4b400000u + 127u) << 23;  // n as an exponent
    F power;
    std::memcpy(&power, &bits, sizeof power);
    return p * power;
}

}  // namespace
