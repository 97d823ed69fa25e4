/* A driver of CUDA without a card: one device whose memory is the host's, and which executes nothing; launches beyond a card's limits are
 * refused, and bulk copies that it cannot make. What is compiled for it is real, and so are copies, so that the host's side of a program
 * can be looked at where there is no card. Build it as libcuda.so (NVRTC crashes where there is a libcuda.so.1 that is none).
 *
 *   FAKE_CUDA_ARCH=80        compute capability, in tenths [90]
 *   FAKE_CUDA_LIMIT_MB=100   memory of the device [80 GiB]
 *   FAKE_CUDA_DUMP=folder    where modules are written to as PTX
 *   FAKE_CUDA_FAIL_AT=20     call from which on every one fails, counted over those that can
 *   FAKE_CUDA_OLD=1          a driver that is older than the compiler: no module can be loaded
 *   FAKE_CUDA_CARDS=2        devices [1]
 *   FAKE_CUDA_CONTEXTS=file  where it is written how often the context of each device is retained, one a line
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef void *Pointer;
typedef uint64_t Address;

enum { OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, UNSUPPORTED_PTX_VERSION = 222, LAUNCH_FAILED = 719 };
enum { HEADER = 256, CARDS_MAX = 8 };

static size_t used, limit = (size_t)80 << 30;
static int modules;
static long calls;
static int contexts[CARDS_MAX];

/* Whether this call is one that fails. */
static int fails(void)
{
    static long from = -1;
    if (from < 0) {
        const char *at = getenv("FAKE_CUDA_FAIL_AT");
        from = at ? atol(at) : 0;
    }
    long call = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    return from > 0 && call >= from;
}

#define MAY_FAIL if (fails()) return LAUNCH_FAILED

static int cards(void)
{
    const char *text = getenv("FAKE_CUDA_CARDS");
    int count = text ? atoi(text) : 1;
    return count < CARDS_MAX ? count : CARDS_MAX;
}

/* Adds to the contexts of a device that are retained. */
static Result count_contexts(int device, int more)
{
    if (device < 0 || device >= cards()) return INVALID_DEVICE;
    __atomic_add_fetch(&contexts[device], more, __ATOMIC_RELAXED);
    const char *name = getenv("FAKE_CUDA_CONTEXTS");
    FILE *file = name ? fopen(name, "w") : 0;
    for (int i = 0; file && i < cards(); i++) fprintf(file, "%d\n", contexts[i]);
    if (file) fclose(file);
    return OK;
}

static Result take(Address *out, size_t bytes)
{
    MAY_FAIL;
    if (used + bytes > limit) return OUT_OF_MEMORY;
    char *memory = aligned_alloc(HEADER, (bytes + 2 * HEADER - 1) / HEADER * HEADER);
    if (!memory) return OUT_OF_MEMORY;
    *(size_t *)memory = bytes;
    used += bytes;
    *out = (Address)(memory + HEADER);
    return OK;
}

static Result give(Address address)
{
    char *memory = (char *)address - HEADER;
    used -= *(size_t *)memory;
    free(memory);
    return OK;
}

Result cuInit(unsigned flags)
{
    (void)flags;
    const char *mib = getenv("FAKE_CUDA_LIMIT_MB");
    if (mib) limit = (size_t)strtoull(mib, 0, 10) << 20;
    return OK;
}

Result cuDriverGetVersion(int *version) { *version = 13000; return OK; }
Result cuDeviceGetCount(int *count) { *count = cards(); return OK; }
Result cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal >= 0 && ordinal < cards() ? OK : INVALID_DEVICE; }
Result cuDeviceGetName(char *name, int length, int device) { (void)device; snprintf(name, length, "no card"); return OK; }
Result cuDeviceTotalMem_v2(size_t *bytes, int device) { (void)device; *bytes = limit; return OK; }

