// What the kernels of attention share: their parameters, and who sees whom. Pasted after `common.cuh`.

#define INFINITE __int_as_float(0x7f800000)

// What a block is asked to do: a tile of rows of one sequence and head. `qkv` [rows, 3 hidden].
template <typename T> struct Attention {
    const T *qkv;
    // The size of a head, of all heads, and their number.
    u32 size, hidden, heads;
    // A row attends to rows at most so far ahead of it and behind it.
    int ahead, behind;
    // `[2 reach - 1, heads]`, added to scores.
    const float *bias;
    int reach;
    // Example and position of each row, and the dropout of probabilities.
    const uint2 *places;
    u64 key;
    u32 threshold;
    float dropout_factor;
};

// The kernels' last parameters and the struct made of them.
#define ATTENTION_PARAMETERS(T)                                                                                        \
    const T *qkv, u32 size, u32 hidden, u32 heads, int ahead, int behind, const float *bias, int reach,                \
        const uint2 *places, u64 key, u32 threshold, float dropout_factor
#define ATTENTION(T)                                                                                                   \
    Attention<T> { qkv, size, hidden, heads, ahead, behind, bias, reach, places, key, threshold, dropout_factor }

// Which keys a tile of queries sees.
template <typename T>
__device__ __forceinline__ bool visible(const Attention<T> &attention, int query, int key, int length) {
    return key < length && key - query <= attention.ahead && query - key <= attention.behind;
}

// Whether all queries of a range see all keys of a range.
template <typename T> __device__ __forceinline__ bool all_visible(const Attention<T> &attention, int query, int queries,
                                                                  int key, int keys, int length) {
    return key + keys <= length && key + keys - 1 - query <= attention.ahead &&
           query + queries - 1 - key <= attention.behind;
}

// Whether no query of a range sees a key of a range.
template <typename T> __device__ __forceinline__ bool none_visible(const Attention<T> &attention, int query,
                                                                   int queries, int key, int keys, int length) {
    return query >= length || key >= length || key - (query + queries - 1) > attention.ahead ||
           query - (key + keys - 1) > attention.behind;
}
