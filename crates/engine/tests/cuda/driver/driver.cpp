// A CUDA driver, NVRTC, cuBLASLt, NCCL and NVML on the processor, as far as the engine uses them: its whole CUDA half runs, and is
// tested, on a machine without a GPU. Kernels are compiled by the C++ compiler after `emulator.hpp`; every block of
// device memory ends at a page that may not be touched, is gone when it is freed, and begins as not-a-number.
//
// `tests/common/emulated.rs` builds it as five libraries of the names that are looked for. COMPILER and FOLDER are
// defined there; the environment variable EMULATED_BYTES sets the device's memory, EMULATED_GPUS how many devices there are, which
// share it, EMULATED_NCCL=0 makes NCCL refuse, and EMULATED_REFUSED=1:57 refuses device 1 the 57th block of memory that it asks for
// from then on, also when it asks once more.

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include <csignal>
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

using Address = unsigned long long;

// Shared by the five libraries, as inline variables are.
namespace emulated {

inline std::recursive_mutex mutex;
constexpr size_t PAGE = 4096;

struct Block {
    char *pages;
    size_t mapped, bytes;
};

// By address.
inline std::map<Address, Block> blocks;
inline size_t used = 0, peak = 0;
// What each thread runs: kernels of different threads run beside each other.
inline thread_local const char *running = "no kernel";

inline size_t total() {
    const char *given = std::getenv("EMULATED_BYTES");
    return given ? std::strtoull(given, nullptr, 10) : size_t(16) << 30;
}

inline int gpus() {
    const char *given = std::getenv("EMULATED_GPUS");
    return given ? std::atoi(given) : 1;
}

// The device of each thread's context.
inline thread_local int current = 0;

inline bool refused() {
    static std::string set;
    static long asked = 0;
    const char *given = std::getenv("EMULATED_REFUSED");
    if (!given) given = "";
    if (set != given) set = given, asked = 0;
    int device;
    long block;
    if (std::sscanf(given, "%d:%ld", &device, &block) != 2 || device != current) return false;
    asked += 1;
    return asked == block || asked == block + 1;
}

[[noreturn]] inline void die(const char *what) {
    std::fprintf(stderr, "emulated GPU: %s in %s\n", what, running);
    std::fflush(stderr);
    std::_Exit(1);
}

inline void on_fault(int) { die("memory outside of a block was touched"); }

// The block that an address lies in has so many more bytes; the whole program ends where it does not.
inline void expect(Address address, size_t bytes, const char *what) {
    const std::lock_guard lock(mutex);
    auto after = blocks.upper_bound(address);
    if (after != blocks.begin()) {
        const auto &[start, block] = *--after;
        if (address + bytes <= start + block.bytes) return;
    }
    die(what);
}

inline float number(const void *from, size_t index, bool bf16) {
    if (!bf16) return ((const float *)from)[index];
    uint32_t bits = uint32_t(((const uint16_t *)from)[index]) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline void put(void *to, size_t index, bool bf16, float x) {
    if (!bf16) {
        ((float *)to)[index] = x;
        return;
    }
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    ((uint16_t *)to)[index] = uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

} // namespace emulated

using namespace emulated;

// ---- driver ----

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500 };

#define DRIVER extern "C" int

DRIVER cuGetErrorString(int error, const char **text) {
    *text = error == OUT_OF_MEMORY ? "out of memory" : error == NOT_FOUND ? "not found" : "invalid value";
    return SUCCESS;
}
DRIVER cuDriverGetVersion(int *version) { return *version = 13000, SUCCESS; }
DRIVER cuInit(unsigned) {
    std::signal(SIGSEGV, on_fault);
    std::signal(SIGBUS, on_fault);
    return SUCCESS;
}
DRIVER cuDeviceGetCount(int *count) { return *count = gpus(), SUCCESS; }
DRIVER cuDeviceGet(int *device, int ordinal) { return *device = ordinal, ordinal < gpus() ? SUCCESS : INVALID_VALUE; }
DRIVER cuDeviceGetName(char *name, int length, int) {
    std::snprintf(name, length, "Emulated GPU");
    return SUCCESS;
}
DRIVER cuDeviceGetPCIBusId(char *name, int length, int device) {
    std::snprintf(name, length, "0000:0%d:00.0", device);
    return SUCCESS;
}
DRIVER cuDeviceTotalMem_v2(size_t *bytes, int) { return *bytes = total(), SUCCESS; }
DRIVER cuDeviceGetAttribute(int *value, int attribute, int) {
    // Multiprocessors; compute capability; threads of a multiprocessor; shared memory of a block.
    switch (attribute) {
    case 16: *value = 2; return SUCCESS;
    case 75: *value = 9; return SUCCESS;
    case 76: *value = 0; return SUCCESS;
    case 97: *value = 227 << 10; return SUCCESS;
    }
    return INVALID_VALUE;
}
DRIVER cuDevicePrimaryCtxRetain(void **context, int device) {
    return *context = (void *)(intptr_t)(device + 1), SUCCESS;
}
DRIVER cuDevicePrimaryCtxRelease_v2(int) { return SUCCESS; }
DRIVER cuCtxSetCurrent(void *context) { return current = int((intptr_t)context) - 1, SUCCESS; }
DRIVER cuStreamCreate(void **stream, unsigned) { return *stream = (void *)2, SUCCESS; }
DRIVER cuStreamDestroy_v2(void *) { return SUCCESS; }
DRIVER cuStreamSynchronize(void *) { return SUCCESS; }
DRIVER cuDeviceGetDefaultMemPool(void **pool, int) { return *pool = (void *)3, SUCCESS; }
DRIVER cuMemPoolSetAttribute(void *, int, void *) { return SUCCESS; }
DRIVER cuMemPoolTrimTo(void *, size_t) { return SUCCESS; }
DRIVER cuMemPoolGetAttribute(void *, int attribute, void *value) {
    const std::lock_guard lock(mutex);
    // The most ever used; otherwise what is used and reserved now.
    *(uint64_t *)value = attribute == 8 ? peak : used;
    return SUCCESS;
}
DRIVER cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes) {
    const std::lock_guard lock(mutex);
    *total_bytes = total();
    *free_bytes = total() > used ? total() - used : 0;
    return SUCCESS;
}

