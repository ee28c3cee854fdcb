// What every kernel needs: numbers as they are stored, and exp.

#pragma once

#include <cstdint>
#include <cstring>

namespace {

struct Bf16 {
    uint16_t bits;  // the upper half of a float32
};

inline float load(float value) { return value; }

inline float load(Bf16 value) {
    uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, sizeof result);
    return result;
}

inline void store(float &place, float value) { place = value; }

inline void store(Bf16 &place, float value) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    place.bits = uint16_t(value == value ? rounded : 0x7fc0u);  // rounding could hide a NaN
}

// exp(x) = 2^n exp(r), |r| <= ln(2) / 2, the latter by its Taylor series: relative error 2e-7.
// Without branches and library calls; F and U are float and uint32_t, or vectors of as many.
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