Result cuDeviceGetAttribute(int *value, int attribute, int device)
{
    (void)device;
    const char *arch = getenv("FAKE_CUDA_ARCH");
    int capability = arch ? atoi(arch) : 90;
    switch (attribute) {
    case 75: *value = capability / 10; break;
    case 76: *value = capability % 10; break;
    case 10: *value = 32; break;                              /* warp */
    case 1: case 2: case 3: *value = 1024; break;             /* threads of a block */
    case 4: *value = 64; break;
    case 5: *value = 2147483647; break;                       /* blocks of a grid */
    case 6: case 7: *value = 65535; break;
    case 16: *value = 132; break;                             /* multiprocessors */
    case 97: *value = capability == 80 ? 166912 : 232448; break; /* shared memory */
    default: *value = 1;
    }
    return OK;
}

Result cuDevicePrimaryCtxRetain(Pointer *context, int device) { *context = (Pointer)1; return count_contexts(device, 1); }
Result cuDevicePrimaryCtxRelease_v2(int device) { return count_contexts(device, -1); }
Result cuCtxSetCurrent(Pointer context) { (void)context; return OK; }
Result cuCtxGetCurrent(Pointer *context) { *context = (Pointer)1; return OK; }
Result cuCtxSynchronize(void) { MAY_FAIL; return OK; }
Result cuStreamCreate(Pointer *stream, unsigned flags) { (void)flags; *stream = (Pointer)2; return OK; }
Result cuStreamDestroy_v2(Pointer stream) { (void)stream; return OK; }
Result cuStreamSynchronize(Pointer stream) { (void)stream; MAY_FAIL; return OK; }
Result cuStreamWaitEvent(Pointer stream, Pointer event, unsigned flags) { (void)stream, (void)event, (void)flags; MAY_FAIL; return OK; }
Result cuEventCreate(Pointer *event, unsigned flags) { (void)flags; *event = (Pointer)3; MAY_FAIL; return OK; }
Result cuEventRecord(Pointer event, Pointer stream) { (void)event, (void)stream; MAY_FAIL; return OK; }
Result cuEventQuery(Pointer event) { (void)event; MAY_FAIL; return OK; }
Result cuEventSynchronize(Pointer event) { (void)event; MAY_FAIL; return OK; }
Result cuEventDestroy_v2(Pointer event) { (void)event; return OK; }

Result cuMemAllocAsync(Address *address, size_t bytes, Pointer stream) { (void)stream; return take(address, bytes); }
Result cuMemFreeAsync(Address address, Pointer stream) { (void)stream; return give(address); }
Result cuMemAlloc_v2(Address *address, size_t bytes) { return take(address, bytes); }
Result cuMemFree_v2(Address address) { return give(address); }
Result cuMemGetInfo_v2(size_t *available, size_t *total) { *available = limit - used; *total = limit; return OK; }
Result cuMemAllocHost_v2(Pointer *memory, size_t bytes) { MAY_FAIL; *memory = malloc(bytes); return *memory ? OK : OUT_OF_MEMORY; }
Result cuMemHostAlloc(Pointer *memory, size_t bytes, unsigned flags) { (void)flags; return cuMemAllocHost_v2(memory, bytes); }
Result cuMemFreeHost(Pointer memory) { free(memory); return OK; }

Result cuMemcpyHtoD_v2(Address to, const void *from, size_t bytes) { MAY_FAIL; memcpy((Pointer)to, from, bytes); return OK; }
Result cuMemcpyDtoH_v2(void *to, Address from, size_t bytes) { MAY_FAIL; memcpy(to, (Pointer)from, bytes); return OK; }
Result cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, Pointer stream) { (void)stream; return cuMemcpyHtoD_v2(to, from, bytes); }
Result cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, Pointer stream) { (void)stream; return cuMemcpyDtoH_v2(to, from, bytes); }
Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Pointer stream) { (void)stream; MAY_FAIL; memcpy((Pointer)to, (Pointer)from, bytes); return OK; }

struct Copy2d {
    size_t from_x, from_y;
    int from_kind;
    const void *from_host;
    Address from_device;
    Pointer from_array;
    size_t from_pitch;
    size_t to_x, to_y;
    int to_kind;
    void *to_host;
    Address to_device;
    Pointer to_array;
    size_t to_pitch;
    size_t width, height;
};