DRIVER cuMemAllocAsync(Address *address, size_t bytes, void *) {
    const std::lock_guard lock(mutex);
    if (bytes == 0) return INVALID_VALUE;
    if (used + bytes > total() || refused()) return OUT_OF_MEMORY;
    const size_t room = (bytes + 15) / 16 * 16, mapped = (room + PAGE - 1) / PAGE * PAGE;
    char *pages = (char *)mmap(nullptr, mapped + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) return OUT_OF_MEMORY;
    mprotect(pages + mapped, PAGE, PROT_NONE);
    std::memset(pages, 0xff, mapped);
    *address = (Address)(pages + mapped - room);
    blocks[*address] = {pages, mapped + PAGE, bytes};
    used += bytes;
    peak = std::max(peak, used);
    return SUCCESS;
}

DRIVER cuMemFreeAsync(Address address, void *) {
    const std::lock_guard lock(mutex);
    const auto found = blocks.find(address);
    if (found == blocks.end()) die("memory was freed that is not there");
    used -= found->second.bytes;
    munmap(found->second.pages, found->second.mapped);
    blocks.erase(found);
    return SUCCESS;
}

DRIVER cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *) {
    const std::lock_guard lock(mutex);
    expect(to, bytes, "an upload past the end of its block");
    std::memcpy((void *)to, from, bytes);
    return SUCCESS;
}
DRIVER cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *) {
    const std::lock_guard lock(mutex);
    expect(from, bytes, "a download past the end of its block");
    std::memcpy(to, (const void *)from, bytes);
    return SUCCESS;
}
DRIVER cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *) {
    const std::lock_guard lock(mutex);
    expect(from, bytes, "a copy past the end of its block");
    expect(to, bytes, "a copy past the end of its block");
    std::memcpy((void *)to, (const void *)from, bytes);
    return SUCCESS;
}
DRIVER cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void *) {
    const std::lock_guard lock(mutex);
    expect(to, bytes, "clearing past the end of its block");
    std::memset((void *)to, value, bytes);
    return SUCCESS;
}

