// Attention by plain loops in double, for the tests of its kernels.

#pragma once

#include "check.hpp"

struct Case {
    u32 size, heads;
    std::vector<u32> lengths;
    bool causal = false;
    int window = -1;
    bool biased = false, dropped = false;
};

// A batch of a case with its results. Numbers are of type T, but computed in double.
template <typename T> struct Batch {
    Case given;
    std::string name;
    u32 hidden, rows = 0;
    int ahead, behind, reach;
    std::vector<u32> offsets{0};
    std::vector<uint2> places;
    u64 key = 0x123456789abcdefull;
    u32 threshold = 0;
    float dropout_factor = 1.0f;
    std::vector<T> qkv, dy;
    std::vector<float> bias;
    std::vector<double> output, log_sum_exp, dqkv, dbias;

    explicit Batch(const Case &given) : given(given), hidden(given.size * given.heads) {
        name = "size " + std::to_string(given.size) + ", lengths";
        u32 longest = 1;
        for (u32 length : given.lengths) {
            for (u32 i = 0; i < length; i++) places.push_back(make_uint2(3 + 7 * (u32)offsets.size(), i));
            offsets.push_back(rows += length);
            longest = max(longest, length);
            name += " " + std::to_string(length);
        }
        if (given.causal) name += ", causal";
        if (given.window >= 0) name += ", window " + std::to_string(given.window);
        if (given.biased) name += ", bias";
        if (given.dropped) name += ", dropout";
        behind = given.window >= 0 ? given.window : 1 << 30;
        ahead = given.causal ? 0 : behind;
        reach = longest + 3;
        if (given.dropped) threshold = 0x30000000u, dropout_factor = 1.0f / (1.0f - 0.1875f);
        qkv = normal_numbers<T>((size_t)rows * 3 * hidden, 11);
        dy = normal_numbers<T>((size_t)rows * hidden, 12);
        if (given.biased) bias = normal_numbers<float>((2 * reach - 1) * given.heads, 13);
        output.resize((size_t)rows * hidden);
        log_sum_exp.resize((size_t)rows * given.heads);
        dqkv.resize(qkv.size());
        dbias.resize(bias.size());
        for (u32 sequence = 0; sequence < given.lengths.size(); sequence++)
            for (u32 head = 0; head < given.heads; head++) compute(offsets[sequence], given.lengths[sequence], head);
    }

    const float *biases() const { return given.biased ? bias.data() : nullptr; }
    const uint2 *dropout_places() const { return given.dropped ? places.data() : nullptr; }

    void compute(u32 start, int length, u32 head) {
        const u32 size = given.size;
        const double factor = 1.0 / std::sqrt((double)size);
        const auto at = [&](int row, int part, u32 d) {
            return ((size_t)start + row) * 3 * hidden + part * hidden + head * size + d;
        };
        for (int i = 0; i < length; i++) {
            std::vector<double> probability(length), seen(length), slope(length);
            double largest = -1e300, total = 0.0, inner = 0.0;
            for (int j = 0; j < length; j++) {
                double score = 0.0;
                for (u32 d = 0; d < size; d++) score += (double)number(qkv[at(i, 0, d)]) * number(qkv[at(j, 1, d)]);
                score *= factor;
                if (given.biased) score += bias[(j - i + reach - 1) * given.heads + head];
                if (j - i > ahead || i - j > behind) score = -INFINITY;
                probability[j] = score;
                largest = std::max(largest, score);
            }
            for (double &p : probability) total += p = std::exp(p - largest);
            log_sum_exp[(start + i) * given.heads + head] = largest + std::log(total);
            const u64 words = row_key(key_part(key, head), places[start + i]);
            const size_t own = ((size_t)start + i) * hidden + head * size;
            for (int j = 0; j < length; j++) {
                probability[j] /= total;
                const double mask = !given.dropped ? 1.0 : keep(words, j, threshold) ? dropout_factor : 0.0;
                seen[j] = probability[j] * mask;
                for (u32 d = 0; d < size; d++) {
                    output[own + d] += seen[j] * number(qkv[at(j, 2, d)]);
                    slope[j] += number(dy[own + d]) * (double)number(qkv[at(j, 2, d)]) * mask;
                    dqkv[at(j, 2, d)] += seen[j] * number(dy[own + d]);
                }
                inner += slope[j] * probability[j];
            }
            for (int j = 0; j < length; j++) {
                const double dscore = probability[j] * (slope[j] - inner);
                if (given.biased) dbias[(j - i + reach - 1) * given.heads + head] += dscore;
                for (u32 d = 0; d < size; d++) {
                    dqkv[at(i, 0, d)] += factor * dscore * number(qkv[at(j, 1, d)]);
                    dqkv[at(j, 1, d)] += factor * dscore * number(qkv[at(i, 0, d)]);
                }
            }
        }
    }

    // The tiles of so many rows of the sequences of `least` to `most` rows.
    std::vector<uint2> tiles(u32 tile_rows, u32 least = 1, u32 most = 1u << 30) const {
        std::vector<uint2> tiles;
        for (u32 sequence = 0; sequence < given.lengths.size(); sequence++)
            for (u32 first = 0; first < given.lengths[sequence]; first += tile_rows)
                if (given.lengths[sequence] >= least && given.lengths[sequence] <= most)
                    tiles.push_back(make_uint2(sequence, first));
        return tiles;
    }
};

// Every way of asking for attention, for heads of one size.
inline std::vector<Case> cases(u32 size) {
    return {
        {size, 2, {1, 7, 16, 64, 0, 65, 30}},
        {size, 1, {200, 130}},
        {size, 2, {129, 5}, true},
        {size, 1, {200, 20}, false, 17},
        {size, 1, {150}, true, 40},
        {size, 1, {60, 100}, true, 30},
        {size, 2, {64, 33, 1, 70}, false, -1, true},
        {size, 2, {64, 33, 1, 70}, false, -1, false, true},
        {size, 2, {140, 9}, true, 70, true, true},
    };
}