Result cuMemcpy2DAsync_v2(const struct Copy2d *copy, Pointer stream)
{
    (void)stream;
    MAY_FAIL;
    const char *from = copy->from_kind == 1 ? copy->from_host : (Pointer)copy->from_device;
    char *to = copy->to_kind == 1 ? copy->to_host : (Pointer)copy->to_device;
    for (size_t row = 0; row < copy->height; row++)
        memcpy(to + (copy->to_y + row) * copy->to_pitch + copy->to_x,
               from + (copy->from_y + row) * copy->from_pitch + copy->from_x, copy->width);
    return OK;
}

Result cuModuleLoadData(Pointer *module, const void *image)
{
    MAY_FAIL;
    if (getenv("FAKE_CUDA_OLD")) return UNSUPPORTED_PTX_VERSION;
    const char *folder = getenv("FAKE_CUDA_DUMP");
    if (folder) {
        char name[4096];
        snprintf(name, sizeof name, "%s/%03d.ptx", folder, modules);
        FILE *file = fopen(name, "w");
        if (!file || fputs(image, file) < 0 || fclose(file)) { perror(name); abort(); }
    }
    *module = (Pointer)(uintptr_t)(100 + modules++);
    return OK;
}

Result cuModuleUnload(Pointer module) { (void)module; return OK; }
Result cuModuleGetFunction(Pointer *function, Pointer module, const char *name) { (void)name; *function = module; return OK; }
Result cuFuncSetAttribute(Pointer function, int attribute, int value) { (void)function, (void)attribute, (void)value; return OK; }

Result cuLaunchKernel(Pointer function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                      unsigned block_z, unsigned shared, Pointer stream, Pointer *arguments, Pointer *extra)
{
    (void)function, (void)stream, (void)arguments, (void)extra;
    MAY_FAIL;
    /* As cards do, and unlike Vulkan's devices: a grid of no blocks is an error too. */
    int most_shared;
    cuDeviceGetAttribute(&most_shared, 97, 0);
    size_t threads = (size_t)block_x * block_y * block_z;
    int has_grid = grid_x && grid_y && grid_z && grid_x <= 2147483647 && grid_y <= 65535 && grid_z <= 65535;
    int has_block = threads && block_x <= 1024 && block_y <= 1024 && block_z <= 64 && threads <= 1024;
    return has_grid && has_block && shared <= (unsigned)most_shared ? OK : INVALID_VALUE;
}

/* Bulk copies, with the conditions of the driver's manual for those that are not interleaved. */
Result cuTensorMapEncodeTiled(Pointer map, int type, unsigned rank, Pointer address, const uint64_t *lengths, const uint64_t *strides,
                              const unsigned *box, const unsigned *steps, int interleaved, int swizzle, int promotion, int fill)
{
    (void)map, (void)steps, (void)interleaved, (void)promotion, (void)fill;
    static const unsigned sizes[] = {1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4};
    if (type < 0 || type >= (int)(sizeof sizes / sizeof *sizes) || rank < 1 || rank > 5 || (uintptr_t)address % 16) return INVALID_VALUE;
    for (unsigned i = 0; i < rank; i++) {
        if (!lengths[i] || lengths[i] > (uint64_t)1 << 32 || !box[i] || box[i] > 256) return INVALID_VALUE;
        if (i + 1 < rank && (strides[i] % 16 || strides[i] >= (uint64_t)1 << 40)) return INVALID_VALUE;
    }
    unsigned row = box[0] * sizes[type];
    return row % 16 || (swizzle && row > 16u << (swizzle < 3 ? swizzle : 3)) ? INVALID_VALUE : OK;
}

Result cuGetErrorName(int error, const char **name) { (void)error; *name = "CUDA_ERROR_OF_NO_CARD"; return OK; }
Result cuGetErrorString(int error, const char **text) { *text = error == OUT_OF_MEMORY ? "out of memory" : "failed"; return OK; }