// ---- kernels ----

// An image is the length of a shared library, then the library.
DRIVER cuModuleLoadData(void **module, const void *image) {
    const std::lock_guard lock(mutex);
    uint64_t length;
    std::memcpy(&length, image, 8);
    char path[] = "/tmp/emulated-kernels-XXXXXX";
    const int file = mkstemp(path);
    if (file < 0) return INVALID_VALUE;
    const char *from = (const char *)image + 8;
    bool written = true;
    for (uint64_t done = 0; written && done < length;) {
        const ssize_t now = write(file, from + done, length - done);
        written = now > 0;
        done += now;
    }
    close(file);
    *module = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
    if (!*module) std::fprintf(stderr, "emulated GPU: %s\n", dlerror());
    unlink(path);
    return *module ? SUCCESS : INVALID_VALUE;
}

struct Function {
    std::string name;
    void (*call)(unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void **);
    unsigned shared = 48 << 10;
};

DRIVER cuModuleGetFunction(Function **function, void *module, const char *name) {
    const std::lock_guard lock(mutex);
    void *call = dlsym(module, (std::string("call_") + name).c_str());
    if (!call) return NOT_FOUND;
    *function = new Function{name, (decltype(Function::call))call};
    return SUCCESS;
}
DRIVER cuFuncSetAttribute(Function *function, int, int value) {
    if (value > 227 << 10) return INVALID_VALUE;
    function->shared = value;
    return SUCCESS;
}
DRIVER cuLaunchKernel(Function *function, unsigned x, unsigned y, unsigned z, unsigned width, unsigned height,
                      unsigned depth, unsigned shared, void *, void **arguments, void **) {
    if (x == 0 || y == 0 || z == 0 || y > 65535 || z > 65535 || width * height * depth > 1024) return INVALID_VALUE;
    if (shared > function->shared) return INVALID_VALUE;
    running = function->name.c_str();
    function->call(x, y, z, width, height, depth, shared, arguments);
    running = "no kernel";
    return SUCCESS;
}

// ---- NVRTC ----

struct Source {
    std::string text, image, log;
};

namespace {

std::string read(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

int run(const std::string &command) { return std::system(command.c_str()); }

// The names of the kernels, which macros may have made.
std::vector<std::string> kernels(const std::string &folder, const std::string &text) {
    std::ofstream(folder + "/marked.cpp") << "#define EMULATOR 1\n#define __global__ GLOBAL_MARK\n"
                                             "#define __launch_bounds__(...)\n"
                                          << text;
    run(std::string(COMPILER) + " -std=c++17 -E -P " + folder + "/marked.cpp -o " + folder + "/marked.ii");
    const std::string marked = read(folder + "/marked.ii");
    const std::regex pattern("\"C\"\\s+GLOBAL_MARK\\s+void\\s+(\\w+)\\s*\\(");
    std::vector<std::string> names;
    for (std::sregex_iterator found(marked.begin(), marked.end(), pattern), end; found != end; ++found)
        names.push_back((*found)[1]);
    return names;
}

} // namespace

DRIVER nvrtcVersion(int *major, int *minor) { return *major = 0, *minor = 0, 0; }
DRIVER nvrtcCreateProgram(Source **program, const char *text, const char *, int, const char *const *, const char *const *) {
    *program = new Source{text, {}, {}};
    return 0;
}
DRIVER nvrtcCompileProgram(Source *program, int, const char *const *) {
    char folder[] = "/tmp/emulated-nvrtc-XXXXXX";
    if (!mkdtemp(folder)) return 6;
    const std::string place = folder;
    std::ofstream source(place + "/kernels.cpp");
    source << "#include \"emulator.hpp\"\n" << program->text << R"(
#include <utility>
template <typename... P, size_t... I>
void call_kernel(void (*kernel)(P...), dim3 blocks, dim3 block, size_t shared, void **a, std::index_sequence<I...>) {
    launch(blocks, block, shared, kernel, *(P *)a[I]...);
}
template <typename... P>
void call_kernel(void (*kernel)(P...), dim3 blocks, dim3 block, size_t shared, void **a) {
    call_kernel(kernel, blocks, block, shared, a, std::index_sequence_for<P...>{});
}
#define CALL(name)                                                                                                     \
    extern "C" void call_##name(unsigned x, unsigned y, unsigned z, unsigned w, unsigned h, unsigned d, unsigned s,    \
                                void **a) {                                                                            \
        call_kernel(name, dim3(x, y, z), dim3(w, h, d), s, a);                                                         \
    }
)";
    for (const std::string &name : kernels(place, program->text)) source << "CALL(" << name << ")\n";
    source.close();
    const int failed = run(std::string(COMPILER) + " -std=c++17 -O1 -w -fPIC -shared -I" FOLDER " " + place +
                           "/kernels.cpp -o " + place + "/kernels.so 2> " + place + "/log");
    program->log = read(place + "/log");
    const std::string library = read(place + "/kernels.so");
    const uint64_t length = library.size();
    program->image = std::string((const char *)&length, 8) + library;
    run("rm -r " + place);
    return failed ? 6 : 0;
}
DRIVER nvrtcDestroyProgram(Source **program) {
    delete *program;
    return 0;
}
DRIVER nvrtcGetCUBINSize(Source *program, size_t *size) { return *size = program->image.size(), 0; }
DRIVER nvrtcGetCUBIN(Source *program, char *image) {
    std::memcpy(image, program->image.data(), program->image.size());
    return 0;
}
DRIVER nvrtcGetProgramLogSize(Source *program, size_t *size) { return *size = program->log.size() + 1, 0; }
DRIVER nvrtcGetProgramLog(Source *program, char *log) {
    std::memcpy(log, program->log.c_str(), program->log.size() + 1);
    return 0;
}

// ---- cuBLASLt: column-major, as it is ----

struct Layout {
    bool bf16;
    uint64_t rows, columns;
    int64_t leading;
};

struct Description {
    bool transposed_a = false, transposed_b = false;
    unsigned epilogue = 1;
    const void *bias = nullptr;
};

DRIVER cublasLtCreate(void **handle) { return *handle = (void *)4, 0; }
DRIVER cublasLtDestroy(void *) { return 0; }
DRIVER cublasLtMatrixLayoutCreate(Layout **layout, int type, uint64_t rows, uint64_t columns, int64_t leading) {
    *layout = new Layout{type == 14, rows, columns, leading};
    return type == 14 || type == 0 ? 0 : 15;
}
DRIVER cublasLtMatrixLayoutDestroy(Layout *layout) {
    delete layout;
    return 0;
}
DRIVER cublasLtMatmulDescCreate(Description **description, int, int) { return *description = new Description, 0; }
DRIVER cublasLtMatmulDescDestroy(Description *description) {
    delete description;
    return 0;
}
DRIVER cublasLtMatmulDescSetAttribute(Description *description, int attribute, const void *value, size_t) {
    switch (attribute) {
    case 3: description->transposed_a = *(const int *)value; return 0;
    case 4: description->transposed_b = *(const int *)value; return 0;
    case 7: description->epilogue = *(const unsigned *)value; return 0;
    case 8: description->bias = *(const void *const *)value; return 0;
    }
    return 15;
}
DRIVER cublasLtMatmulPreferenceCreate(void **preference) { return *preference = (void *)5, 0; }
DRIVER cublasLtMatmulPreferenceDestroy(void *) { return 0; }
DRIVER cublasLtMatmulPreferenceSetAttribute(void *, int, const void *, size_t) { return 0; }

struct Heuristic {
    uint64_t algorithm[8];
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

DRIVER cublasLtMatmulAlgoGetHeuristic(void *, Description *, Layout *, Layout *, Layout *, Layout *, void *, int,
                                      Heuristic *results, int *count) {
    std::memset(results, 0, sizeof(Heuristic));
    *count = 1;
    return 0;
}

DRIVER cublasLtMatmul(void *, Description *description, const float *alpha, const void *a, Layout *a_layout,
                      const void *b, Layout *b_layout, const float *beta, const void *c, Layout *, void *d,
                      Layout *d_layout, const void *, void *, size_t, void *) {
    running = "a matrix product";
    const size_t rows = d_layout->rows, columns = d_layout->columns;
    const size_t inner = description->transposed_a ? a_layout->rows : a_layout->columns;
    const size_t a_rows = description->transposed_a ? a_layout->columns : a_layout->rows;
    const size_t b_inner = description->transposed_b ? b_layout->columns : b_layout->rows;
    const size_t b_columns = description->transposed_b ? b_layout->rows : b_layout->columns;
    if (a_rows != rows || b_columns != columns || b_inner != inner || a_layout->bf16 != b_layout->bf16) return 7;
    const auto end = [](const Layout *layout) {
        return ((layout->columns - 1) * layout->leading + layout->rows) * (layout->bf16 ? 2 : 4);
    };
    expect((Address)a, end(a_layout), "a first operand past the end of its block");
    expect((Address)b, end(b_layout), "a second operand past the end of its block");
    expect((Address)d, end(d_layout), "a result past the end of its block");
    if (description->epilogue == 4) expect((Address)description->bias, rows * (d_layout->bf16 ? 2 : 4), "a bias too short");
    // Rows of `a` and columns of `b` side by side, then their inner products.
    std::vector<float> left(rows * inner), right(columns * inner);
    for (size_t i = 0; i < rows; i++)
        for (size_t k = 0; k < inner; k++)
            left[i * inner + k] = number(a, description->transposed_a ? i * a_layout->leading + k : k * a_layout->leading + i, a_layout->bf16);
    for (size_t j = 0; j < columns; j++)
        for (size_t k = 0; k < inner; k++)
            right[j * inner + k] = number(b, description->transposed_b ? k * b_layout->leading + j : j * b_layout->leading + k, b_layout->bf16);
    for (size_t j = 0; j < columns; j++)
        for (size_t i = 0; i < rows; i++) {
            float lanes[8] = {};
            const float *x = &left[i * inner], *y = &right[j * inner];
            size_t k = 0;
            for (; k + 8 <= inner; k += 8)
                for (int lane = 0; lane < 8; lane++) lanes[lane] += x[k + lane] * y[k + lane];
            float sum = 0;
            for (; k < inner; k++) sum += x[k] * y[k];
            for (int lane = 0; lane < 8; lane++) sum += lanes[lane];
            const size_t at = j * d_layout->leading + i;
            sum *= *alpha;
            // What is not added is not read, not even times 0.
            if (*beta != 0) sum += *beta * number(c, at, d_layout->bf16);
            if (description->epilogue == 4) sum += number(description->bias, i, d_layout->bf16);
            put(d, at, d_layout->bf16, sum);
        }
    running = "no kernel";
    return 0;
}

// ---- NCCL ----

namespace emulated {

struct Sum {
    const float *from;
    float *to;
    size_t count;
};

// Devices that sum together, each from a thread of its own.
struct Ranks {
    std::mutex mutex;
    std::condition_variable changed;
    int size = 0, arrived = 0;
    size_t rounds = 0;
    std::vector<std::vector<Sum>> asked;
};

struct Rank {
    std::shared_ptr<Ranks> ranks;
    int number;
};

inline std::map<std::string, std::shared_ptr<Ranks>> groups;
inline int names = 0;

// What a thread has asked for since its ncclGroupStart.
inline thread_local int depth = 0;
inline thread_local std::vector<std::pair<Rank *, Sum>> pending;

// The last rank to arrive adds for all, so that all have the same bits: from the last to the first, which is not the order of
// a sum by way of the processor, as NCCL's is not.
inline void sum_all(Ranks &ranks) {
    const std::lock_guard lock(mutex);
    for (size_t place = 0; place < ranks.asked[0].size(); ++place) {
        std::vector<float> sum;
        for (int rank = ranks.size - 1; rank >= 0; --rank) {
            if (ranks.asked[rank].size() != ranks.asked[0].size()) die("ranks ask for different sums");
            const auto &own = ranks.asked[rank][place];
            if (own.count != ranks.asked[0][place].count) die("ranks sum tensors of different lengths");
            if (own.count) expect(Address(own.from), own.count * sizeof(float), "a sum outside of a block");
            if (sum.empty()) sum.assign(own.from, own.from + own.count);
            else for (size_t at = 0; at < own.count; ++at) sum[at] += own.from[at];
        }
        for (int rank = 0; rank < ranks.size; ++rank) {
            if (!sum.empty()) std::memcpy(ranks.asked[rank][place].to, sum.data(), sum.size() * sizeof(float));
        }
    }
}

inline void run_pending() {
    if (pending.empty()) return;
    auto *rank = pending[0].first;
    auto &ranks = *rank->ranks;
    std::unique_lock lock(ranks.mutex);
    auto &own = ranks.asked[rank->number];
    own.clear();
    for (const auto &[other, sum] : pending) {
        if (other != rank) die("one thread asks for the sums of two ranks");
        own.push_back(sum);
    }
    pending.clear();
    const auto round = ranks.rounds;
    if (++ranks.arrived == ranks.size) {
        sum_all(ranks);
        ranks.arrived = 0;
        ++ranks.rounds;
        ranks.changed.notify_all();
    } else {
        ranks.changed.wait(lock, [&] { return ranks.rounds != round; });
    }
}

} // namespace emulated

struct UniqueId {
    char internal[128];
};

DRIVER ncclGetUniqueId(UniqueId *id) {
    const std::lock_guard lock(mutex);
    std::snprintf(id->internal, sizeof id->internal, "group %d", ++names);
    return SUCCESS;
}
extern "C" const char *ncclGetErrorString(int) { return "emulated NCCL refuses"; }
DRIVER ncclCommInitRank(Rank **rank, int size, UniqueId id, int number) {
    const char *given = std::getenv("EMULATED_NCCL");
    if (given && *given == '0') return 3;
    std::shared_ptr<Ranks> ranks;
    {
        const std::lock_guard lock(mutex);
        auto &known = groups[id.internal];
        if (!known) known = std::make_shared<Ranks>();
        ranks = known;
    }
    std::unique_lock lock(ranks->mutex);
    if (ranks->size != 0 && ranks->size != size) return 4;
    ranks->size = size;
    ranks->asked.resize(size);
    *rank = new Rank{ranks, number};
    if (++ranks->arrived == size) {
        ranks->arrived = 0;
        ++ranks->rounds;
        ranks->changed.notify_all();
    } else {
        ranks->changed.wait(lock, [&] { return ranks->rounds != 0; });
    }
    return SUCCESS;
}
DRIVER ncclGroupStart() { return ++depth, SUCCESS; }
DRIVER ncclGroupEnd() {
    if (--depth == 0) run_pending();
    return SUCCESS;
}
DRIVER ncclAllReduce(const void *from, void *to, size_t count, int kind, int operation, Rank *rank, void *stream) {
    // Floats, their sum, on the stream of the device.
    if (kind != 7 || operation != 0 || !stream) return 4;
    pending.push_back({rank, {(const float *)from, (float *)to, count}});
    if (depth == 0) run_pending();
    return SUCCESS;
}
DRIVER ncclCommAbort(Rank *rank) { return delete rank, SUCCESS; }

// ---- NVML ----

struct Utilization {
    unsigned gpu, memory;
};

DRIVER nvmlInit_v2() { return SUCCESS; }
DRIVER nvmlShutdown() { return SUCCESS; }
DRIVER nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) {
    int number = -1;
    std::sscanf(bus, "0000:0%d:00.0", &number);
    if (number < 0 || number >= gpus()) return 6; // not found
    return *device = (void *)(intptr_t)(number + 1), SUCCESS;
}
// The first is busy for 90 % of the time, the second for 80 %.
DRIVER nvmlDeviceGetUtilizationRates(void *device, Utilization *rates) {
    return *rates = {unsigned(100 - 10 * (intptr_t)device), 0}, SUCCESS;
}
